"""The processes of a Unix session: a kill has to reach them all, whatever process groups a shell has put them in."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from pathlib import Path

_ROUNDS = 5  # of killing, as a process may fork while its session is looked for


def signal_sessions(leaders: Collection[int], number: int) -> None:
    """Send a signal to all process groups of the sessions that ``leaders`` lead.

    No leader may have been reaped: until then neither its number nor that of its session can be another's. SIGKILL is
    sent until a look around finds no process that had not been sent it before.
    """
    if not leaders:
        return
    for leader in leaders:
        _signal_group(leader, number)  # without a look around, as there may be no /proc
    done: set[int] = set()
    for _ in range(_ROUNDS if number == signal.SIGKILL else 1):
        found = _members(leaders)
        if found.keys() <= done:
            return
        for group in set(found.values()):
            if done or group not in leaders:
                _signal_group(group, number)
        done |= found.keys()


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended; or it has become another user's, who alone may end it


def _members(leaders: Collection[int]) -> dict[int, int]:
    """Return the running processes of the sessions, and the process group of each."""
    found = {}
    for entry in Path("/proc").iterdir() if os.path.isdir("/proc/self") else ():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended
            # proc_pid_stat(5): state, ppid, pgrp, session.
            if int(fields[3]) in leaders and fields[0] not in (b"Z", b"X"):
                found[int(entry.name)] = int(fields[2])
    return found
