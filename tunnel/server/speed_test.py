"""The other end of a speed test: a target inside the bridge, for clients that measure the speed of their tunnels.

A client selects it with a subprotocol, and sends one line:

    source      this end sends bytes until the client closes the connection
    sink        this end counts the client's bytes until its half-close, and answers with the count
    echo        this end sends the client's bytes back

It reveals nothing and connects to nothing. Every client that may open tunnels may use it, for at most `TIME_LIMIT`.
"""

from __future__ import annotations

import asyncio
import os
import socket

from tunnel.errors import DialError
from tunnel.net.address import Client
from tunnel.server.target import Target

TIME_LIMIT = 60.0  # seconds of one test
_PIECE = 256 << 10


class SpeedTarget(Target):
    """Serves each test in its own task, on one end of a socketpair."""

    def __init__(self) -> None:
        self._tests: set[asyncio.Task[None]] = set()

    def __str__(self) -> str:
        return "speed-test"

    async def close(self) -> None:
        """End all tests."""
        for test in self._tests:
            test.cancel()
        await asyncio.gather(*self._tests, return_exceptions=True)

    async def dial(self, seconds: float, client: Client) -> socket.socket:
        """Return a non-blocking socket on which a test waits for its line. Raises DialError."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            raise DialError("tcp", address=self, reason=exc.strerror or str(exc)) from exc
        ours.setblocking(False)
        test = asyncio.create_task(_serve(theirs))
        self._tests.add(test)
        test.add_done_callback(self._tests.discard)
        return ours


async def _serve(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock, limit=_PIECE)
    try:
        async with asyncio.timeout(TIME_LIMIT):
            order = await reader.readline()
            if order == b"source\n":
                await _send(writer)
            elif order in (b"sink\n", b"echo\n"):
                await _receive(reader, writer, echo=order == b"echo\n")
    except (OSError, TimeoutError, ValueError):
        pass  # the client disconnected, was too slow or sent no line; it sees the end of the stream
    finally:
        writer.close()


async def _send(writer: asyncio.StreamWriter) -> None:
    piece = os.urandom(_PIECE)  # not compressible
    while True:
        writer.write(piece)
        await writer.drain()


async def _receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, echo: bool) -> None:
    count = 0
    while data := await reader.read(_PIECE):
        count += len(data)
        if echo:
            writer.write(data)
            await writer.drain()
    if not echo:
        writer.write(b"%d\n" % count)
        await writer.drain()
