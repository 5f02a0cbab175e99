"""All processes of the service: started up to a limit, found by pid or tag, kept for a while after they end."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
from dataclasses import replace

from tunnel.children.family import Sweeper, kill_families, signal_sessions
from tunnel.children.spawn import spawn
from tunnel.children.users import User, environment
from tunnel.errors import spelled
from tunnel.pty.protocol.framing import ConnectError
from tunnel.pty.protocol.messages import ProcessInfo, Selector, StartRequest
from tunnel.pty.server.process import Process, take_over
from tunnel.pty.server.users import working_directory
from tunnel.restart.state import Handed, Kept, Tree
from tunnel.server.log import event

RETENTION = 120.0  # seconds that an ended process is kept: a client may be late because it first noticed the outage
RETAINED = 1000  # ended processes that are kept
RETAINED_BYTES = 64 << 20  # of their output
HANGUP_LIMIT = 3.0  # seconds for processes to end after SIGHUP, when the service stops
KILL_LIMIT = 5.0  # seconds for a process to end after SIGKILL; it may hang in the kernel
_CODES = {errno.EACCES: "permission_denied", errno.EPERM: "permission_denied", errno.E2BIG: "invalid_argument"}


class Processes:
    """The processes. ``scrollback`` (in bytes) and ``max_subscribers`` are per process."""

    def __init__(self, max_processes: int, max_subscribers: int, scrollback: int) -> None:
        self._max_processes = max_processes
        self._max_subscribers = max_subscribers
        self._scrollback = scrollback
        self._running: dict[int, Process] = {}
        self._ended: dict[int, Process] = {}
        self._closing = False
        self._sweeper = Sweeper()

    def start(self, request: StartRequest, user: User) -> Process:
        """Start a process. Raises ConnectError: ``resource_exhausted``, ``unavailable``, ``invalid_argument`` (cwd)."""
        if self._closing:
            raise ConnectError("unavailable", "the service is stopping")
        if len(self._running) >= self._max_processes:
            raise ConnectError(
                "resource_exhausted",
                f"too many processes: the limit is {self._max_processes} ({spelled('pty_max_processes')})",
            )
        cwd = working_directory(user, request.cwd)
        env = environment(user, request.envs or {}, terminal=request.size is not None)
        command = (request.cmd, *request.args)
        size = None if request.size is None else (request.size.cols, request.size.rows)
        try:
            program = spawn(command, cwd, env, size=size, stdin=request.stdin, credentials=user.credentials)
        except OSError as exc:
            code = _CODES.get(exc.errno or 0, "resource_exhausted")
            raise ConnectError(code, f"cannot start {request.cmd!r} in {cwd!r}: {exc.strerror or exc}") from exc
        process = Process(
            ProcessInfo(program.child.pid, request.cmd, request.args, request.envs, cwd, request.tag),
            user.name,
            program,
            self._sweeper,
            on_pty=request.size is not None,
            scrollback=self._scrollback,
            max_subscribers=self._max_subscribers,
            on_exit=self._on_exit,
        )
        process.begin()
        self._ended.pop(process.pid, None)  # an earlier process with the same pid
        self._running[process.pid] = process
        return process

    def find(self, selector: Selector, *, ended: bool = False) -> Process:
        """Return the process with this pid, or the latest with this tag; with ``ended`` also one that has ended.

        Raises ConnectError (``not_found``).
        """
        for processes in (self._running, self._ended) if ended else (self._running,):
            if isinstance(selector, int):
                if selector in processes:
                    return processes[selector]
            else:
                for process in reversed(processes.values()):
                    if process.tag == selector:
                        return process
        name = f"pid {selector}" if isinstance(selector, int) else f"tag {selector!r}"
        raise ConnectError("not_found", f"there is no process with {name}")

    def list(self) -> list[ProcessInfo]:
        """Return the running processes."""
        return [process.info for process in self._running.values()]

    def capture(self, kept: Kept) -> Tree:
        """Return all processes, for `restore` in the service's next version."""
        return {
            "running": [each.capture(kept) for each in self._running.values()],
            "ended": [each.capture(kept) for each in self._ended.values()],
        }

    def restore(self, tree: Tree, handed: Handed) -> None:
        """Take over the processes of the service's earlier version; `begin` continues them."""
        for processes, trees in ((self._running, tree["running"]), (self._ended, tree["ended"])):
            for each in trees:
                processes[each["pid"]] = take_over(
                    each,
                    handed,
                    self._sweeper,
                    scrollback=self._scrollback,
                    max_subscribers=self._max_subscribers,
                    on_exit=self._on_exit,
                )

    def begin(self) -> None:
        """Continue the processes that were taken over."""
        for process in list(self._running.values()):
            process.begin()
        for process in self._ended.values():
            self._forget_later(process, max(0.0, RETENTION - process.ended_for))

    async def close(self) -> None:
        """End all processes and everything they have started; if called a second time, at once.

        Sessions get SIGHUP. When a process has ended, what is left of its descendants gets SIGKILL; so does a process
        that takes too long, with its descendants.
        """
        hurry, self._closing = self._closing, True
        for process in self._running.values():
            process.kill_descendants_at_end()
        steps = ((signal.SIGHUP, HANGUP_LIMIT), (signal.SIGKILL, KILL_LIMIT))
        for number, limit in steps[1:] if hurry else steps:
            children = [process.child for process in self._running.values()]
            if number == signal.SIGHUP:
                signal_sessions(children, signal.SIGHUP)
                signal_sessions(children, signal.SIGCONT)  # a stopped process handles no signal but SIGKILL
            else:
                kill_families(children)
            waiting = [asyncio.ensure_future(process.exited.wait()) for process in self._running.values()]
            if waiting:
                _, late = await asyncio.wait(waiting, timeout=limit)
                for each in late:
                    each.cancel()

    def _on_exit(self, process: Process) -> None:
        del self._running[process.pid]
        ended = self._ended
        ended[process.pid] = process
        while len(ended) > RETAINED or sum(each.kept for each in ended.values()) > RETAINED_BYTES:
            del ended[next(iter(ended))]
        self._forget_later(process, RETENTION)
        event(
            logging.INFO,
            "process",
            pid=process.pid,
            user=process.user,
            command=process.info.cmd,
            seconds=process.age,
            end=process.ended.status if process.ended else "",
        )
        process.info = replace(process.info, args=(), envs=None)  # no longer listed, and may be large

    def _forget_later(self, process: Process, seconds: float) -> None:
        # By id, so that the timer does not keep a dropped process in memory.
        asyncio.get_running_loop().call_later(seconds, self._forget, process.pid, process.id)

    def _forget(self, pid: int, process_id: str) -> None:
        if pid in self._ended and self._ended[pid].id == process_id:
            del self._ended[pid]
