"""Waiting for descriptors in a thread of one's own, with as little work as possible when the same are awaited again."""

from __future__ import annotations

import select
import sys

READ, WRITE = 1, 4  # as poll(2) has POLLIN and POLLOUT
_LONGEST_WAIT = 3600.0  # seconds; no system takes infinite ones


class Waiter:
    """Waits with poll(2) on Linux and with select(2) elsewhere: macOS's poll knows no devices, Windows has none.

    poll, unlike epoll, takes files and devices too, and needs no system call when what is awaited changes.
    """

    __slots__ = ("_awaited", "_poll")

    def __init__(self) -> None:
        # eventlet takes poll away from a program that it patches.
        self._poll = select.poll() if sys.platform == "linux" and hasattr(select, "poll") else None
        self._awaited: dict[int, int] = {}

    def wait(self, wanted: dict[int, int], seconds: float) -> dict[int, int]:
        """Wait for ``seconds`` at most; ``wanted`` and what is returned are descriptor → `READ` and `WRITE`.

        A descriptor that is broken, or whose other end is gone, is ready for all that is wanted of it.
        """
        seconds = min(seconds, _LONGEST_WAIT)
        if self._poll is None:
            return _select(wanted, seconds)
        if wanted != self._awaited:
            self._register(self._poll, wanted)
        # Rounded up: who wakes too early finds nothing to do.
        ready = self._poll.poll(int(seconds * 1000) + 1 if seconds > 0 else 0)
        return {fd: events if events in (READ, WRITE, READ | WRITE) else wanted[fd] for fd, events in ready}

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
    # Windows tells of a connection that failed in the third list only.
    readable, writable, broken = select.select(reading, writing, writing, seconds)
    found = dict.fromkeys(readable, READ)
    for fd in writable:
        found[fd] = found.get(fd, 0) | WRITE
    return found | {fd: wanted[fd] for fd in broken}
