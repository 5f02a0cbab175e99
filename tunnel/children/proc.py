"""What Linux's /proc tells about processes; on a system without it there are none to be seen.

Everything here raises OSError when this process has no descriptor left to look with.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

_ENVIRONMENT_LIMIT = 4 << 20  # bytes; the kernel lets an environment have more than any sensible one has


@dataclass(frozen=True, slots=True)
class Entry:
    """A process; with a number that was given again, ``started`` (in clock ticks) tells the two apart."""

    pid: int
    has_ended: bool  # it is a zombie
    parent: int
    group: int
    session: int
    started: int


def look(pid: int) -> Entry | None:
    """Return the entry of a process, None when there is no such process."""
    data = _read(f"/proc/{pid}/stat", 4096)
    if not data:
        return None
    # proc_pid_stat(5), behind the name, which may contain anything: state, ppid, pgrp, session, …, starttime.
    fields = data.rpartition(b")")[2].split()
    return Entry(pid, fields[0] in (b"Z", b"X"), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def all_pids() -> list[int]:
    """Return the numbers of all processes that can be seen."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def children_of_this_process() -> Iterator[int]:
    """Yield the numbers of all children, also of those that it has not started itself."""
    try:
        # The kernel gives an orphan to any thread.
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                yield from map(int, file.read().split())
    except FileNotFoundError:  # the thread has ended; or the kernel was built without that file
        for pid in all_pids():
            entry = look(pid)
            if entry is not None and entry.parent == os.getpid():
                yield pid


def variables(pid: int) -> list[bytes]:
    """Return the environment that a process was started with, ``NAME=value`` each; nothing when it cannot be read."""
    return [each for each in _read(f"/proc/{pid}/environ", _ENVIRONMENT_LIMIT).split(b"\0") if each]


def _read(path: str, limit: int) -> bytes:
    """Return a file of /proc; nothing when its process has ended, or is another user's."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return b""
    data = b""
    try:
        while len(data) < limit and (more := os.read(descriptor, 1 << 16)):
            data += more
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return data
