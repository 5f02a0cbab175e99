"""The memory for all sessions of a bridge together.

An attached session reserves the window, which its client may send at any time, and a share for its own replay buffer.
More memory for a replay buffer comes from the rest, of which a quarter is kept for new sessions. So a bridge that is
short of memory offers smaller windows and stops reading the targets of large sessions, but never refuses a client's
bytes. A detached session holds only what it keeps to be sent again.
"""

from __future__ import annotations

from tunnel.server.shares import Shares

WINDOW = 16 << 20  # bytes that a client may have unacknowledged, if there is enough memory
SMALLEST_WINDOW = 256 * 1024  # bytes; with less memory, the tunnel is a plain one
OWN_SHARE = 256 * 1024  # bytes of its replay buffer that every session may always use

# Standings of a session for its memory, the lowest first; that of an attached one grows with the bytes it has moved.
UNCONFIRMED, DETACHED, ATTACHED = 0, 1, 2


class Budget:
    """A budget of ``total`` bytes for all sessions of a bridge; ``shares`` has who holds how much."""

    def __init__(self, total: int) -> None:
        self._shared = total - total // 4
        self.shares = Shares(total, protected=ATTACHED)

    def window(self) -> int:
        """Return the window to offer next, in bytes; `shares` decides whether there is memory for it.

        It is at most a quarter of the remaining memory, so that the first clients do not use up everything.
        """
        window = WINDOW
        left = self._shared - self.shares.taken
        while window > SMALLEST_WINDOW and attached_weight(window, 0) > left // 4:
            window //= 2
        return max(window, SMALLEST_WINDOW)

    def allows(self, kept: int) -> bool:
        """Return whether a session whose replay buffer has ``kept`` bytes may read more from its target."""
        return kept < OWN_SHARE or self.shares.taken < self._shared

    def has_room(self, size: int) -> bool:
        """Return whether a session may reserve ``size`` bytes, and read more from its target after that."""
        return self.shares.taken + size < self._shared


def attached_weight(window: int, kept: int) -> int:
    """Return the memory of an attached session whose replay buffer has ``kept`` bytes."""
    return window + max(OWN_SHARE, kept)
