"""How much memory resumable tunnels may use, all together.

A session reserves what its client may send at any time (the window), and a little for its own replay buffer. What a
replay buffer takes beyond that comes from what is left, of which a quarter is kept for further sessions. So a bridge
that is short of memory gives smaller windows, and lets the targets of greedy sessions wait, but never a client's bytes.
"""

from __future__ import annotations

SMALLEST_WINDOW = 256 * 1024  # bytes; below that a session is not worth its trouble, and the tunnel is a plain one
OWN_SHARE = 256 * 1024  # bytes of its replay buffer that every session may use, come what may


class Budget:
    """A budget of ``total`` bytes for all sessions of a bridge."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shared = total - total // 4
        self.reserved = 0  # windows, and each session's own share
        self.borrowed = 0  # what replay buffers take beyond their own shares

    def grant(self, wanted: int) -> int:
        """Reserve a window of at most ``wanted`` bytes and return its size; 0 when there is no room for any.

        One window takes at most a quarter of what is left to be shared, so that the first comers do not take it all.
        """
        window = wanted
        left = self._shared - self.reserved - self.borrowed
        while window > SMALLEST_WINDOW and window + OWN_SHARE > left // 4:
            window //= 2
        window = max(window, SMALLEST_WINDOW)
        return window if self.take(window) else 0

    def take(self, window: int) -> bool:
        """Reserve a window of just that size, if there is room."""
        if self.reserved + self.borrowed + window + OWN_SHARE > self._total:
            return False
        self.reserved += window + OWN_SHARE
        return True

    def release(self, window: int) -> None:
        """Give back a window that `grant` or `take` has given."""
        self.reserved -= window + OWN_SHARE

    def borrow(self, before: int, after: int) -> None:
        """Note that a replay buffer has grown or shrunk from ``before`` to ``after`` bytes."""
        self.borrowed += max(0, after - OWN_SHARE) - max(0, before - OWN_SHARE)

    def allows(self, kept: int) -> bool:
        """Return whether a session whose replay buffer takes ``kept`` bytes may read more from its target."""
        return kept < OWN_SHARE or self.reserved + self.borrowed < self._shared
