"""How many frames one peer may make this end handle: in one turn, and in the long run if they say nothing.

A frame costs the receiver some microseconds whatever its size, so a read full of the smallest ones would keep everybody
else waiting for a third of a second. `FRAMES_PER_TURN` bounds that wait. Payload and acks that make progress cost
nothing else: they are what tunnels are for, and a small window brings many of them. All other frames (empty ones,
pings, pongs, control lines that change nothing) are paid for out of a budget that honest peers never notice.
"""

from __future__ import annotations

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.frames import POLICY

FRAMES_PER_TURN = 64  # frames that one call of `wire_received` handles, at most; the rest waits for a later turn
IDLE_FRAMES = 2000  # frames that say nothing, at once …
IDLE_FRAMES_PER_SECOND = 200.0  # … and for as long as a peer likes


class FrameBudget:
    """What one peer may still spend on frames that say nothing. ``now`` is a monotonic clock, in seconds."""

    __slots__ = ("_left", "_spent_at")

    def __init__(self) -> None:
        self._left = float(IDLE_FRAMES)
        self._spent_at = 0.0

    def spend(self, now: float, frames: int = 1) -> None:
        """Pay for ``frames`` that said nothing. Raises RemoteProtocolError (1008) when the budget is used up."""
        earned = max(0.0, now - self._spent_at) * IDLE_FRAMES_PER_SECOND
        self._left = min(float(IDLE_FRAMES), self._left + earned) - frames
        self._spent_at = now
        if self._left < 0:
            raise RemoteProtocolError("the peer sent too many frames that say nothing", POLICY)
