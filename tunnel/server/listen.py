"""Accepting connections, from sockets that were opened for ``--listen`` or passed by systemd.

They are plain non-blocking sockets, not asyncio servers, because a session reads and writes them itself.
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
from tunnel.server.log import event, unexpected

_PAUSE = 1.0  # seconds without accepting when the system has no file descriptors or memory left
_SHORT_PAUSE = 0.01  # the same if a connection gives way
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
    """Return an address to listen on, as somebody wrote it, with the empty host that a port alone means."""
    return f":{text}" if _PORT.fullmatch(text) else text


class Listener:
    """Accepts connections from a listening socket, which it owns."""

    def __init__(self, listening: ListeningSocket) -> None:
        self._listening = listening
        self._sock = listening.sock
        self.address = listening.address
        self._complained_at = float("-inf")

    async def accept(self, free_descriptor: Callable[[], bool]) -> tuple[socket.socket, Client]:
        """Wait for the next connection; errors are logged.

        ``free_descriptor`` is called when no file descriptors are left; it returns whether a connection gives way.
        """
        while True:
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
                    await readable(self._sock.fileno())  # nobody has to give way while there is no new connection
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
