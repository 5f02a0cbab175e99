"""Waiting for plain sockets in asyncio's loop, before a relay watches them itself."""

from __future__ import annotations

import asyncio
import socket

LINGER_SECONDS = 2.0
LINGER_BYTES = 64 * 1024


async def readable(fd: int) -> None:
    """Wait until descriptor ``fd`` can be read. There is no limit: the caller sets one."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def writable(fd: int) -> None:
    """Wait until descriptor ``fd`` can be written. There is no limit: the caller sets one."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(fd, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


async def close_gently(sock: socket.socket, most: int = LINGER_BYTES) -> None:
    """Close ``sock`` so that the peer can read what was sent last.

    Closing at once would reset the connection if there are unread data, and the peer could then not read what was sent
    (RFC 9112 section 9.6). So this half-closes, and discards up to ``most`` bytes for up to `LINGER_SECONDS`. Errors of
    the peer or the network are ignored.
    """
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            sock.shutdown(socket.SHUT_WR)  # a TLS socket is a plain one from here on
            await _discard(sock, most)
    except OSError:
        pass  # TimeoutError, too: the peer had enough time
    finally:
        sock.close()


async def _discard(sock: socket.socket, most: int) -> None:
    discarded = 0
    while discarded < most:
        # In every turn of the loop, as a peer that never stops sending must not delay others.
        await readable(sock.fileno())
        try:
            data = sock.recv(64 * 1024)
        except BlockingIOError:
            continue
        if not data:
            return
        discarded += len(data)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
