"""Reaping orphans, which a service inherits as process 1 of a container that has no init, or as a subreaper.

A process whose parent ends becomes a child of process 1, and would stay there as a zombie. Only such children are
reaped: each by its number, never "any child", and none that this program has started itself. Those that were started
by `tunnel.children` are known. `subprocess` is used by libraries too; what it has started is in this process's own
session and is waited for at once, so of that session only what has been a zombie for long is taken for an orphan, such
as a child that this process had before it became this program.
"""

from __future__ import annotations

import asyncio
import os
import signal

from tunnel.children.child import is_unreaped
from tunnel.children.parent_death import is_subreaper
from tunnel.children.proc import Entry, children_of_this_process, look

_GRACE = 30.0  # seconds that a zombie in our own session may be waited for by whoever started it


def look_after_orphans() -> None:
    """Reap in the running loop, from now on, what this process inherits, if it inherits orphans at all."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # Given to us by whoever started us. The kernel would reap all children, and their statuses would be lost.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.getpid() == 1 or is_subreaper():
        loop = asyncio.get_running_loop()
        reaper = _Reaper(loop)
        # Not by the loop's own means: uvloop has none for this signal.
        signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(reaper.look_around))
        reaper.look_around()


class _Reaper:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._session = os.getsid(0)
        self._since: dict[tuple[int, int], float] = {}  # when zombies of our session were seen first
        self._timer: asyncio.TimerHandle | None = None

    def look_around(self) -> None:
        """Reap the orphans that have ended."""
        try:
            waiting = self._reap_all()
            self._since = waiting
        except OSError:
            waiting = self._since or {(0, 0): 0.0}  # no descriptor is left to look around with: later
        if waiting and (self._timer is None or self._timer.when() <= self._loop.time()):
            self._timer = self._loop.call_later(_GRACE, self.look_around)

    def _reap_all(self) -> dict[tuple[int, int], float]:
        """Reap what is surely an orphan, and return since when the others have been seen."""
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
            pass  # somebody has waited for it meanwhile
        return True
