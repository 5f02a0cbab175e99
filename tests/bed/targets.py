"""Scripted TCP targets, for tests that decide which end closes first, and how."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

LIMIT = 30.0  # seconds that any single wait of a target may take


class Target:
    """A loopback server that gives each connection to ``script`` in a thread of its own.

    ``result()`` is what the script returned for the next connection that has ended, or raises what it raised.
    """

    def __init__(self, script: Callable[[socket.socket], object]) -> None:
        self._script = script
        self._results: queue.Queue[object] = queue.Queue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # shutdown wakes accept() up, and says so with an error
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(LIMIT)
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(LIMIT)

    def result(self, seconds: float = LIMIT) -> object:
        try:
            outcome = self._results.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"the target saw no connection end within {seconds} s") from None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed: the test is over
            connection.settimeout(LIMIT)
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            outcome = self._script(connection)
        except Exception as exc:  # a failed assertion, too
            outcome = exc
        finally:
            connection.close()
        self._results.put(outcome)


def read_to_end(connection: socket.socket) -> bytes:
    """Everything until the peer's end of stream."""
    return b"".join(iter(lambda: connection.recv(1 << 18), b""))


def read_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(min(1 << 18, size - len(data)))
        assert chunk, f"the stream ended after {len(data)} of {size} bytes"
        data += chunk
    return bytes(data)


def echo(connection: socket.socket) -> None:
    """Send everything back, and the end of the stream too."""
    for chunk in iter(lambda: connection.recv(1 << 18), b""):
        connection.sendall(chunk)
    connection.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    """Break the connection: the peer gets a RST, not an end of stream."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
