"""Waiting for a bridge that is not up yet: a sandbox and its edge may take a while to start.

A bridge is not up yet if the connection is refused, if the answer is that of a starting edge or bridge (`NOT_UP_YET`),
or if the provider answers that the sandbox is changing state or that too many are running. Any other error, such as
wrong credentials, ends the wait at once.
"""

from __future__ import annotations

import time

from tunnel.client.outage import retry_after, span
from tunnel.errors import DialError, ProviderError, UpgradeRefused
from tunnel.net.backoff import backoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnel.client.dial import Connection

NOT_UP_YET = (404, 409, 425, 429, 502, 503, 504)
FIRST_DELAY, LONGEST_DELAY, GROWTH = 0.5, 5.0, 1.5  # seconds between two attempts; each is jittered down to half


def dial_when_up(dial: Callable[[], Connection], limit: float, notice: Callable[[str], None]) -> Connection:
    """Return the connection of ``dial``; while nothing is up yet, retry for ``limit`` seconds, with one ``notice``.

    The last attempt begins when the limit is over; its error is raised. An error that waiting cannot help is raised at
    once.
    """
    deadline = time.monotonic() + limit
    failures = 0
    while True:
        try:
            return dial()
        except DialError as exc:
            left = deadline - time.monotonic()
            if not is_not_up_yet(exc) or left <= 0.0:
                raise
            if not failures:
                notice(f"not up yet ({exc}); trying for {span(limit)}")
            delay = max(backoff(failures, first=FIRST_DELAY, longest=LONGEST_DELAY, growth=GROWTH), retry_after(exc))
        failures += 1
        time.sleep(min(delay, left))


def is_not_up_yet(error: DialError) -> bool:
    """Return whether an attempt failed because the edge or the bridge is still starting."""
    if isinstance(error, UpgradeRefused):
        return error.status in NOT_UP_YET
    if isinstance(error, ProviderError):
        return error.code in ("sandbox-busy", "api-quota")
    return error.code == "tcp-refused" or error.fields.get("refused") is True
