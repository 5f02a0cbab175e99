"""Reaping orphans that a service inherits as process 1 of a container without an init, or as a subreaper.

A process whose parent ends becomes a child of process 1, and would stay a zombie. Only such children are reaped here:
each by its pid, never "any child", and none that this program has started itself. Children of `tunnel.children` are
known. Libraries may use `subprocess`; its children are in this process's own session and are usually waited for at
once. So a zombie in that session is taken for an orphan only after a while; it may be a child that this process had
before it executed this program.
"""

from __future__ import annotations

import asyncio
import os
import signal

from tunnel.children.child import is_unreaped
from tunnel.children.parent_death import is_subreaper
from tunnel.children.proc import Entry, children_of_this_process, look

_GRACE = 30.0  # seconds for the library that started a child in our session to reap it


def look_after_orphans() -> None:
    """From now on reap inherited children in the running loop, if this process can inherit any."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # Inherited. With it the kernel would reap all children itself, and their statuses would be lost.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.getpid() == 1 or is_subreaper():
        loop = asyncio.get_running_loop()
        reaper = _Reaper(loop)
        # Not with the loop's add_signal_handler: uvloop does not allow it for this signal.
        signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(reaper.look_around))
        reaper.look_around()


class _Reaper:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._session = os.getsid(0)
        self._since: dict[tuple[int, int], float] = {}  # when each zombie of our session was first seen
        self._timer: asyncio.TimerHandle | None = None

    def look_around(self) -> None:
        """Reap the orphans that have ended."""
        try:
            waiting = self._reap_all()
            self._since = waiting
        except OSError:
            waiting = self._since or {(0, 0): 0.0}  # no file descriptor is left to read /proc with: try again later
        if waiting and (self._timer is None or self._timer.when() <= self._loop.time()):
            self._timer = self._loop.call_later(_GRACE, self.look_around)

    def _reap_all(self) -> dict[tuple[int, int], float]:
        """Reap zombies that must be orphans, and return the others with the times when they were first seen."""
        waiting = {}
        for pid in children_of_this_process():
            each = None if is_unreaped(pid) else look(pid)
            if each is not None and each.has_ended and not self._reap(each):
                key = (pid, each.started)
                waiting[key] = self._since.get(key, self._loop.time())
        return waiting

    def _reap(self, orphan: Entry) -> bool:
        if orphan.session == self._session:
            since = self._since.get((orphan.pid, orphan.started))
            if since is None or self._loop.time() - since < _GRACE:
                return False
        try:
            os.waitpid(orphan.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # it has been reaped meanwhile
        return True
