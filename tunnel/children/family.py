"""Signalling or killing a child together with its descendants.

Shells put their jobs into process groups, which are all in the child's session. Processes that leave the session with
``setsid`` are found in three other ways: as a child of a process that was found, in a session whose leader was found,
and by the mark in their environment, which even a daemon has that forked twice and is now a child of process 1. A
process without any of these is not found.

SIGKILL is sent to all descendants, because nothing of a killed terminal may stay. Other signals are requests, and are
sent to the session only: processes leave it to be spared such signals. When a child ends by itself, or its client
disconnects, processes that have left the session continue to run.

This needs Linux's /proc. On other systems only the child's process group is reached.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable

from tunnel.children.child import MARK_VARIABLE, Child
from tunnel.children.proc import Entry, all_pids, look, variables

_ROUNDS = 300  # of reading /proc, because processes may fork meanwhile
_PATIENCE = 0.5  # seconds for these rounds
_QUIET_ROUNDS = 10  # in a row without anything new: one may miss a process that forks and ends meanwhile

_MARKS = MARK_VARIABLE.encode() + b"="


def signal_sessions(children: Collection[Child], number: int) -> None:
    """Send a signal to all processes in the sessions of ``children``, except children that were reaped."""
    leaders = _by_pid(children)
    for child in leaders.values():
        child.signal_group(number)  # first, and without /proc, which may be missing
    try:
        others = _running(leaders.values(), all_pids())
    except OSError:
        return  # no file descriptor is left to read /proc with
    for each in others:
        if each.session in leaders and each.group != each.session:
            _send(each, number)


def kill_families(children: Collection[Child]) -> None:
    """Send SIGKILL to ``children``, except those that were reaped, and to all their descendants.

    All processes are stopped first. A stopped process does not fork, and does not end, so its children still have it as
    their parent; a few rounds find all of them. Does not wait for the processes to end.
    """
    leaders = _by_pid(children)
    family = _Family(leaders.values())
    quiet, end = 0, time.monotonic() + _PATIENCE
    for _ in range(_ROUNDS if leaders else 0):
        try:
            # The last round looks at all processes once more, as a pid may have been reused meanwhile.
            found = family.look_for_more(everywhere=quiet == _QUIET_ROUNDS - 1)
        except OSError:
            break  # no file descriptor is left to read /proc with
        quiet = 0 if found else quiet + 1
        if quiet == _QUIET_ROUNDS or time.monotonic() > end:
            break
    # Youngest first: when a parent ends, the kernel may continue a stopped process group.
    for each in sorted(family.found.values(), key=lambda each: -each.started):
        if each.pid not in leaders:
            _send(each, signal.SIGKILL)
    for child in leaders.values():
        child.signal_group(signal.SIGKILL)


class Sweeper:
    """Kills the descendants of children that have ended; for all children that end at the same time at once."""

    def __init__(self) -> None:
        self._ended: list[tuple[Child, Callable[[], None]]] = []

    def sweep(self, child: Child, then: Callable[[], None]) -> None:
        """Soon kill the descendants of ``child``, which has ended but is not reaped, and then call ``then``."""
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._run)
        self._ended.append((child, then))

    def _run(self) -> None:
        ended, self._ended = self._ended, []
        kill_families([child for child, _ in ended])
        for _, then in ended:
            then()


def _by_pid(children: Iterable[Child]) -> dict[int, Child]:
    return {child.pid: child for child in children if child.is_there}


class _Family:
    """``leaders`` and all their descendants. They are stopped as soon as they are found."""

    def __init__(self, leaders: Collection[Child]) -> None:
        self.found: dict[int, Entry] = {}
        self._leaders = leaders
        self._marks = {leader.mark.encode() for leader in leaders if leader.mark}
        self._sessions = {leader.pid for leader in leaders}
        self._parents = set(self._sessions)
        self._known: set[int] = set()  # pids of processes that are in the family, or are known not to be

    def look_for_more(self, *, everywhere: bool) -> bool:
        """Look at the processes that were not seen before, or at all of them; return whether one of them belongs here.

        Raises OSError if this process has no file descriptor left.
        """
        if everywhere:
            self._known.clear()
        # A process that forks and ends all the time is caught only while it is there: those that are new are looked at
        # alone, and at once.
        pids = [pid for pid in reversed(all_pids()) if pid not in self._known]
        candidates = _running(self._leaders, pids)
        self._known.update(pids)
        before = len(self.found)
        others = self._adopt(candidates)
        for each in others if self._marks else ():
            environment = variables(each.pid)
            if any(self._is_mark(it) for it in environment if it.startswith(_MARKS)):
                self._add(each)
            elif not environment:  # the process may be in the middle of exec
                self._known.discard(each.pid)
        self._adopt(others)
        return len(self.found) > before

    def _is_mark(self, variable: bytes) -> bool:
        return not self._marks.isdisjoint(variable[len(_MARKS) :].split(b":"))

    def _add(self, each: Entry) -> None:
        known = self.found.get(each.pid)
        if known is not None and known.started == each.started:
            return
        _send(each, signal.SIGSTOP)
        self.found[each.pid] = each
        self._parents.add(each.pid)
        if each.pid == each.session:
            self._sessions.add(each.session)  # only descendants of the leader can be in the session

    def _adopt(self, candidates: list[Entry]) -> list[Entry]:
        """Add the candidates that belong to the processes found so far, and return the others."""
        while True:
            others = []
            for each in candidates:
                if each.parent in self._parents or each.session in self._sessions:
                    self._add(each)
                else:
                    others.append(each)
            if len(others) == len(candidates):
                return others
            candidates = others


def _running(leaders: Iterable[Child], pids: Iterable[int]) -> list[Entry]:
    """Return those of the processes ``pids`` that can be descendants of ``leaders``.

    These are the processes that are not older than the leaders, without this one.
    """
    # A leader has an entry until it is reaped, even if it has ended.
    entries = [entry for leader in leaders if (entry := look(leader.pid)) is not None]
    if not entries:
        return []
    oldest, own = min(entry.started for entry in entries), os.getpid()
    found = (look(pid) for pid in pids if pid != own)
    return [each for each in found if each is not None and not each.has_ended and each.started >= oldest]


def _send(target: Entry, number: int) -> None:
    """Send a signal to a process that is not our child, unless it has ended since it was seen.

    Its pid may have been reused. A pidfd always refers to the same process, so check after opening it that this is the
    process that was seen.
    """
    try:
        pidfd = os.pidfd_open(target.pid)
    except AttributeError:
        return  # not Linux: no process was seen either
    except ProcessLookupError:
        return
    except OSError:
        pidfd = -1  # a kernel before 5.3, or no descriptor left
    try:
        now = look(target.pid)
        if now is None or now.started != target.started:
            return
        if pidfd < 0:
            os.kill(target.pid, number)
        else:
            signal.pidfd_send_signal(pidfd, number)
    except OSError:
        pass  # it has ended, runs as another user now, or no descriptor is left
    finally:
        if pidfd >= 0:
            os.close(pidfd)
