"""Limits for the frames of a peer: for one turn, and a budget for frames without effect.

A frame costs the receiver some microseconds whatever its size, so a read full of the smallest ones would block all
others for a third of a second. `FRAMES_PER_TURN` bounds that. Payload and acks that make progress have no other limit,
as a small window needs many of them. All other frames (empty ones, pings, pongs, control lines that change nothing) use
up a budget, which is large enough for any legitimate peer.
"""

from __future__ import annotations

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.frames import POLICY

FRAMES_PER_TURN = 64  # most frames that one call of `wire_received` handles; the rest waits for a later turn
IDLE_FRAMES = 2000  # frames without effect at once …
IDLE_FRAMES_PER_SECOND = 200.0  # … and in the long run


class FrameBudget:
    """One peer's budget for frames without effect. ``now`` is a monotonic clock, in seconds."""

    __slots__ = ("_left", "_spent_at")

    def __init__(self) -> None:
        self._left = float(IDLE_FRAMES)
        self._spent_at = 0.0

    def spend(self, now: float, frames: int = 1) -> None:
        """Count ``frames`` without effect. Raises RemoteProtocolError (1008) when the budget is used up."""
        earned = max(0.0, now - self._spent_at) * IDLE_FRAMES_PER_SECOND
        self._left = min(float(IDLE_FRAMES), self._left + earned) - frames
        self._spent_at = now
        if self._left < 0:
            raise RemoteProtocolError("the peer sent too many frames without effect", POLICY)
