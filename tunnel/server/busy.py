"""Busy sockets of the bridge: they are read in batches, and after sockets that receive little.

Each turn of the loop does only some of the reads of busy sockets. The others wait, first come, first served. So a
keystroke waits for a few of them, not for one of each tunnel.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from tunnel.net.batches import PAUSE, Batches
from tunnel.net.channel import Channel
from tunnel.protocol.outbox import PASSED
from tunnel.protocol.read_buffers import FRAME_LIMIT
from tunnel.server.splices import Splices

FEW = 2  # busy sockets that need not wait for each other; one copy may have two
# Seconds of a turn of the loop in which reads of busy sockets begin, for each that is due; one is done in any case. In
# every turn the loop also reports the sockets that wait, which must not take most of the time.
SLICE = 0.00001


class BusyQueue:
    """The reads of all busy sockets that are due; ``sockets`` is how many are busy."""

    def __init__(self) -> None:
        self.sockets = 0
        self.splices = Splices()
        self._due: deque[Callable[[], None]] = deque()
        self._is_scheduled = False

    @property
    def share(self) -> int:
        """The most bytes that one read should take: others may be waiting for their turn."""
        return FRAME_LIMIT if self.sockets > FEW else PASSED

    def put(self, read: Callable[[], None]) -> None:
        """Let ``read`` be called soon."""
        self._due.append(read)
        if not self._is_scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._is_scheduled = bool(self._due)
        if self._is_scheduled:
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        ends = time.monotonic() + len(self._due) * SLICE
        try:
            while self._due:
                self._due.popleft()()
                if time.monotonic() >= ends:
                    break
        finally:
            self._schedule()


class BusyReads:
    """The reads of one socket; ``read`` does one, with all that follows from it, and returns its size in bytes.

    It returns None if nothing may be read now; call `resume` when something may. ``changed`` is called whenever the
    socket begins or ceases to be busy, which ``is_busy`` says.
    """

    __slots__ = ("_batches", "_changed", "_is_queued", "_late", "_queue", "_read", "is_busy")

    def __init__(
        self, channel: Channel, read: Callable[[], int | None], queue: BusyQueue, changed: Callable[[], object]
    ) -> None:
        self._batches: Batches | None = Batches(channel)
        self._read = read
        self._queue = queue
        self._changed = changed
        self.is_busy = False
        self._is_queued = False
        self._late: asyncio.TimerHandle | None = None  # a read of whatever has arrived

    def readable(self) -> None:
        """Read at once; or soon, if this socket and others are busy."""
        if not (self.is_busy and self._queue.sockets > FEW):
            self._read_once()
        elif not self._is_queued:
            self._is_queued = True
            self._queue.put(self._read_queued)

    def resume(self) -> None:
        """Read again what may have arrived in the meantime."""
        if self._batches is not None:
            self._count()

    def stop(self) -> None:
        """Read no more. The socket is as it was before."""
        if self._batches is not None:
            self._batches.stop()
            self._count()
            self._batches = None

    def _read_queued(self) -> None:
        self._is_queued = False
        self._read_once()

    def _read_once(self) -> None:
        if self._batches is None:
            return
        size = self._read()
        if size is None:
            return
        if self._batches is not None:
            self._batches.came(size)
            self._count()

    def _count(self) -> None:
        """Adjust the number of busy sockets, and the timer, to whether this is one."""
        is_on = self._batches is not None and self._batches.is_on
        if is_on != self.is_busy:
            self.is_busy = is_on
            self._queue.sockets += 1 if is_on else -1
            if self._late is not None:
                self._late.cancel()
                self._late = None
            self._changed()
        if self.is_busy and self._late is None:
            self._late = asyncio.get_running_loop().call_later(PAUSE, self._read_late)

    def _read_late(self) -> None:
        self._late = None
        if self._batches is not None and (self._is_queued or time.monotonic() < self._batches.read_by):
            self._count()
        else:
            self._read_once()
