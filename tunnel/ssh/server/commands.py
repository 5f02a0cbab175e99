"""The shell or command of one SSH session, on a pty or on pipes, connected to the session's channel."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable

import asyncssh

from tunnel.children.spawn import Program, spawn
from tunnel.children.terminal import set_size
from tunnel.children.users import User, environment
from tunnel.ssh.server.connection import Channel
from tunnel.ssh.server.modes import apply_modes
from tunnel.ssh.server.scp import is_scp, run_scp
from tunnel.ssh.server.variables import client_variables, connection_variables, terminal_type

_READ_SIZE = 64 << 10
_TAIL_LIMIT = 1 << 20  # bytes of output to read after the shell has ended: more than a pty can hold
Process = asyncssh.SSHServerProcess[bytes]


async def run_command(process: Process, user: User, client: str) -> None:
    """Run the client's or the forced command until it ends. ``client`` is the client's address, for the environment."""
    channel = process.channel
    if not isinstance(channel, Channel) or channel.forced_command not in (None, process.command):
        raise RuntimeError("the session's command is not the forced one")
    if channel.forced_command is None and process.command is not None and is_scp(process.command):
        await run_scp(process, process.command, user.home)
        return
    if process.subsystem is not None:
        process.stderr.write(f"unknown subsystem {process.subsystem!r}\n".encode())
        process.exit(127)
        return
    try:
        program = _start(process, channel, user, client)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the command or a variable
        reason = exc.strerror or exc if isinstance(exc, OSError) else exc
        process.stderr.write(f"wstunnel-py: cannot start the command: {reason}\r\n".encode())
        process.exit(126)
        return
    await _RunningCommand(process, program).run()


def _start(process: Process, channel: Channel, user: User, client: str) -> Program:
    is_forced = channel.forced_command is not None
    env = environment(user, {}, terminal=process.term_type is not None)
    env |= client_variables(process.env, is_forced=is_forced)
    if process.term_type is not None:
        env["TERM"] = terminal_type(process.term_type)
    env |= channel.variables
    env |= connection_variables(client)
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
        set_size(terminal, *process.term_size)

    return spawn(words, cwd, env, size=(80, 24), stdin=True, prepare=prepare, outlives_us=True)


class _RunningCommand:
    """A started program, and the copying between its streams and the channel's."""

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
        """Copy until the child has ended and all of its output is sent, or the client has disconnected."""
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
            # Its output is in the pty by now. Background processes may continue to write forever.
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            await self._send_tail()
        else:
            # Like sshd, wait for all processes that have the output open.
            await asyncio.gather(*sending)

    def _close(self) -> None:
        """Close the streams and send SIGHUP. When a pty is closed, the kernel also sends it."""
        program = self._program
        for descriptor in {*program.outputs, *([] if program.stdin is None else [program.stdin])}:
            os.close(descriptor)
        # Only to the command, not to its background processes: VS Code's server must outlive its ssh.
        program.child.signal(signal.SIGHUP)

    def _tell_status(self) -> None:
        status = self._program.child.status
        if status is None:
            return
        if status >= 0:
            self._process.exit(status)
        else:
            self._process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))

    # --- To the client

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
        """Return the child's next output, nothing at the end."""
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

    # --- From the client

    async def _feed(self) -> None:
        while True:
            try:
                data = await self._process.stdin.read(_READ_SIZE)
            except asyncssh.TerminalSizeChanged as change:
                if self._on_pty:
                    set_size(next(iter(self._program.outputs)), *change.term_size)
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
                return  # EPIPE, EIO: the child no longer reads, but it may still write

    def _end_input(self) -> None:
        """Close the child's input. A terminal has no end of input but Ctrl-D, which the client types."""
        if not self._on_pty and self._program.stdin is not None:
            os.close(self._program.stdin)
            self._program = dataclasses.replace(self._program, stdin=None)

    def _signal(self, name: str) -> None:
        """Send the signal that a client names (RFC 4254 section 6.10) to the child's process group, if it exists."""
        number = getattr(signal, f"SIG{name}", None)
        if isinstance(number, signal.Signals):
            self._program.child.signal_group(number)


def _read_now(output: int) -> bytes | None:
    """Return available output; nothing at the end, None if there is nothing yet."""
    try:
        return os.read(output, _READ_SIZE)
    except BlockingIOError:
        return None
    except OSError:
        return b""  # EIO: no process has the terminal open any more
