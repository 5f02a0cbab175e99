"""`tunnel.AsyncSandbox`: the terminals of a sandbox, for programs that use asyncio. The twin of `sync`.

Output is pulled by who iterates or waits, in that task; only an ``on_data`` callback has a task of its own. When a
method is cancelled the terminal stays as it is, and the next one connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Self

from tunnel.errors import TunnelError, UsageError
from tunnel.protocol.upgrade import Response
from tunnel.pty.client import calls
from tunnel.pty.client.calls import Attempts, Call
from tunnel.pty.client.endpoint import Endpoint, locate
from tunnel.pty.client.http import (
    BODY_LIMIT,
    Broken,
    Way,
    broken,
    client_options,
    exchange_limit,
    head_of,
    request_options,
    stream_ended,
    too_late,
)
from tunnel.pty.client.model import ProcessInfo, PtySize, Result, size_of
from tunnel.pty.client.stream import Gap, TerminalStream
from tunnel.pty.protocol.framing import Object

# Behind `http`, which tells what is missing if this is.
import httpx  # isort: skip

OnData = Callable[[bytes], object]  # a function, or a coroutine function


class AsyncSandbox:
    """A sandbox with a terminal service: that of this project (by its URL), or E2B's (by the sandbox's id or host).

    ``token`` is the service's access token. ``reconnect_for`` is for how many seconds a terminal whose connection broke
    is tried again. The rest is how the service is reached, as for ``wstunnel-py connect``; times are in seconds.
    Nothing is sent before the first call. Raises UsageError for what cannot be used.

    An asynchronous context manager; `close` ends all connections, and no process.
    """

    def __init__(
        self,
        host_or_url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        insecure: bool = False,
        proxy: str | None = None,
        connect_timeout: float = 15.0,
        request_timeout: float = 30.0,
        reconnect_for: float = 60.0,
    ) -> None:
        way = Way(
            ca_file=ca_file, client_cert=client_cert, client_key=client_key, insecure=insecure, proxy=proxy,
            connect_timeout=connect_timeout, request_timeout=request_timeout,
        )  # fmt: skip
        self.pty = AsyncPty(AsyncService(locate(host_or_url, token=token, headers=headers), way), reconnect_for)

    async def close(self) -> None:
        """End all connections; terminals go on running."""
        await self.pty.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncService:
    """Requests to one service over an ``httpx.AsyncClient``."""

    def __init__(self, place: Endpoint, way: Way) -> None:
        self.place = place
        self._way = way
        self._client = httpx.AsyncClient(**client_options(self.place, way))
        self._ours = False

    async def perform(self, call: Call, *, patience: float = 0.0) -> Object:
        """Make a unary call; return the message of its answer. Raises TunnelError.

        For ``patience`` seconds a service that cannot be reached is tried again.
        """
        attempts = Attempts(call, self.place, now=time.monotonic(), patience=patience)
        while True:
            try:
                return calls.result(call, await self._exchange(call), self.place)
            except Broken as exc:
                delay = attempts.again(exc.error, now=time.monotonic(), arrived=exc.arrived, ours=self._ours)
            await asyncio.sleep(delay)

    async def _exchange(self, call: Call) -> Response:
        request = self._client.build_request(**request_options(call, self.place, stream=False))
        async with self._in_time():
            response = await self._client.send(request, stream=True)
            async with contextlib.aclosing(response):
                return await self._complete(response)

    async def open(self, call: Call, patience: float) -> tuple[httpx.Response, Response]:
        """Open a stream whose next bytes may take ``patience`` seconds; return it and its head. Raises Broken."""
        timeout = httpx.Timeout(patience, connect=self._way.connect_timeout)
        request = self._client.build_request(**request_options(call, self.place, stream=True), timeout=timeout)
        async with self._in_time():
            response = await self._client.send(request, stream=True)
            if response.status_code == 200:
                return response, self._head(response)
            async with contextlib.aclosing(response):
                return response, await self._complete(response)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Limit what is done meanwhile as a whole. Raises Broken for that, and for errors of httpx."""
        try:
            async with asyncio.timeout(exchange_limit(self._way)):
                yield
        except TimeoutError as exc:
            raise too_late(self.place, self._way) from exc
        except httpx.HTTPError as exc:
            raise broken(exc, self.place, self._way) from exc

    def _head(self, response: httpx.Response) -> Response:
        answer = head_of(response)
        self._ours = self._ours or calls.is_ours(answer)
        return answer

    async def _complete(self, response: httpx.Response) -> Response:
        """Return an answer with its body, as far as it is within bounds."""
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
            raise broken(exc, self.place, self._way) from exc

    async def close(self) -> None:
        await self._client.aclose()


