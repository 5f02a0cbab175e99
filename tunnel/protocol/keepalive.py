"""When to ping and when to give up: the rules of a plain tunnel, with the clock passed in.

Any byte from the peer is a sign of life. Its absence counts only while this end reads: an end whose sink is stalled
keeps pinging, so that its peer hears it, but does not give up. A blocked write has its own limit, because a slow peer
cannot answer while our ping waits behind data that it has not accepted.
"""

from __future__ import annotations

from tunnel.errors import ConnectionLost

PING_INTERVAL = 20.0  # seconds of silence; the shortest usual idle limit of edges is 60 s (nginx, AWS ALB)
PING_TIMEOUT = 60.0  # seconds after a ping within which there must be a sign of life
STALL_LIMIT = 900.0  # seconds within which a blocked write, or a half-closed target, must make progress


class Keepalive:
    """The timers of one connection; all times are seconds of one monotonic clock.

    ``heard_at`` is when bytes were received last, or when the connection began.
    """

    __slots__ = ("_interval", "_pinged_at", "_silent_since", "_timeout", "_wrote_at", "heard_at")

    def __init__(self, now: float, interval: float = PING_INTERVAL, timeout: float = PING_TIMEOUT) -> None:
        self._interval = interval
        self._timeout = timeout
        self.heard_at = now
        self._wrote_at = now
        self._pinged_at: float | None = None
        self._silent_since = now  # when bytes were received or a ping was sent last

    def heard(self, now: float) -> None:
        """Note that bytes were received."""
        self.heard_at = self._silent_since = now
        self._pinged_at = None

    def wrote(self, now: float) -> None:
        """Note that bytes were written, or that none are left to write."""
        self._wrote_at = now

    def check_write(self, now: float) -> None:
        """Raise ConnectionLost if a write has been blocked for too long."""
        if now - self._wrote_at >= STALL_LIMIT:
            raise ConnectionLost("stalled", seconds=STALL_LIMIT)

    def check_silence(self, now: float, limit: float) -> None:
        """Raise ConnectionLost if nothing was received for ``limit`` seconds."""
        if now - self.heard_at >= limit:
            raise ConnectionLost("silent", seconds=limit)

    def ping_due(self, now: float, *, reading: bool) -> bool:
        """Return whether to ping now. Raises ConnectionLost if there was no sign of life in time after a ping.

        ``reading`` is False while this end does not read, and so could not receive an answer.
        """
        if not reading:
            # Time without reading must not count against the peer later.
            self.heard_at = now
            if now - self._silent_since < self._interval:
                return False
        elif self._pinged_at is not None:
            if now - self._pinged_at >= self._timeout:
                raise ConnectionLost("silent", seconds=now - self.heard_at)
            return False
        elif now - self.heard_at < self._interval:
            return False
        self._pinged_at = self._silent_since = now
        return True

    @property
    def tick(self) -> float:
        """How often to check the clock, in seconds: often enough that no limit is exceeded by more than a quarter."""
        return min(self._interval, self._timeout) / 4
