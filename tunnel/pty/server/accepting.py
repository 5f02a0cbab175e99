"""Connections to the terminal service: how many there are at once, and whose gives way when that is not enough.

They share the process's descriptors with everything else in it, above all with a bridge, so they get a part of them.
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
from tunnel.net.listening import ListeningSocket
from tunnel.pty.server.connection import AT_WORK, Connection, last_words
from tunnel.server.listen import Listener
from tunnel.server.log import event, unexpected
from tunnel.server.shares import Shares
from tunnel.server.supervision import supervise

CONNECTIONS_LIMIT = 512  # at once
_DESCRIPTORS_SHARE = 4  # of so many descriptors one may be a connection's


class Accepting:
    """Accepts connections for ``server``, from when it is made until `close`; the listeners stay their owner's.

    ``descriptors`` is how many the process may have.
    """

    def __init__(self, server: web.Server, listeners: Iterable[ListeningSocket], descriptors: int) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.places = Shares(max(1, min(CONNECTIONS_LIMIT, descriptors // _DESCRIPTORS_SHARE)), protected=AT_WORK)
        self._tasks = [
            supervise(f"accepting at {each.address}", functools.partial(self._accept_all, Listener(each)))
            for each in listeners
        ]

    async def close(self) -> None:
        """Accept no more; connections stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for_failure(self) -> None:
        """Wait until accepting has been given up at one of the addresses, which the log tells."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _accept_all(self, listener: Listener) -> None:
        while True:
            sock, client = await listener.accept(self.places.drop_one)
            try:
                await self._admit(sock, client)
            except Exception as exc:  # whatever it is, the next client shall be served
                sock.close()
                if not isinstance(exc, OSError):
                    unexpected(exc, listener=str(listener.address))

    async def _admit(self, sock: socket.socket, client: Client) -> None:
        limit_unsent(sock)
        connection = Connection(self._server, self._loop, client)
        if self.places.taken >= self.places.limit:
            # Before anybody who is at work has to give way to somebody who has shown nothing yet.
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
            sock.send(last_words(503, f"{limit} connections are open, which is the limit"))
