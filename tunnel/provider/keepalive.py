"""When to extend a sandbox's time, and when to announce its end. Sans-I/O, with the clock passed in.

    active   extended, if anything was typed or sent within the last ``timeout`` seconds
    open     extended
    never    not extended

The time is extended when a minute of it has passed, or half of it if that is sooner. Soon after the beginning, the
sandbox's time is checked. If it has reached its maximum lifetime, it is not extended any more; its end is announced. If
the session goes on after that end, the sandbox was woken, and has a new lifetime.
"""

from __future__ import annotations

from tunnel.errors import ProviderError

ACTIVE, OPEN, NEVER = "active", "open", "never"
MODES = (ACTIVE, OPEN, NEVER)
FIRST_LOOK = 10.0  # seconds after the beginning; shorter sessions need no call
EARLY = 60.0  # seconds after which the time is extended; early, so that the maximum lifetime is noticed in time
ANNOUNCED = 300.0  # seconds before the end when the user is notified
FIRST_RETRY, LONGEST_RETRY = 5.0, 60.0  # seconds after a failure
_SHARE, _SLACK = 0.9, 1.0  # a share of the requested time, and seconds: with less, the maximum lifetime is reached


class KeepAlive:
    """The time of one sandbox: each call requests ``timeout`` seconds; ``left`` seconds are left at ``now``."""

    def __init__(self, mode: str, timeout: float, left: float, now: float) -> None:
        self._mode = mode
        self._timeout = timeout
        self._ends = now + left
        self._active_at = now
        self._sent = 0
        self._soon = min(FIRST_LOOK, timeout / 4)
        self._due_at = now + self._soon
        self._margin = max(timeout / 2, timeout - EARLY)
        self._delay = min(FIRST_RETRY, timeout / 8)
        self._failures = 0
        self._is_last = False  # whether it has reached its maximum lifetime
        self._announced = False
        self._warned = False

    def note_sent(self, sent: int, now: float) -> None:
        """Note how many bytes were typed or sent so far."""
        if sent != self._sent:
            self._sent = sent
            self._active_at = now

    def is_due(self, now: float) -> bool:
        """Return whether the time must be extended now."""
        if self._mode == NEVER or now < self._due_at:
            return False
        return self._mode == OPEN or now - self._active_at < self._timeout

    def next_look(self, now: float) -> float:
        """Return when `is_due` or `announcement` may change, unless something is typed earlier."""
        if self._is_last and not self._announced:
            return max(now, self._ends - ANNOUNCED)
        if self._mode == NEVER or (self._mode == ACTIVE and now >= self._due_at):
            return float("inf")
        return max(now, self._due_at)

    def expected(self, now: float) -> float:
        """Return the seconds that must be left, or the time is extended."""
        return max(self._margin * 1.1, (self._ends - now) * _SHARE - _SLACK)

    def lives(self, left: float, now: float) -> None:
        """Note that the sandbox has ``left`` seconds left."""
        self._ends = now + left
        self._due_at = self._ends - self._margin
        self._failures = 0
        self._is_last = self._announced = False

    def extended(self, left: float, now: float) -> None:
        """Note that it has ``left`` seconds left after its time was extended."""
        was_announced = self._announced
        self.lives(left, now)
        if left < self._timeout * _SHARE - _SLACK:
            self._is_last, self._announced = True, was_announced
            self._due_at = self._ends + self._soon

    def sleeps(self, now: float) -> None:
        """Note that it is paused: its time begins again when it is woken."""
        self._due_at = now + self._timeout / 2
        self._is_last = self._announced = False

    def jumped(self, seconds: float, now: float) -> None:
        """Note that ``seconds`` have passed that ``now`` does not count, as this machine was suspended."""
        self._ends -= seconds
        self._active_at -= seconds
        self._due_at = min(self._due_at, now)

    def is_over(self) -> None:
        """Note that the sandbox is gone."""
        self._mode = NEVER

    def failed(self, error: ProviderError, now: float) -> str:
        """Note that its time could not be extended; return a line for the user, once, else ""."""
        self._due_at = now + min(self._delay * 2**self._failures, LONGEST_RETRY)
        self._failures = min(self._failures + 1, 10)
        if self._warned:
            return ""
        self._warned = True
        return f"the sandbox's time cannot be extended: {error}"

    def announcement(self, now: float) -> float | None:
        """Return the seconds until the sandbox's end if the user is to be notified now, once; else None."""
        if self._announced or not self._is_last or now < self._ends - ANNOUNCED:
            return None
        self._announced = True
        return max(0.0, self._ends - now)
