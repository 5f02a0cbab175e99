"""The tunnels whose downloads are spliced at the moment: only some, as each needs pipes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tunnel.net.splice_source import SourceSplice, may_splice

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnel.net.pump import Pump

MOST = 8  # splices at once, with up to five descriptors each
IDLE = 1.0  # seconds without a read, after which another tunnel may have the splice
RETRY = 1.0  # seconds until the next attempt after there were no pipes


class Splices:
    """The splices of a bridge."""

    def __init__(self) -> None:
        self._ends: dict[SourceSplice, Callable[[], object]] = {}
        self._are_allowed = True  # by the system
        self._failed_at = -RETRY  # when there were no pipes last

    def begin(self, pump: Pump, end: Callable[[], object]) -> None:
        """Let ``pump`` splice, if that is possible now. ``end`` is called if its pipes are needed: it calls `end`."""
        if not self._are_allowed or time.monotonic() - self._failed_at < RETRY:
            return
        if len(self._ends) >= MOST and not self.end_one(idle_for=IDLE):
            return
        if not may_splice(pump):  # asked last, because a session reserves memory for its answer
            return
        try:
            pump.splice = SourceSplice(pump)
        except OSError:  # there are no descriptors left, for example: its bytes are copied
            self._failed_at = time.monotonic()
            return
        self._ends[pump.splice] = end

    def end(self, pump: Pump, *, discard: bool = False) -> None:
        """Let ``pump`` copy from here on, if it splices; ``discard``: nothing more is needed. Raises MemoryError."""
        splice, pump.splice = pump.splice, None
        if splice is not None:
            del self._ends[splice]
            self._are_allowed = self._are_allowed and not splice.is_refused
            if discard:
                splice.close()
            else:
                splice.stop()

    def end_one(self, *, idle_for: float = 0.0) -> bool:
        """End the splice that was read the longest ago, at least ``idle_for`` s; return whether there was one."""
        oldest = min(self._ends, key=lambda splice: splice.read_at, default=None)
        if oldest is None or time.monotonic() - oldest.read_at < idle_for:
            return False
        self._ends[oldest]()
        return True
