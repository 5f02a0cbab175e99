"""The bridge: takes connections, lets those that may become tunnels to the target, and ends them in good order.

    async with Bridge(BridgeSettings(listen=("127.0.0.1:0",)), parse_target("127.0.0.1:22")) as bridge:
        print(bridge.urls)
        await bridge.drain(30)

What happens to a connection is told by `tunnel.server.connection`; signals, the log's place and the process's limits
are the business of `tunnel.run`.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import re
import socket
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tunnel.errors import UsageError, spelled
from tunnel.net.address import Address, Client, TCPAddress, is_loopback
from tunnel.net.descriptors import descriptor_limit
from tunnel.net.forwarded import TrustedProxies
from tunnel.net.listening import ListeningSocket, open_listening
from tunnel.protocol.codec import BINARY_CODEC
from tunnel.protocol.frames import GOING_AWAY
from tunnel.server.access import Origins, Tokens
from tunnel.server.certificates import Certificates
from tunnel.server.connection import Connection
from tunnel.server.handshake import HEALTH_PATH, Rules, Upgrade
from tunnel.server.listen import Listener, with_host
from tunnel.server.log import event, unexpected
from tunnel.server.relay import FAREWELL_LIMIT
from tunnel.server.session_registry import SessionRegistry
from tunnel.server.settings import DEFAULT_LISTEN, BridgeSettings
from tunnel.server.shares import Shares
from tunnel.server.state import BridgeState, farewell_limit, handshake_limit, tunnel_limit
from tunnel.server.supervision import supervise
from tunnel.server.systemd import take_sockets
from tunnel.server.target import Target

if TYPE_CHECKING:
    from tunnel.protocol.codec import Codec

_ACCEPTS = 8  # connections that are accepted before others have their turn
_CROWDED_PAUSE = 0.001  # seconds, while handshakes have to give way
_LOOK_AGAIN = 0.25  # seconds, while draining
_PATH = re.compile(r"/[!-~]*")
_MODE = re.compile(r"0?[0-7]{3}")


class Bridge:
    """A bridge with its listeners, as an async context manager; leaving it ends its tunnels at once.

    Tunnels lead to ``target``, which the bridge starts and closes. ``negotiate`` may change the answer to an upgrade
    that is admitted. ``make_codec`` makes the codec of a plain tunnel. ``tunnel_ended`` is called whenever a tunnel
    has ended. With ``keeps_silent`` a tunnel whose client says nothing never gives way to another of the same source.
    Raises UsageError when the settings cannot be used, and on entering DialError (``listen``) when an address cannot.
    """

    def __init__(
        self,
        settings: BridgeSettings,
        target: Target,
        *,
        negotiate: Callable[[Upgrade], None] = lambda _: None,
        make_codec: Callable[[], Codec] = lambda: BINARY_CODEC,
        tunnel_ended: Callable[[], None] = lambda: None,
        keeps_silent: bool = False,
    ) -> None:
        _check(settings)
        self._settings = settings
        self._tokens = Tokens(settings.token_file)
        self._certificates = None
        if settings.tls_cert is not None:
            self._certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        descriptors = descriptor_limit()
        self._state = BridgeState(
            settings=settings,
            target=target,
            rules=Rules(settings.path, self._tokens, Origins(settings.allow_origin), negotiate),
            proxies=TrustedProxies(settings.trusted_proxy),
            handshakes=Shares(handshake_limit(descriptors)),
            farewells=Shares(farewell_limit(descriptors)),
            seats=Shares(tunnel_limit(settings.max_tunnels, descriptors), protected=0 if keeps_silent else 1),
            sessions=SessionRegistry(settings),
            certificates=self._certificates,
            make_codec=make_codec,
            tunnel_ended=tunnel_ended,
        )
        self._listeners: list[Listener] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._connections: dict[asyncio.Task[None], Connection] = {}

    @property
    def addresses(self) -> list[Address]:
        """Where the bridge listens, with the real ports."""
        return [listener.address for listener in self._listeners]

    @property
    def urls(self) -> list[str]:
        """Where the bridge listens, with the real ports: URLs and ``unix:PATH``."""
        scheme = "wss" if self._certificates else "ws"
        path = self._settings.path or ""
        return [f"{scheme}://{each}{path}" if isinstance(each, TCPAddress) else str(each) for each in self.addresses]

    @property
    def target(self) -> str:
        """Where its tunnels lead."""
        return str(self._state.target)

    @property
    def tunnels(self) -> int:
        """How many tunnels have a connection; sessions that wait for their clients have none."""
        return self._state.seats.taken

    @property
    def max_tunnels(self) -> int:
        """How many tunnels there may be; less than the settings say where there are too few descriptors."""
        return self._state.seats.limit

    @property
    def greeting(self) -> str:
        """How to log in at the target, if that is known."""
        return self._state.target.greeting

    @property
    def authentication(self) -> str:
        """What clients must show: ``token``, ``client certificate``, both, or ``none``."""
        needed = ["token"] if self._tokens else []
        if self._settings.tls_client_ca is not None:
            needed.append("client certificate")
        return " and ".join(needed) or "none"

    @property
    def is_open_to_all(self) -> bool:
        """Whether anybody on the network may open a tunnel."""
        return self.authentication == "none" and not all(is_loopback(each.address) for each in self._listeners)

    @property
    def expiring(self) -> list[str]:
        """A line for each certificate that has expired or soon will."""
        return self._certificates.expiring() if self._certificates else []

    async def __aenter__(self) -> Self:
        self._listeners = [Listener(ListeningSocket(sock)) for sock in take_sockets(os.environ)]
        specs = self._settings.listen or (() if self._listeners else (DEFAULT_LISTEN,))
        try:
            named = [(with_host(spec), "listen") for spec in specs]
            opened = open_listening(named, unix_mode=int(self._settings.unix_mode, 8))
            self._listeners += map(Listener, opened)
            await self._state.target.start()
        except BaseException:
            self._close_listeners()
            raise
        self._accepting = [
            supervise(f"accepting at {listener.address}", functools.partial(self._accept, listener))
            for listener in self._listeners
        ]
        return self

    async def wait_for_failure(self) -> None:
        """Wait until the bridge has given up to accept connections at one of its addresses, which the log tells."""
        await asyncio.wait(self._accepting, return_when=asyncio.FIRST_COMPLETED)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain(0)

    async def drain(self, seconds: float) -> None:
        """Stop accepting, let tunnels end for ``seconds``, then end those that are left, and return.

        Detached sessions end last: they hold nothing up, but a client whose handshake has begun may still come back.
        """
        self._state.draining = True
        for accepting in self._accepting:
            accepting.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self._close_listeners()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (active := self._active()) and loop.time() < end:
            pause = min(_LOOK_AGAIN, end - loop.time())  # for an active one may become a detached one
            await asyncio.wait(active, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        ending = self._active()
        for task in ending:
            relay = self._connections[task].relay
            if relay is None:
                task.cancel()
            else:
                relay.close(GOING_AWAY, f"drained for {seconds:g} s" if seconds else "")
        if ending:
            # A relay limits its farewell itself; the second more is for a loop that is late.
            await asyncio.wait(ending, timeout=FAREWELL_LIMIT + 1)
        for connection in self._connections.values():
            if connection.relay is not None:
                connection.relay.close(GOING_AWAY, "the bridge stopped while it was detached")
        if self._connections:
            await asyncio.wait(self._connections, timeout=1)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._state.speed_test.close()
        await self._state.target.close()

    def _active(self) -> list[asyncio.Task[None]]:
        """Return the connections but for detached sessions."""
        return [task for task, each in self._connections.items() if each.relay is None or each.relay.attached]

    def reload(self) -> None:
        """Read tokens and certificates again. What cannot be used is logged, and what was in use stays."""
        sources: list[tuple[str, Callable[[], None]]] = []
        if self._tokens:
            sources.append(("tokens", self._tokens.reload))
        if self._certificates:
            sources.append(("certificates", self._certificates.reload))
        for name, read_again in sources:
            try:
                read_again()
            except UsageError as exc:
                event(logging.ERROR, "reload-failed", what=name, reason=str(exc), kept="those in use")
            else:
                event(logging.INFO, "reloaded", what=name)
        for line in self.expiring:
            event(logging.WARNING, "warning", message=line)

    async def _accept(self, listener: Listener) -> None:
        for number in itertools.count():
            self._serve(*await listener.accept(self._state.free_descriptor))
            if number % _ACCEPTS == 0:
                # Those that have come are served before the next ones can make them give way; and a flood of them
                # leaves time for the tunnels.
                crowded = self._state.handshakes.taken == self._state.handshakes.limit
                await asyncio.sleep(_CROWDED_PAUSE if crowded else 0)

    def _serve(self, sock: socket.socket, client: Client) -> None:
        """Begin to serve a connection; one that cannot be served is let go, and takes nothing from others."""
        try:
            connection = Connection(self._state, sock, client)
            task = connection.start()
        except Exception as exc:
            sock.close()
            unexpected(exc, client=client.address)
            return
        self._connections[task] = connection
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task).close()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()


def _check(settings: BridgeSettings) -> None:
    """Check what concerns no other module; raises UsageError."""
    if settings.path is not None and (not _PATH.fullmatch(settings.path) or "?" in settings.path):
        raise UsageError(f"{settings.path!r} is not a path that begins with /", setting="path")
    if settings.path == HEALTH_PATH:
        raise UsageError(f"{HEALTH_PATH} is where the bridge reports its health", setting="path")
    if not _MODE.fullmatch(settings.unix_mode):
        raise UsageError(f"{settings.unix_mode!r} is not a mode such as 0600", setting="unix_mode")
    if settings.tls_cert is None and (settings.tls_key is not None or settings.tls_client_ca is not None):
        raise UsageError(f"{spelled('tls_key')} and {spelled('tls_client_ca')} need {spelled('tls_cert')}")
