"""When to ping and when to give up: the rules of a plain tunnel, with the clock passed in.

Life is any byte from the peer. It can only be missed while this end reads; an end whose own consumer is stalled keeps
pinging, so that its peer hears it, but judges nobody. A blocked write has a limit of its own, because a peer that is
merely slow still answers nothing while our ping waits behind the data it has not taken.
"""

from __future__ import annotations

from tunnel.errors import ConnectionLost

PING_INTERVAL = 20.0  # seconds of silence; the shortest idle limit met in the field is 60 s (nginx, AWS ALB)
PING_TIMEOUT = 60.0  # seconds until a ping must have brought a sign of life
STALL_LIMIT = 900.0  # seconds in which a blocked write, or a target that was half-closed, must make some progress


class Keepalive:
    """The timers of one connection; all times are seconds of one monotonic clock.

    ``heard_at`` is when bytes came last, or when the connection began.
    """

    __slots__ = ("_interval", "_pinged_at", "_timeout", "_wrote_at", "heard_at")

    def __init__(self, now: float, interval: float = PING_INTERVAL, timeout: float = PING_TIMEOUT) -> None:
        self._interval = interval
        self._timeout = timeout
        self.heard_at = now
        self._wrote_at = now
        self._pinged_at: float | None = None

    def heard(self, now: float) -> None:
        """Note that bytes came from the peer."""
        self.heard_at = now
        self._pinged_at = None

    def wrote(self, now: float) -> None:
        """Note that the peer's side took bytes, or that there was nothing left to take."""
        self._wrote_at = now

    def check_write(self, now: float) -> None:
        """Raise ConnectionLost when a write has been blocked for too long."""
        if now - self._wrote_at >= STALL_LIMIT:
            raise ConnectionLost("stalled", seconds=STALL_LIMIT)

    def check_silence(self, now: float, limit: float) -> None:
        """Raise ConnectionLost when nothing came for ``limit`` seconds."""
        if now - self.heard_at >= limit:
            raise ConnectionLost("silent", seconds=limit)

    def ping_due(self, now: float, *, reading: bool) -> bool:
        """Return whether to ping now; raise ConnectionLost when a ping has brought no sign of life in time.

        ``reading`` is False while this end has stopped reading, and so could not hear an answer.
        """
        if not reading:
            # Time spent deaf must not count against the peer later.
            self.heard_at = now
            if self._pinged_at is not None and now - self._pinged_at < self._interval:
                return False
        elif self._pinged_at is not None:
            if now - self._pinged_at >= self._timeout:
                raise ConnectionLost("silent", seconds=now - self.heard_at)
            return False
        elif now - self.heard_at < self._interval:
            return False
        self._pinged_at = now
        return True

    @property
    def tick(self) -> float:
        """How often to look at the clock, in seconds: often enough that no limit is overrun by more than a quarter."""
        return min(self._interval, self._timeout) / 4