class AsyncPty:
    """The terminals of a sandbox, and all else that its service runs."""

    def __init__(self, service: AsyncService, reconnect_for: float) -> None:
        self._service = service
        self._reconnect_for = reconnect_for
        self._terminals: weakref.WeakSet[AsyncTerminal] = weakref.WeakSet()
        self._typing: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()

    async def create(
        self,
        size: PtySize | None = None,
        *,
        cols: int | None = None,
        rows: int | None = None,
        on_data: OnData | None = None,
        envs: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float = 60.0,  # noqa: ASYNC109  # the terminal's, not the call's
        command: Sequence[str] | None = None,
    ) -> AsyncTerminal:
        """Start a terminal of ``cols`` × ``rows`` characters, 80 × 24 by default, with an interactive login bash.

        ``command`` (a program and its arguments) runs instead of bash. ``on_data`` is called with the output's bytes,
        in a task, and awaited if it is a coroutine function. After ``timeout`` seconds, whoever is connected, the
        service kills the terminal; 0: never. Raises TunnelError: for a user or folder that there is not, TerminalError.
        """
        tag = calls.new_tag()
        begin = calls.start(size_of(size, rows, cols), tag, command=command, envs=envs, cwd=cwd, user=user)
        return await self._open(begin, on_data, timeout, tag)

    async def connect(
        self,
        pid: int,
        *,
        on_data: OnData | None = None,
        timeout: float = 60.0,  # noqa: ASYNC109  # the connection's, not the call's
        replay_from: int | None = None,
    ) -> AsyncTerminal:
        """Connect to a terminal that runs. ``timeout`` ends this connection, not the terminal; 0: never.

        The output from now on comes; from our service also that from the offset ``replay_from`` on, or from the oldest
        byte that it keeps. `Terminal.offset` tells such an offset. Raises TerminalError if there is no such terminal.
        """
        return await self._open(calls.connect(pid, replay_from=replay_from), on_data, timeout, None)

    async def send_stdin(self, pid: int, data: bytes) -> None:
        """Type ``data`` on a terminal.

        It arrives once and in order, also when tasks call this at the same time. Raises TerminalError if there is no
        such terminal, ConnectionLost (cause ``pty-input-unsure``) if a service other than ours may or may not have it.
        """
        async with self._typing.setdefault(pid, asyncio.Lock()):
            for at in range(0, len(data), calls.INPUT_LIMIT):
                await self._service.perform(calls.send_input(pid, bytes(data[at : at + calls.INPUT_LIMIT])))

    send_input = send_stdin

    async def resize(
        self, pid: int, size: PtySize | None = None, *, cols: int | None = None, rows: int | None = None
    ) -> None:
        """Tell a terminal its new size, in characters."""
        await self._service.perform(calls.resize(pid, size_of(size, rows, cols)))

    async def kill(self, pid: int) -> bool:
        """Kill a process with all that it started; return whether there was one."""
        try:
            await self._service.perform(calls.kill(pid))
        except TunnelError as exc:
            if calls.is_unknown(exc):
                return False
            raise
        return True

    async def list(self) -> list[ProcessInfo]:
        """Return the processes that the service runs."""
        return calls.processes(await self._service.perform(calls.list_processes()), self._service.place)

    async def _open(self, begin: Call, on_data: OnData | None, limit: float, tag: str | None) -> AsyncTerminal:
        stream = TerminalStream(
            begin, place=self._service.place, now=time.monotonic(), timeout=limit, reconnect_for=self._reconnect_for,
            tag=tag,
        )  # fmt: skip
        terminal = AsyncTerminal(self, self._service, stream, on_data)
        self._terminals.add(terminal)
        await terminal.begin()
        return terminal

    async def close(self) -> None:
        """End all connections; terminals go on running."""
        for terminal in list(self._terminals):
            await terminal.disconnect()
        await self._service.close()


