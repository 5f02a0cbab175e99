"""When the connection under a resumable tunnel is dead: judged in seconds, as nothing is lost by a wrong verdict.

Any byte is life. While something of ours is unacknowledged, 5 s of silence ask for an ack and 10 s more are death; a
connection on which bytes come but no ack, for 60 s, is dead as well (a hop that answers by itself). Without anything
outstanding a WebSocket ping goes out after 20 s of silence, and 10 s more are death.
"""

from __future__ import annotations

SILENCE_BEFORE_REQUEST = 5.0
SILENCE_AFTER_REQUEST = 10.0
SILENCE_BEFORE_PING = 20.0
ACK_LIMIT = 60.0
PROBE_LIMIT = 2.0


class Liveness:
    """The timers of one connection; all times are seconds of one monotonic clock."""

    __slots__ = ("_asked_at", "_heard_at", "_limit", "_waiting_since")

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._asked_at: float | None = None  # when a ping of either kind went out that nothing has answered
        self._limit = SILENCE_AFTER_REQUEST
        self._waiting_since: float | None = None  # since when an ack has been due, without any progress

    def heard(self, now: float) -> None:
        """Note that bytes came from the peer."""
        self._heard_at = now
        self._asked_at = None

    def acknowledged(self, now: float) -> None:
        """Note that an ack came."""
        self._waiting_since = None

    def probed(self, now: float) -> None:
        """Note that a ping went out which must be answered soon."""
        self._asked_at = now
        self._limit = PROBE_LIMIT

    def check(self, now: float, *, waiting: bool) -> str:
        """Return what is to be done: "" (nothing), "ping", "request-ack" or "dead".

        ``waiting``: whether something of ours is unacknowledged.
        """
        if not waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since >= ACK_LIMIT:
            return "dead"
        if self._asked_at is not None:
            return "dead" if now - self._asked_at >= self._limit else ""
        silence = now - self._heard_at
        ack_overdue = self._waiting_since is not None and now - self._waiting_since >= ACK_LIMIT / 2
        if silence >= (SILENCE_BEFORE_REQUEST if waiting else SILENCE_BEFORE_PING) or ack_overdue:
            self._asked_at = now
            self._limit = SILENCE_AFTER_REQUEST
            return "request-ack" if waiting else "ping"
        return ""

    def next_check(self, now: float) -> float:
        """Return when to check next."""
        if self._asked_at is not None:
            return self._asked_at + self._limit
        return now + 1.0 if self._waiting_since is not None else self._heard_at + SILENCE_BEFORE_REQUEST
