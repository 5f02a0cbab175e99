"""Accepting connections, from sockets that were opened for ``--listen`` or passed by systemd.

These are plain non-blocking sockets, not asyncio servers, because a relay reads and writes them itself.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import socket
from collections.abc import Callable

from tunnel.net.address import Client, client_of
from tunnel.net.async_sockets import readable
from tunnel.net.listening import ListeningSocket
from tunnel.restart.state import Handed, Kept, Tree
from tunnel.server.log import event, unexpected

_PAUSE = 1.0  # seconds without accepting when the system has no file descriptors or memory left
_SHORT_PAUSE = 0.01  # the same if a connection is evicted
_SILENCE = 60.0  # seconds between two log lines about it
_PORT = re.compile(r"[0-9]{1,5}")
# Errors of accept(2) that concern a connection, not the listening socket: the client or its network is gone.
_OF_CONNECTION = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "EPROTO",
    )
    if hasattr(errno, name)
)


def with_host(text: str) -> str:
    """Return an address to listen on; a port alone gets an empty host."""
    return f":{text}" if _PORT.fullmatch(text) else text


class Listener:
    """Accepts connections from a listening socket, which it owns."""

    def __init__(self, listening: ListeningSocket) -> None:
        self._listening = listening
        self._sock = listening.sock
        self.address = listening.address
        self._complained_at = float("-inf")
        self._is_open = asyncio.Event()
        self._is_open.set()

    def pause(self) -> None:
        """Stop accepting: connections wait in the kernel until `go_on`."""
        self._is_open.clear()

    def go_on(self) -> None:
        """Accept again."""
        self._is_open.set()

    def capture(self, kept: Kept) -> Tree:
        """Return what `restored` needs."""
        file = self._listening.file
        return {"socket": kept.socket(self._sock), "file": None if file is None else list(file)}

    async def accept(self, free_descriptor: Callable[[], bool]) -> tuple[socket.socket, Client]:
        """Wait for the next connection; errors are logged.

        ``free_descriptor`` is called when no file descriptors are left; it returns whether it could evict a connection.
        """
        while True:
            await self._is_open.wait()
            try:
                accepted = self._sock.accept()
            except BlockingIOError:
                await readable(self._sock.fileno())
            except OSError as exc:
                if exc.errno in _OF_CONNECTION:
                    await asyncio.sleep(0)
                    continue
                is_out_of_descriptors = exc.errno in (errno.EMFILE, errno.ENFILE)
                if is_out_of_descriptors and not self._listening.has_connection():
                    await readable(self._sock.fileno())  # nothing is evicted while there is no new connection
                    continue
                self._complain(exc)
                given_back = is_out_of_descriptors and free_descriptor()
                await asyncio.sleep(_SHORT_PAUSE if given_back else _PAUSE)
            else:
                try:
                    return accepted[0], client_of(accepted[1])
                except Exception as exc:
                    accepted[0].close()
                    unexpected(exc, listener=str(self.address))

    def _complain(self, exc: OSError) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained_at >= _SILENCE:
            self._complained_at = now
            event(logging.ERROR, "cannot-accept", listener=str(self.address), reason=exc.strerror or str(exc))

    def close(self) -> None:
        """Close the listening socket."""
        self._listening.close()


def restored(tree: Tree, handed: Handed) -> Listener:
    """Return a listener that another process has captured. Raises UsageError."""
    sock, file = handed.socket(tree["socket"]), tree["file"]
    if file is None:
        return Listener(ListeningSocket(sock))
    return Listener(ListeningSocket(sock, owns_path=True, file=(file[0], file[1])))
