"""Waiting for descriptors in a thread, with as little work as possible if the same ones are awaited again."""

from __future__ import annotations

import select
import sys

READ, WRITE = 1, 4  # the values of POLLIN and POLLOUT in poll(2)
_LONGEST_WAIT = 3600.0  # seconds; no system accepts infinity
_SELECT_LIMIT = 1024  # select(2) takes no descriptor from this one on; on Windows it limits their number instead


class Waiter:
    """Waits with poll(2) on Linux, else with select(2): on macOS poll does not support devices, and Windows lacks it.

    In a program with many open files, macOS uses poll, too: devices are standard streams, whose numbers are low.
    Unlike epoll, poll also accepts files and devices, and needs no system call to change what is awaited.
    """

    __slots__ = ("_awaited", "_poll")

    def __init__(self) -> None:
        # eventlet removes poll from a program that it patches.
        self._poll = select.poll() if sys.platform == "linux" and hasattr(select, "poll") else None
        self._awaited: dict[int, int] = {}

    def wait(self, wanted: dict[int, int], seconds: float) -> dict[int, int]:
        """Wait at most ``seconds``; ``wanted`` and the result are descriptor → `READ` and `WRITE`.

        A descriptor that is broken, or whose other end is closed, is ready for everything that is wanted.
        """
        if seconds > _LONGEST_WAIT:
            seconds = _LONGEST_WAIT
        if self._poll is None:
            if not hasattr(select, "poll") or max(wanted, default=0) < _SELECT_LIMIT:
                return _select(wanted, seconds)
            self._poll = select.poll()
        if wanted != self._awaited:
            self._register(self._poll, wanted)
        # Rounded up, so that it does not wake too early.
        ready = self._poll.poll(int(seconds * 1000) + 1 if seconds > 0 else 0)
        found = {}
        for fd, events in ready:
            found[fd] = events if events in (READ, WRITE, READ | WRITE) else wanted[fd]
        return found

    def _register(self, poll: select.poll, wanted: dict[int, int]) -> None:
        for fd in self._awaited.keys() - wanted.keys():
            poll.unregister(fd)
        for fd, events in wanted.items():
            if self._awaited.get(fd) != events:
                poll.register(fd, events)
        self._awaited = wanted


def _select(wanted: dict[int, int], seconds: float) -> dict[int, int]:
    reading = [fd for fd, events in wanted.items() if events & READ]
    writing = [fd for fd, events in wanted.items() if events & WRITE]
    # Windows reports a failed connection only in the third list.
    readable, writable, broken = select.select(reading, writing, writing, seconds)
    found = dict.fromkeys(readable, READ)
    for fd in writable:
        found[fd] = found.get(fd, 0) | WRITE
    return found | {fd: wanted[fd] for fd in broken}
