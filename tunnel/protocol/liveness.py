"""When the connection under a resumable tunnel is dead: judged in seconds, as nothing is lost by a wrong verdict.

Any byte is life. While something of ours is unacknowledged, 5 s of silence ask for an ack and 8 s more are death, so
that a new connection is there within 15 s; a client that only receives asks likewise when the data stop coming. A
connection on which bytes come but no ack, for 60 s, is dead as well (a hop that answers by itself). Without anything
outstanding a WebSocket ping goes out after the ping interval (20 s, if the user did not say otherwise), and 8 s more
are death.
"""

from __future__ import annotations

SILENCE_BEFORE_REQUEST = 5.0
SILENCE_AFTER_REQUEST = 8.0
ACK_LIMIT = 60.0
PROBE_LIMIT = 2.0


class Liveness:
    """The timers of one connection; all times are seconds of one monotonic clock.

    ``ping_interval`` is the silence before a WebSocket ping; ``ping_timeout`` can only shorten the one after it.
    """

    __slots__ = ("_answer_limit", "_asked_at", "_curious", "_heard_at", "_limit", "_ping_interval", "_waiting_since")

    def __init__(self, now: float, ping_interval: float, ping_timeout: float) -> None:
        self._ping_interval = ping_interval
        self._answer_limit = min(ping_timeout, SILENCE_AFTER_REQUEST)
        self._heard_at = now
        self._asked_at: float | None = None  # when a ping of either kind went out that nothing has answered
        self._limit = self._answer_limit
        self._waiting_since: float | None = None  # since when an ack has been due, without any progress
        self._curious = False  # whether data came, and the peer has not been asked since

    def heard(self, now: float) -> None:
        """Note that bytes came from the peer."""
        self._heard_at = now
        self._asked_at = None

    def data_came(self) -> None:
        """Note that more data may be expected: if they do not come, that may be the peer's wish or the network's."""
        self._curious = True

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
        self._note(now, waiting)
        if self._waiting_since is not None and now - self._waiting_since >= ACK_LIMIT:
            return "dead"
        if self._asked_at is not None:
            return "dead" if now - self._asked_at >= self._limit else ""
        if now < self._ask_at():
            return ""
        action = "request-ack" if waiting or self._curious else "ping"
        self._asked_at = now
        self._limit = self._answer_limit
        self._curious = False
        return action

    def next_check(self, now: float, *, waiting: bool) -> float:
        """Return when to check next; it may be over already."""
        self._note(now, waiting)
        if self._asked_at is not None:
            return self._asked_at + self._limit
        return self._ask_at()

    def _note(self, now: float, waiting: bool) -> None:
        if not waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now

    def _ask_at(self) -> float:
        """When the peer is to be asked for a sign of life, if nothing comes until then."""
        silent = self._heard_at + min(SILENCE_BEFORE_REQUEST, self._ping_interval)
        if self._waiting_since is None:
            return silent if self._curious else self._heard_at + self._ping_interval
        # A peer that talks but does not acknowledge is asked too, once a second at most.
        return min(silent, max(self._waiting_since + ACK_LIMIT / 2, self._heard_at + 1.0))
