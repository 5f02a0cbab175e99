"""Sending the head and the body of a request together.

httpcore writes them in two packets, which would wake up the service twice for every keystroke.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpcore
import httpx


class HeldHead:
    """Holds the head of a POST until its body is written. Each of this client's requests has a body."""

    def __init__(self) -> None:
        self._head = b""

    def join(self, buffer: bytes) -> bytes:
        """Return what to write now; empty for a head."""
        if not self._head and buffer.startswith(b"POST ") and buffer.endswith(b"\r\n\r\n"):
            self._head = buffer
            return b""
        buffer, self._head = self._head + buffer, b""
        return buffer


class AsyncTransport(httpx.AsyncHTTPTransport):
    """httpx's transport, with connections that write the head and the body of a request together."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # httpcore's pool takes a backend as an argument, but httpx has no option for it.
        self._pool._network_backend = _Backend(self._pool._network_backend)


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._head = HeldHead()
        self.read, self.aclose, self.get_extra_info = stream.read, stream.aclose, stream.get_extra_info  # type: ignore[method-assign]

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # httpcore's
        if buffer := self._head.join(buffer):
            await self._stream.write(buffer, timeout)

    async def start_tls(self, *arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(*arguments, **options))
