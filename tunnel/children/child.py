"""One child process, from its start until it is reaped.

The pid of a process can be reused as soon as it is reaped, so nobody may signal a process that may have been reaped.
`Child.reap` is the only call that reaps, and no signal is sent after it. Use a child only in the thread that started
it, which is the main thread of a service: children end with that thread (see `tunnel.children.parent_death`), and no
lock is needed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunnel.children.dispositions import default_signals, reset_signals
from tunnel.children.exits import watch_for_exit
from tunnel.children.parent_death import RUN, tied, untied

# Marks a child and all its descendants: the marks of the child and of its ancestors, separated by colons. The name has
# no prefix that services remove from the environment (WSTUNNEL_PY_…): a service may run in another service's terminal,
# and killing that terminal must kill the terminals of the inner service, too.
MARK_VARIABLE = "WSTUNNEL_CHILD"
_MARKS = 16  # passed on to a child

_unreaped: dict[int, Child] = {}  # by pid


@dataclass(frozen=True, slots=True)
class Credentials:
    """The ids of another user to run as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class Child:
    """A child process. ``status`` is None until it is reaped, then its exit status, or minus the number of a signal.

    ``mark`` identifies its descendants for `tunnel.children.family`; it may be empty.
    """

    def __init__(self, process: subprocess.Popen[bytes] | int, mark: str = "", status: int | None = None) -> None:
        self._process = process
        self.pid = process if isinstance(process, int) else process.pid
        self.mark = mark
        self.status = status
        self._reaped: asyncio.Event = asyncio.Event()
        if status is None:
            _unreaped[self.pid] = self
        else:
            self._reaped.set()

    @property
    def is_there(self) -> bool:
        """Whether the process is our child and has not been reaped. Otherwise its pid may be that of any process."""
        if self.status is not None:
            return False
        if isinstance(self._process, int) and hasattr(os, "waitid"):  # a number that somebody gave us
            try:
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the child alone, unless it has been reaped."""
        if self.is_there:
            _send(os.kill, self.pid, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the process group that the child leads, unless the child has been reaped.

        Until it is reaped, no other group can have its id.
        """
        if self.is_there:
            _send(os.killpg, self.pid, number)

    def when_ended(self, on_end: Callable[[], object]) -> None:
        """Call ``on_end``, which must call `reap`, once in the running loop when the child has ended."""
        watch_for_exit(self.pid, on_end)

    def reap(self) -> int:
        """Reap the child and return its status. Blocks until the child has ended."""
        if self.status is None:
            self.status = _wait(self._process)
            _unreaped.pop(self.pid, None)
            self._reaped.set()
        return self.status

    def reap_if_ended(self) -> int | None:
        """Reap the child if it has ended; return its status, None while it runs. Does not wait."""
        if self.status is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self.reap()
        return self.status

    async def wait(self) -> int:
        """Wait until the child has been reaped (see `when_ended`) and return its status."""
        await self._reaped.wait()
        return self.reap()


def start(
    command: Sequence[str],
    *,
    script: str = RUN,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    credentials: Credentials | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = True,
    marked: bool = False,
    ends_with_us: bool = True,
) -> Child:
    """Start ``command``, or a ``script`` of /bin/sh with ``command`` as its arguments, as the leader of a new session.

    Streams are descriptors, or None to inherit ours. ``credentials`` is the user to run as, None for ours. With
    ``marked`` all its descendants can be found by `tunnel.children.family`. With ``ends_with_us`` the child is killed
    when this process ends for any reason. It starts with default signal dispositions, none blocked. Raises OSError if
    no process can be started, or if ``cwd`` is not accessible.
    """
    mark = ""
    if marked:
        mark = secrets.token_hex(16)
        env = {**(os.environ if env is None else env), MARK_VARIABLE: ":".join([*_inherited_marks(), mark])}
    words, before_exec = (
        tied(script, command, forks=credentials is not None) if ends_with_us else (untied(script, command), None)
    )
    with default_signals() as reset:
        process = subprocess.Popen(
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            pass_fds=pass_fds,
            start_new_session=new_session,
            user=None if credentials is None else credentials.uid,
            group=None if credentials is None else credentials.gid,
            extra_groups=None if credentials is None else credentials.groups,
            preexec_fn=_both(before_exec, reset),
        )
    return Child(process, mark)


def fork(become: Callable[[], object]) -> Child:
    """Fork a child that calls ``become`` and ends with status 0; for a program with one thread and no event loop.

    It has default signal dispositions, except for the signals that Python ignores. Raises OSError.
    """
    pid = os.fork()
    if not pid:
        try:
            _unreaped.clear()  # these are children of the parent
            reset_signals()
            become()
        finally:
            os._exit(0)
    return Child(pid)


def is_unreaped(pid: int) -> bool:
    """Return whether a process is a child that was started here and has not been reaped yet."""
    return pid in _unreaped


def unreaped_pids() -> list[int]:
    """Return the pids of the children that have not been reaped yet."""
    return list(_unreaped)


def reap_at_end(pids: Iterable[int]) -> None:
    """Reap in the running loop those children that no `Child` stands for, as soon as each ends.

    A program that was executed in the place of another one has the other's children, and may not know what for.
    """
    for pid in pids:
        if is_unreaped(pid):
            continue
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            continue  # the other program has reaped it in its last moments
        child = Child(pid)
        child.when_ended(child.reap)


def _both(first: Callable[[], None] | None, then: Callable[[], None] | None) -> Callable[[], None] | None:
    if first is None or then is None:
        return first or then

    def call() -> None:
        first()
        then()

    return call


def _inherited_marks() -> list[str]:
    given = os.environ.get(MARK_VARIABLE, "")
    return given.split(":")[1 - _MARKS :] if given else []


def _send(send: Callable[[int, int], None], pid: int, number: int) -> None:
    try:
        send(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended, or it runs as another user now


def _wait(process: subprocess.Popen[bytes] | int) -> int:
    if isinstance(process, int):
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return process.wait()
