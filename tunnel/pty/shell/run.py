"""One run of ``shell``: from the call that starts or joins a terminal to the exit code.

How the command ends, what it requests from the service then, and its exit code:

    the terminal ends                  nothing; the terminal's exit code, 128 + n for signal n
    ``~.``, a signal, a closed output  a terminal that we started is killed (not with --keep); 0, 128 + n, 141
    ``~&``                             a terminal that we started is kept; 0
    a failure                          as for ``~.``, if the service can be reached; 255

If this process is killed with SIGKILL, or the network does not return, it cannot request anything. So it asks the
service in advance to kill the terminal once no client has been connected to it for ``--grace`` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import selectors
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tunnel.client.outage import NOTICE_AFTER, back_line, lost_line, span
from tunnel.client.sandbox_time import SandboxTime
from tunnel.client.trace import Trace, end_line, say
from tunnel.errors import ConnectionLost, ProviderError, TunnelError, spelled
from tunnel.net.event_loop import signals_handled
from tunnel.net.standard_streams import CLOSED_OUTPUT
from tunnel.provider.sleep import Sleep
from tunnel.pty.client import calls
from tunnel.pty.client.http_async import AsyncHttpClient, AsyncOutputReader
from tunnel.pty.client.model import PtySize, Result
from tunnel.pty.client.stream import LOOK, Gap, TerminalStream
from tunnel.pty.shell.escapes import Command, EscapeReader, help_text
from tunnel.pty.shell.keyboard import Keyboard
from tunnel.pty.shell.local import local_terminal, terminal_size
from tunnel.pty.shell.screen import Screen
from tunnel.pty.shell.settings import ShellSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.pty.shell.local import LocalTerminal

FAILED = 255  # ssh's own failures have the same exit code
CLOCKS = 15.0  # seconds between two looks at the clocks, which show that this machine was suspended
TYPING = 0.1  # seconds in which several keys cause one check of the sandbox's time
REDRAW_PAUSE = 0.2  # seconds that a terminal has another size, so that its program notices
FAREWELL_LIMIT = 2.0  # seconds for the last call to the service: kill the terminal, or keep it
HANGUP = 1  # SIGHUP, which Windows lacks
SIGNALS = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGBREAK")
PACE = 0.5  # seconds between two checks of the connection, and on Windows, which has no signal for it, of the size


@dataclass(frozen=True)
class Ending:
    """Why a run ends: the exit code, what happens to a terminal that we started, and the failure, if there was one."""

    code: int
    kill: bool = False
    keep: bool = False
    failure: BaseException | None = None


def run(settings: ShellSettings, trace: Trace) -> int:
    """Run a shell on standard input and output and return the exit code. Raises TunnelError."""
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        code = runner.run(_run(settings, trace))
    trace.step("end", f"exit code {code}")
    return code


def _event_loop() -> asyncio.AbstractEventLoop:
    # Unlike epoll, poll also accepts files and devices as standard input.
    selector = selectors.PollSelector() if sys.platform == "linux" else selectors.SelectSelector()
    return asyncio.SelectorEventLoop(selector)


async def _run(settings: ShellSettings, trace: Trace) -> int:
    if (access := settings.access) is not None:
        access.step = trace.step
        if not settings.quiet:
            access.sandbox.notice = say
    client = AsyncHttpClient(settings.place, settings.http_options, access)
    terminal = local_terminal()
    screen = Screen(terminal)
    try:
        try:
            code = await RemoteShell(settings, client, terminal, screen, trace).run()
        except BaseException:
            with contextlib.suppress(OSError):
                screen.finish(FAREWELL_LIMIT)
            raise
        try:
            screen.finish()
        except OSError:
            return CLOSED_OUTPUT
        return code
    finally:
        screen.close()
        terminal.restore_output()
        await client.close()


class RemoteShell:
    """A terminal in the sandbox, shown on the local one."""

    def __init__(
        self, settings: ShellSettings, client: AsyncHttpClient, local: LocalTerminal, screen: Screen, trace: Trace
    ) -> None:
        self._settings = settings
        self._client = client
        self._screen = screen
        self._trace = trace
        self._local = local
        self._own = settings.attach is None
        self._size = terminal_size() or PtySize(rows=24, cols=80)
        self._resized = asyncio.Event()
        self._redraws = False
        self._size_is_due = False  # the size changed while the sandbox was paused
        self._tag = calls.new_tag()
        self._stream = self._new_stream()
        self._reader = AsyncOutputReader(client, self._stream)
        self._pid = 0  # once it is known
        self._typed = 0  # bytes
        self._has_typed = asyncio.Event()
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        escapes = EscapeReader(settings.escape if self._local.present else None)
        self._keyboard = Keyboard(local.open_source(), self._type, escapes, self._command, self._input_ended)

    def _new_stream(self) -> TerminalStream:
        settings = self._settings
        if settings.attach is None:
            begin = calls.start(
                self._size, self._tag, command=settings.command, envs=settings.envs, cwd=settings.cwd,
                user=settings.user, grace=None if settings.keep else settings.grace,
            )  # fmt: skip
        else:
            begin = calls.connect(settings.attach, replay_from=0)
        return TerminalStream(
            begin, endpoint=self._client.endpoint, now=time.monotonic(), timeout=settings.timeout,
            reconnect_for=settings.reconnect_for, tag=self._tag if self._own else None, strict=False,
        )  # fmt: skip

    async def run(self) -> int:
        """Return the exit code. Raises TunnelError when this command or the service fails."""
        with self._signals():
            try:
                self._start(self._serve)
                ending = await self._ending
            finally:
                if self._pid and (self._stream.result is None or self._stream.result.signal is not None):
                    self._screen.leave()
                if self._stream.result is None:  # messages of this command may follow
                    end_line()
                self._local.restore()
                await self._stop()
            await self._finish_terminal(ending)
        if ending.failure is not None:
            if self._pid and isinstance(ending.failure, TunnelError) and calls.is_refusal(ending.failure):
                raise ConnectionLost("pty-refused", reason=ending.failure) from ending.failure
            raise ending.failure
        return ending.code

    # --- the tasks

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task whose failure ends the run. If it is cancelled at once, ``work`` is never called."""
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except OSError as exc:
            # It is standard output: failures of the connection to the service arrive as TunnelError.
            closed = isinstance(exc, BrokenPipeError) or self._local.present
            failure = None if closed else ConnectionLost("output", reason=exc.strerror or exc)
            self._end(Ending(CLOSED_OUTPUT, kill=True, failure=failure))
        except Exception as exc:
            self._end(Ending(FAILED, kill=True, failure=exc))

    async def _stop(self) -> None:
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._reader.interrupt()
        await self._reader.close()

    async def _serve(self) -> None:
        """Connect, then show the output until the terminal ends."""
        self._pid = await self._reader.start()
        counted = "" if self._stream.counted else "; this service does not number its output: an outage may lose some"
        self._trace.step("terminal", f"pid {self._pid}{counted}")
        if self._ending.done():
            return
        self._local.enter_raw()
        if terminal_size() not in (None, self._size) or not self._own:
            self._resized.set()
        for work in (self._keyboard.run, self._follow_size, self._watch_connection):
            self._start(work)
        if self._settings.access is not None:
            self._start(self._keep_sandbox)
        while (item := await self._reader.read()) is not None:
            if isinstance(item, Gap):
                say(f"the connection was lost, and {item} of the output with it")
            else:
                await self._screen.write(item)
            self._redraw_after_replay()
        if (result := self._stream.result) is not None:
            if result.signal is not None and not self._settings.quiet:
                say(f"the terminal was killed ({result.status})")
            self._end(Ending(status_of(result)))

    async def _type(self, data: bytes) -> None:
        call = calls.send_input(self._pid, data)
        self._typed += len(data)
        self._has_typed.set()
        try:
            while True:
                try:
                    await self._client.perform(call, retry_for=self._settings.reconnect_for)
                    break
                except ProviderError as exc:
                    if not calls.is_asleep(exc):
                        raise
                await asyncio.sleep(LOOK)  # this command does not wake it
            if calls.is_asleep(self._stream.broken):
                self._reader.nudge()
        except TunnelError as exc:
            if exc.code == "pty-input-unsure":
                say(str(exc))
            elif calls.is_unknown(exc):
                await asyncio.Event().wait()  # the terminal has ended; the output stream says how
            else:
                raise

    def _redraw_after_replay(self) -> None:
        """Make a full-screen program draw its screen again, as a replay may have shown only a part."""
        replay = self._stream.replay
        if replay is not None and not replay.running:
            self._stream.replay = None
            if replay.alternate:
                self._redraws = True
                self._resized.set()

    async def _follow_size(self) -> None:
        """Give the remote terminal the size of the local one whenever that changes."""
        while True:
            await self._resized.wait()
            self._resized.clear()
            if (size := terminal_size()) is not None:
                self._size = size
                if self._redraws:
                    self._redraws = False
                    await self._resize(PtySize(rows=size.rows, cols=max(size.cols - 1, 1)))
                    await asyncio.sleep(REDRAW_PAUSE)
                await self._resize(size)

    async def _resize(self, size: PtySize) -> None:
        try:
            await self._client.perform(calls.resize(self._pid, size), retry_for=self._settings.reconnect_for)
        except TunnelError as exc:  # a wrong size is better than no terminal
            self._size_is_due = calls.is_asleep(exc)

    async def _keep_sandbox(self) -> None:
        """Extend the sandbox's time while it is used."""
        access = self._settings.access
        if access is None:
            return
        notice = access.sandbox.notice
        times = SandboxTime(access.sandbox, notice, self._trace.step)
        while True:
            now = time.monotonic()
            at = times.look(now, self._typed)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(at - now, CLOCKS)):
                    await self._has_typed.wait()
            await asyncio.sleep(TYPING)  # not for each key
            self._has_typed.clear()

    async def _watch_connection(self) -> None:
        """Notify the user of an outage that lasts, and of its end."""
        since: float | None = None
        told = slept = False
        while True:
            await asyncio.sleep(PACE)
            if not hasattr(signal, "SIGWINCH") and terminal_size() not in (None, self._size):
                self._resized.set()
            reason = self._stream.broken
            if reason is None:
                if told and since is not None:
                    say(back_line(time.monotonic() - since))
                if self._size_is_due:
                    self._size_is_due = False
                    self._resized.set()
                since, told, slept = None, False, False
            elif calls.is_asleep(reason):
                if self._settings.access is not None and not (slept or self._settings.quiet):
                    sandbox = self._settings.access.sandbox
                    say(Sleep(sandbox.id, sandbox.wake).line)
                since, told, slept = time.monotonic(), False, True
                continue
            elif since is None:
                since = time.monotonic()
            elif not (told or self._settings.quiet) and time.monotonic() - since >= NOTICE_AFTER:
                told = True
                say(lost_line(reason, self._settings.reconnect_for) + self._end_of_grace())

    def _end_of_grace(self) -> str:
        """Return a remark, if the service does not wait as long as this command does."""
        settings = self._settings
        if not self._own or settings.keep or settings.grace >= settings.reconnect_for or not self._stream.counted:
            return ""
        return f"; the terminal itself is ended after {span(settings.grace)} ({spelled('pty_grace')})"

    # --- what ends it

    def _end(self, ending: Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    def _command(self, command: Command) -> None:
        if command is Command.HELP:
            own = self._own and not self._settings.keep
            say(help_text(self._settings.escape or "", own=own))
        else:
            self._end(Ending(0, kill=command is Command.LEAVE, keep=command is Command.DETACH))

    def _input_ended(self) -> None:
        if self._local.present:
            self._end(Ending(128 + HANGUP, kill=True))  # the local terminal was closed
        elif self._own:
            self._start(self._end_input)

    async def _end_input(self) -> None:
        await self._keyboard.sent()
        await self._keyboard.keep_ending()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        endings = {name: Ending(128 + getattr(signal, name, 0), kill=True) for name in SIGNALS}
        on_signal: dict[str, Callable[[], object]] = {"SIGWINCH": self._resized.set}
        on_signal.update((name, functools.partial(self._end, ending)) for name, ending in endings.items())
        with signals_handled(on_signal):
            yield

    async def _finish_terminal(self, ending: Ending) -> None:
        """Request that the service kills or keeps the terminal, if it can be reached."""
        if not self._own or self._stream.result is not None:
            return
        selector = self._stream.pid or self._tag
        try:
            async with asyncio.timeout(FAREWELL_LIMIT):
                if ending.kill and not self._settings.keep:
                    # This must not wake a sandbox: there the terminal ends after its grace period.
                    await self._client.perform(replace(calls.kill(selector), wakes=False))
                elif ending.keep:
                    if not self._settings.keep:
                        await self._client.perform(calls.resize(self._pid, self._size, keep=True))
                    say(f"the terminal keeps running; join it again with {spelled('pty_attach')} {selector}")
        except (TunnelError, TimeoutError) as exc:
            if not (isinstance(exc, TunnelError) and calls.is_unknown(exc)) and ending.failure is None:
                after = f"it will kill the terminal after {self._settings.grace:g} s, if it supports that"
                say(f"the service could not be notified that this client has left ({str(exc) or 'no answer'}); {after}")


def status_of(result: Result) -> int:
    """Return the exit code for a terminal that ended with ``result``."""
    if result.signal is None:
        return result.exit_code & 0xFF
    return 128 + result.signal if result.signal else FAILED
