"""How long to wait before trying again: longer after each failure, up to a limit, with jitter. Sans-I/O."""

from __future__ import annotations

import os


def backoff(failures: int, *, first: float, longest: float, growth: float = 2.0) -> float:
    """Return the seconds to wait before the next attempt, when ``failures`` attempts in a row failed before the last.

    The delay begins at ``first``, is multiplied by ``growth`` up to ``longest``, and is jittered.
    """
    return min(longest, first * growth ** min(failures, 64)) * jitter()


def jitter() -> float:
    """Return a random factor from 0.5 to 1, so that clients that lost the same server do not come back all at once."""
    # Not from `random`: importing it takes longer than everything else here.
    return 0.5 + int.from_bytes(os.urandom(2), "big") / 131072
