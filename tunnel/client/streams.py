"""Tunnels for asyncio: a pair of streams, and an object that can be awaited or used with ``async with``."""

from __future__ import annotations

import asyncio
import errno
import functools
from collections.abc import Awaitable, Callable, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from tunnel.client.sockets import TunnelSocket, open_socket

if TYPE_CHECKING:
    from typing import Unpack

    from tunnel.client.tunnel_options import TunnelOptions

T = TypeVar("T")


class Opening(Generic[T]):
    """Something to open: ``await`` it and close the result yourself, or use it with ``async with``."""

    def __init__(self, open_it: Callable[[], Awaitable[T]], close_it: Callable[[T], Awaitable[None]]) -> None:
        self._open = open_it
        self._close = close_it
        self._opened: T | None = None

    def __await__(self) -> Generator[object, None, T]:
        return self._open().__await__()

    async def __aenter__(self) -> T:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._close(self._opened)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def open_connection(
    host: str, *, token: str | None = None, headers: Mapping[str, str] | None = None, **options: Unpack[TunnelOptions]
) -> Opening[Streams]:
    """Open a tunnel to ``host``, like `asyncio.open_connection` for TCP; arguments as for `open_socket`.

    ``reader, writer = await open_connection(…)`` or ``async with open_connection(…) as (reader, writer)``. When the
    tunnel breaks, reading raises ConnectionResetError with the reason.
    """
    opening = functools.partial(open_socket, host, token=token, headers=headers, **options)

    async def open_streams() -> Streams:
        loop = asyncio.get_running_loop()
        sock = await open_in_thread(opening)
        reader = asyncio.StreamReader(loop=loop)
        transport, protocol = await loop.create_connection(lambda: _Protocol(reader, sock), sock=sock)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    return Opening(open_streams, _close_streams)


class _Protocol(asyncio.StreamReaderProtocol):
    """The protocol of asyncio's streams, with the reason for a lost connection from ``sock``.

    The default event loop of Windows does not use the socket's own methods, which would raise that reason.
    """

    def __init__(self, reader: asyncio.StreamReader, sock: TunnelSocket) -> None:
        super().__init__(reader, loop=asyncio.get_running_loop())
        self._sock = sock

    def connection_lost(self, exc: Exception | None) -> None:
        failure = self._sock.failure
        if exc is not None and failure is not None:
            told = ConnectionResetError(errno.ECONNRESET, str(failure))
            told.__cause__ = failure
            exc = told
        super().connection_lost(exc)


async def open_in_thread(opening: Callable[[], TunnelSocket]) -> TunnelSocket:
    """Dial without blocking the loop. If cancelled, a socket that the thread still opens is closed."""
    future = asyncio.get_running_loop().run_in_executor(None, opening)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(_discard)
        raise


def _discard(future: asyncio.Future[TunnelSocket]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


async def _close_streams(streams: Streams) -> None:
    writer = streams[1]
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        pass  # reading has raised it already
