"""A time limit for a whole exchange of the synchronous client.

httpx limits each read, so a service that keeps sending single bytes or interim responses never times out; and OpenSSL
has no timeout. So a thread shuts down the connections of exchanges whose time is over. The asynchronous client
does not need this: asyncio can cancel it.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import httpcore
import httpx

from tunnel.pty.client.one_write import HeldHead

_current = threading.local()


class Deadline:
    """A context manager that cuts off this thread's exchange after ``seconds``; ``passed``: whether it did."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._seconds = seconds
        self._lock = threading.Lock()
        self._over = False
        self._sock: socket.socket | None = None

    def __enter__(self) -> Self:
        _current.deadline = self
        _watch.add(self, time.monotonic() + self._seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.deadline = None
        _watch.remove(self)
        with self._lock:
            self._over = True
            self._sock = None

    def uses(self, sock: socket.socket | None) -> None:
        """Note which connection the exchange uses now."""
        with self._lock:
            self._sock = sock
        if self.passed and sock is not None:
            _shut_down(sock)

    def cut_off(self) -> None:
        """Shut down the connection that the exchange uses, and each that it will use, unless it is over."""
        with self._lock:
            if self._over:
                return
            self.passed = True
            if self._sock is not None:
                _shut_down(self._sock)


class _Watch:
    """The thread that cuts off exchanges: one for all, because starting one takes as long as half an exchange.

    It sleeps until the time of the first exchange that it has seen, even if that is over, and ends if there is nothing
    to watch then. So an exchange normally neither wakes nor starts a thread.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ends: dict[Deadline, float] = {}
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None

    def add(self, deadline: Deadline, end: float) -> None:
        """Cut off the exchange of ``deadline`` at the time ``end``."""
        with self._changed:
            self._ends[deadline] = end
            if self._thread is None or not self._thread.is_alive():  # it has ended, or this process is a fork
                self._wakes_at = end
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            elif end < self._wakes_at:
                self._wakes_at = end
                self._changed.notify_all()

    def remove(self, deadline: Deadline) -> None:
        """Forget an exchange, which is over."""
        with self._changed:
            self._ends.pop(deadline, None)

    def rest(self) -> None:
        """End the thread if there is nothing to watch, and wait until it has ended."""
        with self._changed:
            thread = self._thread
            if thread is None or self._ends or not thread.is_alive():
                return
            self._wakes_at = 0.0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._thread is not thread or self._ends)
            if self._thread is thread:
                return  # it is needed again, by another client
        thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while (left := self._wakes_at - time.monotonic()) > 0:
                    self._changed.wait(left)
                now = time.monotonic()
                late = [deadline for deadline, end in self._ends.items() if end <= now]
                for deadline in late:
                    del self._ends[deadline]
                idle = not self._ends
                if idle:
                    self._thread = None
                    self._changed.notify_all()
                else:
                    self._wakes_at = min(self._ends.values())
            for deadline in late:
                deadline.cut_off()
            if idle:
                return


_watch = _Watch()


def rest() -> None:
    """End the thread if there are no exchanges; call this when a client closes."""
    _watch.rest()


class Transport(httpx.HTTPTransport):
    """httpx's transport, whose connections report to the `Deadline` of their thread when they are used."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # httpcore's pool takes a backend as an argument, but httpx has no option for it.
        self._pool._network_backend = _Backend(self._pool._network_backend)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._head = HeldHead()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        _tell(self._stream.get_extra_info("socket"))
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer := self._head.join(buffer):
            _tell(self._stream.get_extra_info("socket"))
            self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        sock = self._stream.get_extra_info("socket")
        # Wrapping detaches this socket object; the duplicate can still shut the connection down.
        twin = sock.dup() if isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket) else None
        _tell(twin)
        try:
            return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout))
        finally:
            _tell(None)
            if twin is not None:
                twin.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _tell(sock: socket.socket | None) -> None:
    deadline: Deadline | None = getattr(_current, "deadline", None)
    if deadline is not None:
        deadline.uses(sock)


def _shut_down(sock: socket.socket) -> None:
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # SSLSocket.shutdown is not thread-safe
    except OSError:
        pass  # closed or broken already