class AsyncTerminal:
    """A terminal that runs in the sandbox, and the connection that its output comes over.

    Iterating yields the output as bytes, in whatever pieces it comes (a character of UTF-8 may be split), until the
    terminal ends. A connection that breaks is made again, and the output goes on where it broke off. An asynchronous
    context manager, which disconnects.
    """

    pid: int

    def __init__(self, pty: AsyncPty, service: AsyncService, stream: TerminalStream, on_data: OnData | None) -> None:
        self._pty = pty
        self._service = service
        self._stream = stream
        self._on_data = on_data
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._reading = False
        self._leaving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Connect, as far as the process is known, and start to deliver."""
        stream = self._stream
        try:
            while stream.pid is None and not stream.over:
                await self._step()
            if stream.pid is None and stream.failure is not None:
                raise stream.failure
        except BaseException:
            await self._hang_up()
            raise
        self.pid = stream.pid or 0
        if self._on_data is not None:
            self._task = asyncio.create_task(self._deliver(self._on_data), name=f"terminal {self.pid}")

    @property
    def offset(self) -> int:
        """How many bytes of output came, counted from the terminal's first one if the service is ours."""
        return self._stream.offset

    @property
    def result(self) -> Result | None:
        """How the terminal ended, None as far as is known here yet."""
        return self._stream.result

    async def send_stdin(self, data: bytes) -> None:
        """Type ``data``; see `AsyncPty.send_stdin`."""
        await self._pty.send_stdin(self.pid, data)

    send_input = send_stdin

    async def resize(self, size: PtySize | None = None, *, cols: int | None = None, rows: int | None = None) -> None:
        """Tell the terminal its new size, in characters."""
        await self._pty.resize(self.pid, size, cols=cols, rows=rows)

    async def kill(self) -> bool:
        """Kill the terminal with all that runs in it; return whether it still ran."""
        return self.result is None and await self._pty.kill(self.pid)

    async def disconnect(self) -> None:
        """End the connection; the terminal goes on running, and ``sandbox.pty.connect(pid)`` finds it again."""
        self._leaving.set()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._hang_up()

    async def wait(self, on_data: OnData | None = None) -> Result:
        """Wait for the terminal's end and return how it ended; a failure of what ran in it is no exception.

        ``on_data`` is called with the output. Without it, and without one of `AsyncPty.create`, output is dropped.
        Raises TunnelError: TerminalError (``pty-deadline``) when the time is over, ConnectionLost when the connection
        is lost for good, UsageError after `disconnect`; and what a callback raised.
        """
        if self._task is None:
            async for data in self:
                if on_data is not None:
                    await _call(on_data, data)
        else:
            if on_data is not None or self._task is asyncio.current_task():
                raise UsageError("the output goes to on_data already")
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()
        if self._stream.result is None:
            raise UsageError(f"terminal {self.pid} is disconnected: connect to it again to wait for it")
        return self._stream.result

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._task is not None:
            raise UsageError("the output goes to on_data already")
        while (data := await self._next()) is not None:
            yield data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()

    # ---- inside

    async def _deliver(self, on_data: OnData) -> None:
        """Call ``on_data`` with the output: what the task does."""
        try:
            while (data := await self._next()) is not None:
                await _call(on_data, data)
        finally:
            await self._hang_up()

    async def _next(self) -> bytes | None:
        """Return the next output, None at the end."""
        item = await self.item()
        while isinstance(item, Gap):  # no gap comes out of a strict stream
            item = await self.item()
        return item

    async def item(self) -> bytes | Gap | None:
        """Return the next output or gap in it, None at the end."""
        if self._reading:
            raise UsageError("the output is read by another task already")
        self._reading = True
        try:
            while not self._leaving.is_set():
                if (item := self._stream.take()) is not None:
                    return item
                if self._stream.over:
                    return None
                await self._step()
            return None
        finally:
            self._reading = False

    async def _step(self) -> None:
        """Do one thing that takes time: connect, or read, or wait before connecting again."""
        arrived, error = True, stream_ended().error
        try:
            if self._chunks is None:
                more = await self._open()
            else:
                more = self._stream.receive(await self._service.read(self._chunks))
            late = self._stream.overdue(time.monotonic()) if more else None
            if more and late is None:
                return
            error = late or error
        except Broken as exc:
            arrived, error = exc.arrived, exc.error
        await self._hang_up()
        delay = self._stream.broke(error, time.monotonic(), arrived=arrived)
        if not self._stream.over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), delay)

    async def _open(self) -> bool:
        now = time.monotonic()
        self._response, answer = await self._service.open(self._stream.call(now), self._stream.patience(now))
        if not self._stream.answered(answer):
            return False
        self._chunks = self._response.aiter_raw()
        return True

    async def _hang_up(self) -> None:
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            await response.aclose()


async def _call(on_data: OnData, data: bytes) -> None:
    found = on_data(data)
    if inspect.isawaitable(found):
        await found
