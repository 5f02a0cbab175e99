"""When a certificate ends, in words: for ``certs show``, ``serve`` and ``doctor``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

SOON = timedelta(days=14)  # before the end: when warnings begin
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))


def current_time() -> datetime:
    """Return the current time, which certificates are compared with."""
    return datetime.now(UTC)


def expiry(end: datetime, now: datetime) -> str:
    """Return a text like ``expires in 364 days (2027-01-31 12:00 UTC)`` or ``expired 3 hours ago (…)``."""
    amount = _amount(abs((end - now).total_seconds()))
    words = f"expired {amount} ago" if end <= now else f"expires in {amount}"
    return f"{words} ({moment(end)})"


def moment(time: datetime) -> str:
    """Return a time to the minute."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def ends_soon(end: datetime, now: datetime, within: timedelta = SOON) -> bool:
    """Whether ``end`` has passed, or is less than ``within`` away."""
    return end - now <= within


def _amount(seconds: float) -> str:
    for unit, size in _UNITS:
        count = round(seconds / size)
        if count >= 2:
            return f"{count} {unit}s"
    return "a minute"
