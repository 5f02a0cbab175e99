"""A delay before requests without a valid token are refused, against guessing.

Behind an edge all clients may have the same address, so an address is not slowed down; only the one answer is. The
number of delayed answers is limited: beyond it those of the source with most of them are sent at once.
"""

from __future__ import annotations

import asyncio

from tunnel.pty.server.connection import Connection
from tunnel.server.shares import Shares

DELAY = 1.0  # seconds
AT_ONCE = 128  # delayed answers


class RejectionDelay:
    """Delays refusals."""

    def __init__(self) -> None:
        self._places = Shares(AT_ONCE)

    async def wait(self, connection: Connection) -> None:
        """Wait before a request is refused; end early if its client sends another one, which may be valid."""
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
