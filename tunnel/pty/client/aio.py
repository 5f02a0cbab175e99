"""`tunnel.AsyncSandbox`: the terminals of a sandbox, for programs that use asyncio. The twin of `sync`.

Output is read by the task that iterates or waits; only an ``on_data`` callback has its own task. A method that is
cancelled leaves the terminal unchanged, and the next method connects again.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Self

from tunnel.errors import TunnelError, UsageError
from tunnel.pty.client import calls
from tunnel.pty.client.access import locate_sandbox
from tunnel.pty.client.calls import Call
from tunnel.pty.client.http import HttpOptions
from tunnel.pty.client.http_async import AsyncHttpClient, AsyncOutputReader
from tunnel.pty.client.model import ProcessInfo, PtySize, Result, size_of
from tunnel.pty.client.stream import Gap, TerminalStream

OnData = Callable[[bytes], object]  # a function or a coroutine function


class AsyncSandbox:
    """A sandbox with a terminal service: one of this project (by URL) or E2B's (by sandbox id or host name).

    ``token`` is the service's access token. A terminal whose connection breaks is reconnected for up to
    ``reconnect_for`` seconds. The other options say how to reach the service, as for ``wstunnel-py connect``; times are
    in seconds. Nothing is sent before the first call. Raises UsageError for arguments that cannot be used.

    If there is a key for it (E2B_API_KEY), or ``provider`` is ``e2b``, E2B is asked about a sandbox that is named by
    its id: calls wake it if it is paused, and its tokens need not be given. With ``none``, E2B is not asked.

    An asynchronous context manager. `close` ends all connections but leaves all processes running.
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
        provider: str | None = None,
    ) -> None:
        options = HttpOptions(
            ca_file=ca_file, client_cert=client_cert, client_key=client_key, insecure=insecure, proxy=proxy,
            connect_timeout=connect_timeout, request_timeout=request_timeout,
        )  # fmt: skip
        place, access = locate_sandbox(
            host_or_url, token=token, headers=headers, provider=provider, ca_file=ca_file, proxy=proxy
        )
        self.pty = AsyncPty(AsyncHttpClient(place, options, access), reconnect_for)

    async def close(self) -> None:
        """End all connections; terminals keep running."""
        await self.pty.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncPty:
    """The terminals of a sandbox, and the other processes that its service runs."""

    def __init__(self, client: AsyncHttpClient, reconnect_for: float = 60.0) -> None:
        self._client = client
        self._reconnect_for = reconnect_for
        self._terminals: weakref.WeakSet[AsyncTerminal] = weakref.WeakSet()
        self._input_locks: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()

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
        """Start an interactive login bash in a terminal of ``cols`` × ``rows`` characters, 80 × 24 by default.

        ``command`` (a program and its arguments) runs instead of bash. ``on_data`` is called with the bytes of the
        output in a background task, and awaited if it is a coroutine function. The service kills the terminal after
        ``timeout`` seconds, whether or not anyone is connected; 0 means never. Raises TunnelError; TerminalError if the
        user or the folder does not exist.
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
        """Connect to a running terminal. ``timeout`` ends this connection, not the terminal; 0 means never.

        Output from now on arrives. Our own service first repeats what follows the offset ``replay_from``, as far back
        as it keeps output; `AsyncTerminal.offset` is such an offset. Raises TerminalError if there is no such terminal.
        """
        return await self._open(calls.connect(pid, replay_from=replay_from), on_data, timeout, None)

    async def send_stdin(self, pid: int, data: bytes) -> None:
        """Type ``data`` on a terminal.

        It arrives once and in order, even if several tasks call this at the same time. Raises TerminalError if there
        is no such terminal. A service other than ours may raise ConnectionLost (code ``pty-input-unsure``): the input
        may or may not have arrived.
        """
        async with self._input_locks.setdefault(pid, asyncio.Lock()):
            for at in range(0, len(data), calls.INPUT_LIMIT):
                await self._client.perform(calls.send_input(pid, bytes(data[at : at + calls.INPUT_LIMIT])))

    send_input = send_stdin

    async def resize(
        self, pid: int, size: PtySize | None = None, *, cols: int | None = None, rows: int | None = None
    ) -> None:
        """Set the size of a terminal, in characters."""
        await self._client.perform(calls.resize(pid, size_of(size, rows, cols)))

    async def kill(self, pid: int) -> bool:
        """Kill a process and everything it started; return whether it existed."""
        try:
            await self._client.perform(calls.kill(pid))
        except TunnelError as exc:
            if calls.is_unknown(exc):
                return False
            raise
        return True

    async def list(self) -> list[ProcessInfo]:
        """Return the processes that the service runs."""
        return calls.processes(await self._client.perform(calls.list_processes()), self._client.endpoint)

    async def _open(self, begin: Call, on_data: OnData | None, limit: float, tag: str | None) -> AsyncTerminal:
        stream = TerminalStream(
            begin, endpoint=self._client.endpoint, now=time.monotonic(), timeout=limit,
            reconnect_for=self._reconnect_for, tag=tag,
        )  # fmt: skip
        reader = AsyncOutputReader(self._client, stream)
        terminal = AsyncTerminal(self, reader, await reader.start(), on_data)
        self._terminals.add(terminal)
        return terminal

    async def close(self) -> None:
        """End all connections; terminals keep running."""
        for terminal in list(self._terminals):
            await terminal.disconnect()
        await self._client.close()


class AsyncTerminal:
    """A terminal in the sandbox, and the connection that carries its output.

    Iterate over it to get the output as bytes, until the terminal ends. Pieces have any length, so a UTF-8 character
    may be split. When the connection breaks it is made again, and the output continues where it stopped. An
    asynchronous context manager that disconnects on exit.
    """

    def __init__(self, pty: AsyncPty, reader: AsyncOutputReader, pid: int, on_data: OnData | None) -> None:
        self.pid = pid
        self._pty = pty
        self._reader = reader
        self._task: asyncio.Task[None] | None = None
        if on_data is not None:
            self._task = asyncio.create_task(self._deliver(on_data), name=f"terminal {pid}")

    @property
    def offset(self) -> int:
        """How many bytes of output have arrived; from our own service counted from the terminal's first byte."""
        return self._reader.stream.offset

    @property
    def result(self) -> Result | None:
        """How the terminal ended; None until that is known here."""
        return self._reader.stream.result

    async def send_stdin(self, data: bytes) -> None:
        """Type ``data``; see `AsyncPty.send_stdin`."""
        await self._pty.send_stdin(self.pid, data)

    send_input = send_stdin

    async def resize(self, size: PtySize | None = None, *, cols: int | None = None, rows: int | None = None) -> None:
        """Set the size of the terminal, in characters."""
        await self._pty.resize(self.pid, size, cols=cols, rows=rows)

    async def kill(self) -> bool:
        """Kill the terminal and everything that runs in it; return whether it was still running."""
        return self.result is None and await self._pty.kill(self.pid)

    async def disconnect(self) -> None:
        """End the connection. The terminal keeps running; ``sandbox.pty.connect(pid)`` joins it again."""
        self._reader.interrupt()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._reader.close()

    async def wait(self, on_data: OnData | None = None) -> Result:
        """Wait for the terminal to end and return its result; a failed command raises nothing.

        ``on_data`` is called with the output. If neither this call nor `AsyncPty.create` was given a callback, output
        is discarded. Raises TerminalError (``pty-deadline``) when the terminal's time is up, ConnectionLost when the
        connection cannot be restored, UsageError after `disconnect`, and whatever a callback raised.
        """
        if self._task is None:
            async for data in self:
                if on_data is not None:
                    await _call(on_data, data)
        else:
            if on_data is not None or self._task is asyncio.current_task():
                raise UsageError(_TAKEN)
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()
        if self.result is None:
            raise UsageError(f"terminal {self.pid} is disconnected: connect to it again to wait for it")
        return self.result

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the output until the terminal ends."""
        if self._task is not None:
            raise UsageError(_TAKEN)
        while (data := await self._next()) is not None:
            yield data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()

    async def _deliver(self, on_data: OnData) -> None:
        """Call ``on_data`` with the output: the work of the task."""
        try:
            while (data := await self._next()) is not None:
                await _call(on_data, data)
        finally:
            await self._reader.close()

    async def _next(self) -> bytes | None:
        """Return the next output, None at the end."""
        item = await self._reader.read()
        while isinstance(item, Gap):  # never, as the stream is strict
            item = await self._reader.read()
        return item


async def _call(on_data: OnData, data: bytes) -> None:
    found = on_data(data)
    if inspect.isawaitable(found):
        await found


_TAKEN = "the output already goes to on_data"
