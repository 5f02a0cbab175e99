"""Everything that a child has started, to be signalled or killed as a whole.

Programs on a terminal put their jobs into process groups, which are all in the child's session. What leaves the session
with ``setsid`` is found in three more ways: as a child of one that was found, in a session whose leader was found, and
by the mark in its environment, which also a daemon has that forked twice and is now a child of process 1. What has
neither a parent nor a session nor an environment of the family any more is not found.

Who is signalled when: SIGKILL is for all of it, as nothing of a terminal that is killed shall be left. Other signals
are requests, and for the session: what has left it did so to be spared them. And what goes on when the child itself
ends, or when its client goes, is left alone.

Only Linux's /proc tells so much. Elsewhere the child's process group is what is reached.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable

from tunnel.children.child import MARK_VARIABLE, Child
from tunnel.children.proc import Entry, all_pids, look, variables

_ROUNDS = 30  # of looking around, as a process may fork meanwhile
_PATIENCE = 0.5  # seconds for these rounds
_QUIET_ROUNDS = 2  # in a row that find nothing new: one may miss a process that was born and orphaned during it

_MARKS = MARK_VARIABLE.encode() + b"="


def signal_sessions(children: Collection[Child], number: int) -> None:
    """Send a signal to every process of the sessions that ``children`` lead, but none to a child that was reaped."""
    leaders = _unreaped(children)
    for child in leaders.values():
        child.signal_group(number)  # first of all, and without a look around, as there may be no /proc
    try:
        others = _running(leaders.values())
    except OSError:
        return  # no descriptor is left to look around with
    for each in others:
        if each.session in leaders and each.group != each.session:
            _send(each, number)


def kill_families(children: Collection[Child]) -> bool:
    """Send SIGKILL to ``children``, but none to a child that was reaped, and to everything that they have started.

    All are stopped first. So none forks any more, and as none ends, its children still tell by their parent whose they
    are; what is there is found after a few rounds. Does not wait for their end. Returns False when even the last round
    found more.
    """
    leaders = _unreaped(children)
    stopped: dict[tuple[int, int], Entry] = {}
    strangers: set[tuple[int, int]] = set()
    quiet, end = 0, time.monotonic() + _PATIENCE
    for _ in range(_ROUNDS if leaders else 0):
        try:
            found = {_key(each): each for each in _family(leaders.values(), strangers)}
        except OSError:
            quiet = 0
            break  # no descriptor is left to look around with
        new = found.keys() - stopped.keys()
        for key in new:
            _send(found[key], signal.SIGSTOP)
            stopped[key] = found[key]
        quiet = 0 if new else quiet + 1
        if quiet == _QUIET_ROUNDS or time.monotonic() > end:
            break
    # The youngest first: a stopped process group would be continued by the kernel when its parent ends.
    for each in sorted(stopped.values(), key=lambda each: -each.started):
        if each.pid not in leaders:
            _send(each, signal.SIGKILL)
    for child in leaders.values():
        child.signal_group(signal.SIGKILL)
    return quiet > 0 or not leaders


class Sweeper:
    """Kills what is left of the families of children that have ended: of all that end at once in one go."""

    def __init__(self) -> None:
        self._ended: list[tuple[Child, Callable[[], None]]] = []

    def sweep(self, child: Child, then: Callable[[], None]) -> None:
        """Kill the family of ``child``, which has ended and is not reaped, soon, and call ``then`` after that."""
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._run)
        self._ended.append((child, then))

    def _run(self) -> None:
        ended, self._ended = self._ended, []
        kill_families([child for child, _ in ended])
        for _, then in ended:
            then()


def _unreaped(children: Iterable[Child]) -> dict[int, Child]:
    return {child.pid: child for child in children if child.status is None}


def _key(each: Entry) -> tuple[int, int]:
    return each.pid, each.started


def _family(leaders: Collection[Child], strangers: set[tuple[int, int]]) -> list[Entry]:
    """Return what ``leaders`` have started and what is running of them.

    ``strangers`` are those whose environment was seen to have no mark, which they never get later; more are added.
    """
    family = _Family(leader.pid for leader in leaders)
    others = family.adopt(_running(leaders))
    marks = {leader.mark.encode() for leader in leaders if leader.mark}
    for each in others if marks else ():
        if _key(each) not in strangers:
            environment = variables(each.pid)
            if any(not marks.isdisjoint(it[len(_MARKS) :].split(b":")) for it in environment if it.startswith(_MARKS)):
                family.add(each)
            elif environment:  # without one, it may be on its way into another program
                strangers.add(_key(each))
    family.adopt(others)
    return list(family.found.values())


class _Family:
    def __init__(self, leaders: Iterable[int]) -> None:
        self.found: dict[int, Entry] = {}
        self._sessions = set(leaders)
        self._parents = set(self._sessions)

    def add(self, each: Entry) -> None:
        self.found[each.pid] = each
        self._parents.add(each.pid)
        if each.pid == each.session:
            self._sessions.add(each.session)  # only descendants of its leader can be in it

    def adopt(self, candidates: list[Entry]) -> list[Entry]:
        """Add those that belong to what was found, and return the others."""
        while True:
            others = []
            for each in candidates:
                if each.parent in self._parents or each.session in self._sessions:
                    self.add(each)
                else:
                    others.append(each)
            if len(others) == len(candidates):
                return others
            candidates = others


def _running(leaders: Iterable[Child]) -> list[Entry]:
    """Return the processes that may be descendants of ``leaders``: all but older ones, and this one."""
    # A leader has an entry as long as it is not reaped, also when it has ended.
    entries = [entry for leader in leaders if (entry := look(leader.pid)) is not None]
    if not entries:
        return []
    oldest, own = min(entry.started for entry in entries), os.getpid()
    found = (look(pid) for pid in all_pids() if pid != own)
    return [each for each in found if each is not None and not each.has_ended and each.started >= oldest]


def _send(target: Entry, number: int) -> None:
    """Send a signal to a process that is no child of ours, unless it has ended since it was seen.

    Its number may be another's by now. A pidfd is bound to one process, so when that is the one that was seen, so is
    the one that gets the signal.
    """
    try:
        pidfd = os.pidfd_open(target.pid)
    except AttributeError:
        return  # not on Linux, where nothing was seen either
    except ProcessLookupError:
        return
    except OSError:
        pidfd = -1  # a kernel before 5.3, or there is no descriptor left
    try:
        now = look(target.pid)
        if now is None or now.started != target.started:
            return
        if pidfd < 0:
            os.kill(target.pid, number)
        else:
            signal.pidfd_send_signal(pidfd, number)
    except OSError:
        pass  # it has ended; or it has become another user's, who alone may end it; or there is no descriptor left
    finally:
        if pidfd >= 0:
            os.close(pidfd)
