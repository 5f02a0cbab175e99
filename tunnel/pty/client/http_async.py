"""HTTP requests of the asynchronous client. The twin of `http_sync`.

`AsyncHttpClient` makes the calls; `AsyncOutputReader` reads a terminal's output and connects again when a connection
breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from tunnel.errors import ProviderError, TerminalError, UpgradeRefused, UsageError
from tunnel.protocol.upgrade import Response
from tunnel.pty.client import calls
from tunnel.pty.client.access import ServiceAccess
from tunnel.pty.client.calls import Attempts, Call
from tunnel.pty.client.endpoint import Endpoint
from tunnel.pty.client.http import (
    BODY_LIMIT,
    Broken,
    HttpOptions,
    Requests,
    broken,
    exchange_limit,
    exchange_timed_out,
    head_of,
    stream_ended,
    transport_options,
)
from tunnel.pty.client.stream import Gap, TerminalStream
from tunnel.pty.protocol.framing import Object

# After `http`, which raises a clear error if httpx is not installed.
import httpx  # isort: skip
from tunnel.pty.client.one_write import AsyncTransport  # isort: skip


class AsyncHttpClient:
    """Makes calls to one terminal service."""

    def __init__(self, endpoint: Endpoint, options: HttpOptions, access: ServiceAccess | None = None) -> None:
        self._options = options
        self._access = access
        self._is_located = access is None
        self._transport: AsyncTransport | None = None
        self._unused: list[AsyncTransport] = []  # transports of an earlier endpoint
        self.endpoint = endpoint
        self._use(endpoint)
        self._ours = False

    def _use(self, endpoint: Endpoint) -> None:
        """Make requests to ``endpoint`` from now on."""
        if self._transport is None or endpoint.url != self.endpoint.url:
            if self._transport is not None:
                self._unused.append(self._transport)
            self._transport = AsyncTransport(**transport_options(endpoint, self._options))
        self.endpoint = endpoint
        self._requests = Requests(endpoint, self._options)

    async def perform(self, call: Call, *, retry_for: float = 0.0) -> Object:
        """Make a unary call and return the message of its answer. Raises TunnelError.

        A service that cannot be reached is tried again for ``retry_for`` seconds.
        """
        attempts = Attempts(call, self.endpoint, now=time.monotonic(), retry_for=retry_for)
        while True:
            arrived = False
            try:
                answer = await self._exchange(call)
                arrived = calls.may_have_passed(answer)
                return calls.result(call, answer, self.endpoint)
            except Broken as exc:
                delay = attempts.again(exc.error, now=time.monotonic(), arrived=exc.arrived, ours=self._ours)
            except (ProviderError, TerminalError, UpgradeRefused) as exc:
                delay = attempts.again(exc, now=time.monotonic(), arrived=arrived, ours=self._ours)
            await asyncio.sleep(delay)

    async def _exchange(self, call: Call) -> Response:
        await self._locate()
        answer = await self._exchange_once(call)
        return await self._exchange_once(call) if await self._renew(answer, call) else answer

    async def _locate(self) -> None:
        """Ask the sandbox's provider, if there is one, before the first request. Raises TunnelError."""
        if not self._is_located and self._access is not None:
            self._use(await asyncio.to_thread(self._access.first))
            self._is_located = True

    async def _renew(self, answer: Response, call: Call) -> bool:
        """Ask the provider again after a refusal; return whether the call is worth another attempt."""
        if self._access is None or answer.status == 200:
            return False
        endpoint = await asyncio.to_thread(self._access.after, answer, call, self.endpoint)
        if endpoint is not None:
            self._use(endpoint)
        return endpoint is not None

    async def _exchange_once(self, call: Call) -> Response:
        async with self._time_limit():
            response = await self._send(self._requests.unary(call))
            async with contextlib.aclosing(response):
                return await self._read_body(response)

    async def open(self, call: Call, read_timeout: float) -> tuple[httpx.Response, Response]:
        """Open a stream whose next bytes may take ``read_timeout`` seconds; return it and its head. Raises Broken."""
        try:
            await self._locate()
            response, answer = await self._open_once(call, read_timeout)
            if await self._renew(answer, call):
                response, answer = await self._open_once(call, read_timeout)
        except ProviderError as exc:
            raise Broken(exc, arrived=False) from exc
        return response, answer

    async def _open_once(self, call: Call, read_timeout: float) -> tuple[httpx.Response, Response]:
        async with self._time_limit():
            response = await self._send(self._requests.stream(call, read_timeout))
            if response.status_code == 200:
                return response, self._head(response)
            async with contextlib.aclosing(response):
                return response, await self._read_body(response)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        assert self._transport is not None  # noqa: S101  # `_use` has made it
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.RequestError as exc:
            exc.request = request
            raise
        response.request = request
        return response

    @contextlib.asynccontextmanager
    async def _time_limit(self) -> AsyncIterator[None]:
        """Limit the time of a whole exchange. Raises Broken when it is over, and for httpx's errors."""
        try:
            async with asyncio.timeout(exchange_limit(self._options)):
                yield
        except TimeoutError as exc:
            raise exchange_timed_out(self.endpoint, self._options) from exc
        except httpx.HTTPError as exc:
            raise broken(exc, self.endpoint, self._options) from exc

    def _head(self, response: httpx.Response) -> Response:
        answer = head_of(response)
        self._ours = self._ours or calls.is_ours(answer)
        return answer

    async def _read_body(self, response: httpx.Response) -> Response:
        """Return the answer with its body, which is cut off beyond `BODY_LIMIT`."""
        answer = self._head(response)
        body = bytearray()
        async for data in response.aiter_raw():
            body += data
            if len(body) > BODY_LIMIT:
                break
        answer.body = bytes(body)
        return answer

    async def read(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Return the next bytes of a stream. Raises Broken, also at its end."""
        try:
            return await anext(chunks)
        except StopAsyncIteration:
            raise stream_ended() from None
        except (httpx.HTTPError, httpx.StreamError) as exc:
            raise broken(exc, self.endpoint, self._options) from exc

    async def close(self) -> None:
        """Close all connections."""
        for transport in (*self._unused, self._transport):
            if transport is not None:
                await transport.aclose()


class AsyncOutputReader:
    """Reads the output of one terminal over as many connections as it takes."""

    def __init__(self, client: AsyncHttpClient, stream: TerminalStream) -> None:
        self.stream = stream
        self._client = client
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._reading = False
        self._stopping = asyncio.Event()
        self._attention = asyncio.Event()  # what ends a wait before the next attempt

    async def start(self) -> int:
        """Connect, and return the terminal's pid. Raises TunnelError."""
        stream = self.stream
        try:
            while stream.pid is None and not stream.over:
                await self._step()
            if stream.pid is None and stream.failure is not None:
                raise stream.failure
        except BaseException:
            await self.close()
            raise
        return stream.pid or 0

    async def read(self) -> bytes | Gap | None:
        """Return the next output or gap in it, None at the end. Raises TunnelError."""
        if self._reading:
            raise UsageError("another task is already reading this terminal's output")
        self._reading = True
        try:
            while not self._stopping.is_set():
                if (item := self.stream.take()) is not None:
                    return item
                if self.stream.over:
                    return None
                await self._step()
            return None
        finally:
            self._reading = False

    def interrupt(self) -> None:
        """Make `read` return None after its current step, and from then on."""
        self._stopping.set()
        self._attention.set()

    def nudge(self) -> None:
        """Connect again at once, if it waits: the sandbox was woken."""
        self._attention.set()

    async def close(self) -> None:
        """Close the connection."""
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            await response.aclose()

    async def _step(self) -> None:
        """Connect, or read once, or wait before the next attempt to connect."""
        arrived, error = True, stream_ended().error
        try:
            if self._chunks is None:
                more = await self._connect()
            else:
                more = self.stream.receive(await self._client.read(self._chunks))
            late = self.stream.overdue(time.monotonic()) if more else None
            if more and late is None:
                return
            error = late or error
        except Broken as exc:
            arrived, error = exc.arrived, exc.error
        await self.close()
        self._attention.clear()
        delay = self.stream.broke(error, time.monotonic(), arrived=arrived)
        if not self.stream.over and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._attention.wait()

    async def _connect(self) -> bool:
        now = time.monotonic()
        self._response, answer = await self._client.open(self.stream.call(now), self.stream.read_timeout(now))
        if not self.stream.answered(answer):
            return False
        self._chunks = self._response.aiter_raw()
        return True
