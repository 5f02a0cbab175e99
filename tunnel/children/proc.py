"""Reading Linux's /proc. On a system without it no process is found.

All functions raise OSError if this process has no file descriptor left.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

_ENVIRONMENT_LIMIT = 4 << 20  # bytes; the kernel's own limit is larger


@dataclass(frozen=True, slots=True)
class Entry:
    """A process. ``started`` (in clock ticks) distinguishes processes with the same pid."""

    pid: int
    has_ended: bool  # a zombie
    parent: int
    group: int
    session: int
    started: int


def look(pid: int) -> Entry | None:
    """Return the entry of a process, None if there is no such process."""
    data = _read(f"/proc/{pid}/stat", 4096)
    if not data:
        return None
    # proc_pid_stat(5), after the name, which may contain any character: state, ppid, pgrp, session, …, starttime.
    fields = data.rpartition(b")")[2].split()
    return Entry(pid, fields[0] in (b"Z", b"X"), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def all_pids() -> list[int]:
    """Return the pids of all visible processes."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def children_of_this_process() -> Iterator[int]:
    """Yield the pids of all children, including inherited ones."""
    try:
        # The kernel may give an orphan to any thread.
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                yield from map(int, file.read().split())
    except FileNotFoundError:  # the thread has ended, or the kernel lacks this file
        for pid in all_pids():
            entry = look(pid)
            if entry is not None and entry.parent == os.getpid():
                yield pid


def variables(pid: int) -> list[bytes]:
    """Return the initial environment of a process as ``NAME=value``; an empty list if it cannot be read."""
    return [each for each in _read(f"/proc/{pid}/environ", _ENVIRONMENT_LIMIT).split(b"\0") if each]


def _read(path: str, limit: int) -> bytes:
    """Return a file of /proc; empty if the process has ended or belongs to another user."""
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
