"""One run of ``shell``: from the call that starts or joins a terminal to the exit code.

What is told to the service when this command ends, and how it ends:

    the terminal ended                 nothing; its exit code, 128 + n for signal n
    ``~.``, a signal, a closed output  a terminal of our own is killed (not with --keep); 0, 128 + n, 141
    ``~&``                             a terminal of our own is kept; 0
    a failure                          as for ``~.``, as far as the service can be reached; 255

A command that is killed outright tells nobody. For that, and for a network that does not come back, the service is
asked in advance to kill the terminal when nobody has been connected to it for ``--grace`` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from tunnel.client.signals import not_ignored
from tunnel.client.trace import Trace
from tunnel.errors import ConnectionLost, TunnelError
from tunnel.net.standard_streams import CLOSED_OUTPUT
from tunnel.pty.client import calls
from tunnel.pty.client.aio import AsyncPty, AsyncService, AsyncTerminal
from tunnel.pty.client.model import PtySize, Result
from tunnel.pty.client.stream import Gap, TerminalStream
from tunnel.pty.shell.escapes import Command, EscapeReader, help_text
from tunnel.pty.shell.keyboard import Keyboard
from tunnel.pty.shell.local import LocalTerminal
from tunnel.pty.shell.screen import Screen
from tunnel.pty.shell.settings import ShellSettings

FAILED = 255  # what ssh returns for failures of its own
QUIET_OUTAGE = 10.0  # seconds that the user is not told of
FAREWELL_LIMIT = 2.0  # seconds for telling the service that a terminal is to end, or to stay
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


@dataclass(frozen=True)
class Ending:
    """Why a run ends: its exit code, what becomes of a terminal of our own, and the failure, if it is one."""

    code: int
    kill: bool = False
    keep: bool = False
    failure: BaseException | None = None


def run(settings: ShellSettings, trace: Trace) -> int:
    """Run a shell on standard input and output; return the exit code. Raises TunnelError."""
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        code = runner.run(_run(settings, trace))
    trace.step("end", f"exit code {code}")
    return code


def _event_loop() -> asyncio.AbstractEventLoop:
    # poll, unlike epoll, takes files and devices as standard input, too.
    selector = selectors.PollSelector() if sys.platform == "linux" else selectors.SelectSelector()
    return asyncio.SelectorEventLoop(selector)


async def _run(settings: ShellSettings, trace: Trace) -> int:
    service = AsyncService(settings.place, settings.way)
    screen = Screen()
    try:
        return await Session(settings, service, screen, trace).run()
    finally:
        screen.close()
        await service.close()


class Session:
    """A terminal in the sandbox on the one at this end."""

    def __init__(self, settings: ShellSettings, service: AsyncService, screen: Screen, trace: Trace) -> None:
        self._settings = settings
        self._service = service
        self._screen = screen
        self._trace = trace
        self._local = LocalTerminal()
        self._own = settings.attach is None
        self._size = self._local.size() or PtySize(rows=24, cols=80)
        self._resized = asyncio.Event()
        self._tag = calls.new_tag()
        self._stream = self._new_stream()
        pty = AsyncPty(service, settings.reconnect_for)
        self._terminal = AsyncTerminal(pty, service, self._stream, None)
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        escapes = EscapeReader(settings.escape if self._local.present else None)
        self._keyboard = Keyboard(self._type, escapes, self._command, self._input_ended)

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
            begin, place=self._service.place, now=time.monotonic(), timeout=settings.timeout,
            reconnect_for=settings.reconnect_for, tag=self._tag if self._own else None, strict=False,
        )  # fmt: skip

    async def run(self) -> int:
        """Return the exit code. Raises TunnelError for a failure of this command or of the service."""
        with self._signals():
            try:
                self._start(self._serve)
                ending = await self._ending
            finally:
                self._screen.raw = False
                self._local.restore()
                await self._stop()
            await self._say_farewell(ending)
        if ending.failure is not None:
            raise ending.failure
        return ending.code

    # ---- the tasks

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task, whose failure ends the run. One that is cancelled at once has never begun its ``work``."""
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except OSError as exc:
            # Of the service's connection we only hear as TunnelError: this is standard output.
            closed = isinstance(exc, BrokenPipeError) or self._local.present
            failure = None if closed else ConnectionLost("output", reason=exc.strerror or exc)
            self._end(Ending(CLOSED_OUTPUT, kill=True, failure=failure))
        except Exception as exc:
            self._end(Ending(FAILED, kill=True, failure=exc))

    async def _stop(self) -> None:
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._terminal.disconnect()

    async def _serve(self) -> None:
        """Connect, then show the output until the terminal ends."""
        await self._terminal.begin()
        counted = "" if self._stream.counted else "; the service does not count output: an outage may lose some"
        self._trace.step("terminal", f"pid {self._terminal.pid}{counted}")
        if self._ending.done():
            return
        if self._local.present:
            self._local.enter_raw()
            self._screen.raw = True
        if self._local.size() not in (None, self._size) or not self._own:
            self._resized.set()
        for work in (self._keyboard.run, self._follow_size, self._watch_connection):
            self._start(work)
        while (item := await self._terminal.item()) is not None:
            if isinstance(item, Gap):
                self._screen.say(f"the connection was lost, and {item} of output with it")
            else:
                await self._screen.write(item)
        if (result := self._terminal.result) is not None:
            self._end(Ending(status_of(result)))

    async def _type(self, data: bytes) -> None:
        call = calls.send_input(self._terminal.pid, data)
        try:
            await self._service.perform(call, patience=self._settings.reconnect_for)
        except TunnelError as exc:
            if exc.cause == "pty-input-unsure":
                self._screen.say(str(exc))
            elif calls.is_unknown(exc):
                await asyncio.Event().wait()  # it has ended: how comes with the output
            else:
                raise

    async def _follow_size(self) -> None:
        """Tell the terminal the size of ours whenever that changes."""
        while True:
            await self._resized.wait()
            self._resized.clear()
            if (size := self._local.size()) is not None:
                self._size = size
                with contextlib.suppress(TunnelError):  # a terminal of the wrong size is better than none
                    call = calls.resize(self._terminal.pid, size)
                    await self._service.perform(call, patience=self._settings.reconnect_for)

    async def _watch_connection(self) -> None:
        """Tell the user of an outage that takes longer, and of its end."""
        since: float | None = None
        told = False
        while True:
            await asyncio.sleep(0.5)
            reason = self._stream.broken
            if reason is None:
                if told and not self._settings.quiet:
                    self._screen.say("connected again")
                since, told = None, False
            elif since is None:
                since = time.monotonic()
            elif not told and time.monotonic() - since >= QUIET_OUTAGE:
                told = True
                limit = self._settings.reconnect_for
                self._screen.say(f"connection lost ({reason}); trying for {limit:g} s to get it back")

    # ---- what ends it

    def _end(self, ending: Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    def _command(self, command: Command) -> None:
        if command is Command.HELP:
            own = self._own and not self._settings.keep
            self._screen.say(help_text(self._settings.escape or "", own=own))
        else:
            self._end(Ending(0, kill=command is Command.LEAVE, keep=command is Command.DETACH))

    def _input_ended(self) -> None:
        if self._local.present:
            self._end(Ending(128 + signal.SIGHUP, kill=True))  # the terminal at this end was hung up
        elif self._own:
            self._start(self._end_input)

    async def _end_input(self) -> None:
        await self._keyboard.sent()
        await self._keyboard.keep_ending()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        endings = not_ignored(*SIGNALS)
        for number in endings:
            loop.add_signal_handler(number, self._end, Ending(128 + number, kill=True))
        resizes = not_ignored(signal.SIGWINCH)
        for number in resizes:
            loop.add_signal_handler(number, self._resized.set)
        try:
            yield
        finally:
            for number in (*endings, *resizes):
                loop.remove_signal_handler(number)

    async def _say_farewell(self, ending: Ending) -> None:
        """Tell the service what is to become of the terminal, as far as it can be reached."""
        if not self._own or self._terminal.result is not None:
            return
        selector = self._stream.pid or self._tag
        try:
            async with asyncio.timeout(FAREWELL_LIMIT):
                if ending.kill and not self._settings.keep:
                    await self._service.perform(calls.kill(selector))
                elif ending.keep:
                    if not self._settings.keep:
                        await self._service.perform(calls.resize(self._terminal.pid, self._size, keep=True))
                    self._screen.say(f"the terminal goes on; --attach {selector} joins it again")
        except (TunnelError, TimeoutError) as exc:
            if not (isinstance(exc, TunnelError) and calls.is_unknown(exc)) and ending.failure is None:
                after = f"it ends after {self._settings.grace:g} s without us, if the service can do that"
                self._screen.say(f"the service was not told ({str(exc) or 'no answer'}); {after}")


def status_of(result: Result) -> int:
    """Return the exit code of a command that ends as ``result`` tells."""
    if result.signal is None:
        return result.exit_code & 0xFF
    return 128 + result.signal if result.signal else FAILED
