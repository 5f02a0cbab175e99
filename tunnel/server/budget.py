"""How much memory resumable tunnels may use, all together.

A session whose client is connected reserves what that client may send at any time (the window), and a little for its
own replay buffer. What a replay buffer takes beyond that comes from what is left, of which a quarter is kept for
further sessions. So a bridge that is short of memory gives smaller windows, and lets the targets of greedy sessions
wait, but never a client's bytes. A session whose client is away holds only what it really keeps to be sent again.
"""

from __future__ import annotations

from tunnel.server.shares import Shares

WINDOW = 16 << 20  # bytes that a client may have on their way, when there is memory enough
SMALLEST_WINDOW = 256 * 1024  # bytes; below that a session is not worth its trouble, and the tunnel is a plain one
OWN_SHARE = 256 * 1024  # bytes of its replay buffer that every session may use, come what may

# What a session has to show for its memory, from the least on; the more an attached one has moved, the more it is.
UNCONFIRMED, DETACHED, ATTACHED = 0, 1, 2


class Budget:
    """A budget of ``total`` bytes for all sessions of a bridge; ``shares`` says who holds how much of it."""

    def __init__(self, total: int) -> None:
        self._shared = total - total // 4
        self.shares = Shares(total, protected=ATTACHED)

    def window(self) -> int:
        """Return the window to offer next, in bytes; whether there is memory for it is for `shares` to say.

        It takes at most a quarter of what is left to be shared, so that the first comers do not take it all.
        """
        window = WINDOW
        left = self._shared - self.shares.taken
        while window > SMALLEST_WINDOW and attached_weight(window, 0) > left // 4:
            window //= 2
        return max(window, SMALLEST_WINDOW)

    def allows(self, kept: int) -> bool:
        """Return whether a session whose replay buffer takes ``kept`` bytes may read more from its target."""
        return kept < OWN_SHARE or self.shares.taken < self._shared


def attached_weight(window: int, kept: int) -> int:
    """Return what a session with a client holds, whose replay buffer takes ``kept`` bytes."""
    return window + max(OWN_SHARE, kept)
