"""When the connection of a session counts as dead: decided within seconds, as a wrong decision loses nothing.

Any byte is a sign of life. If something of ours is unacknowledged, this end requests an ack after 5 s of silence, and
the connection is dead after 8 s more, so that a new one is there within 15 s. A client that only receives does the same
when the data stop, and any client at the beginning of each connection on which it resumes. A connection with 60 s of
bytes, but without an ack, is dead, too (a proxy answers by itself). If nothing is outstanding, a WebSocket ping is sent
after the ping interval (default 20 s), and the connection is dead 8 s after that.
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
        self._asked_at: float | None = None  # when a ping of either kind was sent that is not answered yet
        self._limit = self._answer_limit
        self._waiting_since: float | None = None  # since when an ack is due without any progress
        self._curious = False  # whether data was received after the last ping

    def heard(self, now: float) -> None:
        """Note that bytes were received."""
        self._heard_at = now
        self._asked_at = None

    def data_came(self) -> None:
        """Note that data was received: if it stops, the peer may have no more, or the network may be down."""
        self._curious = True

    def acknowledged(self) -> None:
        """Note that an ack was received."""
        self._waiting_since = None

    def asked(self, now: float) -> None:
        """Note that an ack was requested on a new connection."""
        self._asked_at = now

    def probed(self, now: float) -> None:
        """Note that a ping was sent that must be answered soon."""
        self._asked_at = now
        self._limit = PROBE_LIMIT

    def check(self, now: float, *, waiting: bool) -> str:
        """Return what to do: "" (nothing), "ping", "request-ack" or "dead".

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
        """Return when to check next; that may be in the past."""
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
        """When to request a sign of life from the peer, if nothing is received until then."""
        silent = self._heard_at + min(SILENCE_BEFORE_REQUEST, self._ping_interval)
        if self._waiting_since is None:
            return silent if self._curious else self._heard_at + self._ping_interval
        # A peer that sends but does not acknowledge is asked, too, at most once a second.
        return min(silent, max(self._waiting_since + ACK_LIMIT / 2, self._heard_at + 1.0))
