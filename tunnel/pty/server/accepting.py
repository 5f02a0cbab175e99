"""Accepting connections to the terminal service, up to a limit, at which new connections evict others.

They share the process's file descriptors with everything else in it, above all a bridge, so they get only a part.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import Iterable

from aiohttp import web

from tunnel.net.address import Client
from tunnel.net.channel import limit_unsent
from tunnel.pty.server.connection import AT_WORK, Connection, final_answer
from tunnel.server.listen import Listener
from tunnel.server.log import event, unexpected
from tunnel.server.shares import Shares
from tunnel.server.supervision import supervise

CONNECTIONS_LIMIT = 512  # at once
_DESCRIPTORS_SHARE = 4  # one in this many descriptors may be a connection's


class Accepting:
    """Accepts connections for ``server`` until `close`, which leaves the ``listeners`` open.

    ``descriptors`` is the number of file descriptors that the process may have.
    """

    def __init__(self, server: web.Server, listeners: Iterable[Listener], descriptors: int) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.places = Shares(max(1, min(CONNECTIONS_LIMIT, descriptors // _DESCRIPTORS_SHARE)), protected=AT_WORK)
        self._tasks = [
            supervise(f"accepting at {each.address}", functools.partial(self._accept_all, each)) for each in listeners
        ]

    async def close(self) -> None:
        """Stop accepting. Open connections stay open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for_failure(self) -> None:
        """Wait until one of the listeners has failed for good, which is logged."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _accept_all(self, listener: Listener) -> None:
        while True:
            sock, client = await listener.accept(self.places.drop_one)
            try:
                await self._admit(sock, client)
            except Exception as exc:  # the next client must be served in any case
                sock.close()
                if not isinstance(exc, OSError):
                    unexpected(exc, listener=str(listener.address))

    async def _admit(self, sock: socket.socket, client: Client) -> None:
        limit_unsent(sock)
        connection = Connection(self._server, self._loop, client)
        if self.places.taken >= self.places.limit:
            # First an idle connection is evicted, so that none with a request is evicted for a new one.
            self.places.drop_one()
        connection.place = self.places.enter(client.source, connection.give_way, standing=connection.standing)
        if connection.place is None:
            self._turn_away(sock, client)
            await asyncio.sleep(0)
            return
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except BaseException:
            connection.place.leave()
            raise

    def _turn_away(self, sock: socket.socket, client: Client) -> None:
        limit = self.places.limit
        event(logging.INFO, "refused", client=client.address, status=503, error="full", limit=limit)
        with sock:
            sock.setblocking(False)
            sock.send(final_answer(503, f"too many connections: the limit is {limit}"))
