"""Delays before retries: longer after each failure, up to a limit, with jitter. Sans-I/O."""

from __future__ import annotations

import os


def backoff(failures: int, *, first: float, longest: float, growth: float = 2.0) -> float:
    """Return the seconds to wait before the next attempt, after ``failures`` failed attempts and one more.

    The delay begins at ``first``, grows by the factor ``growth`` up to ``longest``, and is jittered.
    """
    return min(longest, first * growth ** min(failures, 64)) * jitter()


def jitter() -> float:
    """Return a random factor from 0.5 to 1, so that clients that lost the same server do not reconnect all at once."""
    # Without `random`, whose import takes longer than everything else here.
    return 0.5 + int.from_bytes(os.urandom(2), "big") / 131072
