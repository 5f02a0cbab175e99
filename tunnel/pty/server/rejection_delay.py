"""Slow answers to those who have no valid token, and to nobody else.

Behind an edge all clients have one address, so to slow down an address would slow down everybody. What is slowed down
is the one answer, and how many wait at once is bounded: when there are too many, those of the source that has most
are answered at once.
"""

from __future__ import annotations

import asyncio

from tunnel.pty.server.connection import Connection
from tunnel.server.shares import Shares

DELAY = 1.0  # seconds
AT_ONCE = 128  # answers that wait


class RejectionDelay:
    """The answers that wait."""

    def __init__(self) -> None:
        self._places = Shares(AT_ONCE)

    async def wait(self, connection: Connection) -> None:
        """Wait before ``connection`` is refused; not for long if it has sent another request, which may be valid."""
        hurry = asyncio.Event()
        place = self._places.enter(connection.client.source, hurry.set)
        if place is None:
            return
        connection.when_more_comes(hurry.set)
        try:
            async with asyncio.timeout(DELAY):
                await hurry.wait()
        except TimeoutError:
            pass
        finally:
            connection.when_more_comes(None)
            place.leave()
