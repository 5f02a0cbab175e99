"""One session of a logged-in client: a shell or a command, on a pty or on pipes, and the bytes to and from it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable

import asyncssh

from tunnel.children.spawn import Program, spawn
from tunnel.children.users import User, environment
from tunnel.ssh.server.connection import Channel
from tunnel.ssh.server.modes import apply_modes, apply_size
from tunnel.ssh.server.scp import is_scp, run_scp
from tunnel.ssh.server.variables import about_client, clients_own, terminal_type

_READ_SIZE = 64 << 10
_TAIL_LIMIT = 1 << 20  # bytes of a terminal's output after its shell has ended: more than a pty can hold
Process = asyncssh.SSHServerProcess[bytes]


async def run_session(process: Process, user: User, client: str) -> None:
    """Run what the client asks for, or what is forced, to its end; ``client`` is its address for the environment."""
    channel = process.channel
    if not isinstance(channel, Channel) or channel.forced_command not in (None, process.command):
        raise RuntimeError("a session that does not know what it may run")
    if channel.forced_command is None and process.command is not None and is_scp(process.command):
        await run_scp(process, process.command, user.home)
        return
    if process.subsystem is not None:
        process.stderr.write(f"there is no subsystem {process.subsystem!r} here\n".encode())
        process.exit(127)
        return
    try:
        program = _start(process, channel, user, client)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the command or a variable
        reason = exc.strerror or exc if isinstance(exc, OSError) else exc
        process.stderr.write(f"wstunnel-py: cannot start: {reason}\r\n".encode())
        process.exit(126)
        return
    await _Session(process, program).run()


def _start(process: Process, channel: Channel, user: User, client: str) -> Program:
    is_forced = channel.forced_command is not None
    env = environment(user, {}, terminal=process.term_type is not None)
    env |= clients_own(process.env, is_forced=is_forced)
    if process.term_type is not None:
        env["TERM"] = terminal_type(process.term_type)
    env |= channel.variables
    env |= about_client(client)
    if (agent := channel.get_agent_path()) is not None:
        env["SSH_AUTH_SOCK"] = agent
    if is_forced and channel.asked is not None:
        env["SSH_ORIGINAL_COMMAND"] = channel.asked
    words = [user.shell, "-l"] if process.command is None else [user.shell, "-c", process.command]
    cwd = user.home if os.path.isdir(user.home) else "/"
    if process.term_type is None:
        return spawn(words, cwd, env, size=None, stdin=True, outlives_us=True)

    def prepare(terminal: int) -> None:
        env["SSH_TTY"] = os.ttyname(terminal)
        apply_modes(terminal, process.term_modes)
        apply_size(terminal, process.term_size)

    return spawn(words, cwd, env, size=(80, 24), stdin=True, prepare=prepare, outlives_us=True)


class _Session:
    """A started program, its streams joined with the channel's."""

    def __init__(self, process: Process, program: Program) -> None:
        self._process = process
        self._program = program
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._on_pty = "pty" in program.outputs.values()
        program.child.when_ended(self._reap)

    def _reap(self) -> None:
        self._program.child.reap()
        self._ended.set()

    async def run(self) -> None:
        """Join the streams until the child has ended and all that it wrote is sent, or the client is gone."""
        feeding = asyncio.create_task(self._feed())
        sending = [asyncio.create_task(self._send(output, kind)) for output, kind in self._program.outputs.items()]
        ending = asyncio.create_task(self._end(sending))
        leaving = asyncio.create_task(self._process.channel.wait_closed())
        tasks = [feeding, *sending, ending, leaving]
        try:
            await asyncio.wait({ending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self._close()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, (OSError, asyncssh.Error)):
                raise result
        self._tell_status()

    async def _end(self, sending: list[asyncio.Task[None]]) -> None:
        await self._ended.wait()
        if self._on_pty:
            # What it wrote is in the pty by now. Who still has the terminal open may write on for ever.
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            await self._send_tail()
        else:
            # As sshd does: whatever has the output open may still add to it.
            await asyncio.gather(*sending)

    def _close(self) -> None:
        """Hang up: a pty's programs are told by the kernel when it is closed, a command on pipes by us."""
        program = self._program
        for descriptor in {*program.outputs, *([] if program.stdin is None else [program.stdin])}:
            os.close(descriptor)
        # The command alone, not what it has put into the background: VS Code's server has to outlive its ssh.
        program.child.signal(signal.SIGHUP)

    def _tell_status(self) -> None:
        status = self._program.child.status
        if status is None:
            return
        if status >= 0:
            self._process.exit(status)
        else:
            self._process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))

    # ---- to the client

    async def _send(self, output: int, kind: str) -> None:
        writer = self._process.stderr if kind == "stderr" else self._process.stdout
        while data := await self._read(output):
            writer.write(data)
            await writer.drain()

    async def _send_tail(self) -> None:
        (output,) = self._program.outputs
        left = _TAIL_LIMIT
        while left > 0 and (data := _read_now(output)):
            self._process.stdout.write(data)
            left -= len(data)
        await self._process.stdout.drain()

    async def _read(self, output: int) -> bytes:
        """Return what the child has written next, nothing at the end."""
        while (data := _read_now(output)) is None:
            await self._wait(output, self._loop.add_reader, self._loop.remove_reader)
        return data

    async def _wait(self, descriptor: int, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        ready = asyncio.Event()
        add(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            remove(descriptor)

    # ---- from the client

    async def _feed(self) -> None:
        while True:
            try:
                data = await self._process.stdin.read(_READ_SIZE)
            except asyncssh.TerminalSizeChanged as change:
                if self._on_pty:
                    apply_size(next(iter(self._program.outputs)), change.term_size)
            except asyncssh.SignalReceived as received:
                self._signal(received.signal)
            except asyncssh.BreakReceived:
                self._signal("INT")
            else:
                if not data:
                    self._end_input()
                    return
                await self._write(data)

    async def _write(self, data: bytes) -> None:
        descriptor = self._program.stdin
        rest = memoryview(data)
        while rest and descriptor is not None:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                await self._wait(descriptor, self._loop.add_writer, self._loop.remove_writer)
            except OSError:
                return  # EPIPE, EIO: the child will never read it, but may still have something to say

    def _end_input(self) -> None:
        """Let the child read the end; a terminal has none but what is typed (Ctrl-D)."""
        if not self._on_pty and self._program.stdin is not None:
            os.close(self._program.stdin)
            self._program = dataclasses.replace(self._program, stdin=None)

    def _signal(self, name: str) -> None:
        """Send the signal that a client names (RFC 4254 section 6.10) to the child's group, if there is such a one."""
        number = getattr(signal, f"SIG{name}", None)
        if isinstance(number, signal.Signals):
            self._program.child.signal_group(number)


def _read_now(output: int) -> bytes | None:
    """Return what is there: nothing at the end, None when there is nothing yet."""
    try:
        return os.read(output, _READ_SIZE)
    except BlockingIOError:
        return None
    except OSError:
        return b""  # EIO: nobody has the terminal open any more
