"""Connections to the terminal service: how many there are at once, and whose gives way when that is not enough.

They share the process's descriptors with everything else in it, above all with a bridge, so they get a part of them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Iterable

from aiohttp import web

from tunnel.net.address import Client, client_of
from tunnel.net.channel import limit_unsent
from tunnel.net.listening import ListeningSocket
from tunnel.pty.connection import AT_WORK, Connection, last_words
from tunnel.server.log import event, unexpected
from tunnel.server.shares import Shares

CONNECTIONS_LIMIT = 512  # at once
_DESCRIPTORS_SHARE = 4  # of so many descriptors one may be a connection's
_PAUSE = 1.0  # seconds without accepting when the system has no descriptor left, and no connection can be closed
_BREATH = 0.01  # seconds that a closed connection's descriptor has to come back
_SILENCE = 60.0  # seconds between two log lines about that
_TRANSIENT = (errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR)  # of one connection alone: accept(2)


class Accepting:
    """Accepts connections for ``server``, from when it is made until `close`; the listeners stay their owner's.

    ``descriptors`` is how many the process may have.
    """

    def __init__(self, server: web.Server, listeners: Iterable[ListeningSocket], descriptors: int) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.places = Shares(max(1, min(CONNECTIONS_LIMIT, descriptors // _DESCRIPTORS_SHARE)), protected=AT_WORK)
        self._complained_at = float("-inf")
        self._tasks = [self._loop.create_task(self._accept_all(each)) for each in listeners]

    async def close(self) -> None:
        """Accept no more; connections stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept_all(self, listener: ListeningSocket) -> None:
        while True:
            try:
                sock, sockaddr = await self._loop.sock_accept(listener.sock)
            except OSError as exc:
                if exc.errno not in _TRANSIENT:
                    self._complain(listener, exc)
                    await asyncio.sleep(_BREATH if self.places.drop_one() else _PAUSE)
                continue
            try:
                await self._admit(sock, client_of(sockaddr))
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

    def _complain(self, listener: ListeningSocket, exc: OSError) -> None:
        now = self._loop.time()
        if now - self._complained_at >= _SILENCE:
            self._complained_at = now
            event(logging.ERROR, "cannot-accept", listener=str(listener.address), reason=exc.strerror or str(exc))
