"""The bridge: accepts connections, admits clients, connects them to the target, and ends tunnels cleanly.

    async with Bridge(BridgeSettings(listen=("127.0.0.1:0",)), parse_target("127.0.0.1:22")) as bridge:
        print(bridge.urls)
        await bridge.drain(30)

`tunnel.server.connection` describes what happens to a connection; `tunnel.run` handles signals, the log file and the
limits of the process.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import re
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tunnel.errors import UsageError, spelled
from tunnel.net.address import Address, Client, TCPAddress, is_loopback
from tunnel.net.async_sockets import close_gently
from tunnel.net.channel import Channel
from tunnel.net.descriptors import descriptor_limit
from tunnel.net.event_loop import check_loop
from tunnel.net.forwarded import TrustedProxies
from tunnel.net.listening import ListeningSocket, open_listening
from tunnel.protocol.codec import BINARY_CODEC
from tunnel.protocol.frames import GOING_AWAY
from tunnel.restart.part import HOLD_LIMIT
from tunnel.restart.state import Handed, Kept, Tree
from tunnel.server.access import Origins, Tokens
from tunnel.server.certificates import Certificates
from tunnel.server.connection import Connection
from tunnel.server.handshake import HEALTH_PATH, Rules, Upgrade
from tunnel.server.listen import Listener, with_host
from tunnel.server.listen import restored as restored_listener
from tunnel.server.log import event, unexpected
from tunnel.server.relay import FAREWELL_LIMIT, UNHEARD, no_wire
from tunnel.server.session_registry import SessionRegistry
from tunnel.server.settings import DEFAULT_LISTEN, BridgeSettings
from tunnel.server.shares import Shares
from tunnel.server.state import BridgeState, farewell_limit, handshake_limit, tunnel_limit
from tunnel.server.supervision import supervise
from tunnel.server.systemd import take_sockets
from tunnel.server.target import Target

if TYPE_CHECKING:
    from tunnel.protocol.codec import Codec

_ACCEPTS = 8  # connections that are accepted before other tasks run
_CROWDED_PAUSE = 0.001  # seconds between two of these turns, while handshakes are evicted
_LOOK_AGAIN = 0.25  # seconds, while draining
_LOOK_AT_HANDSHAKES = 0.02  # seconds, before a restart
_PATH = re.compile(r"/[!-~]*")
_MODE = re.compile(r"0?[0-7]{3}")


class Bridge:
    """A bridge with its listeners, as an async context manager; leaving it ends its tunnels at once.

    The bridge starts and closes ``target``. ``negotiate`` may change the answer to an admitted upgrade. ``make_codec``
    makes the codec of a plain tunnel. ``tunnel_ended`` is called whenever a tunnel has ended. With ``keeps_silent`` a
    tunnel whose client sends nothing is never evicted for another one of the same source. Raises UsageError for invalid
    settings, and on entering DialError (``listen``) if it cannot listen.
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
            seats=Shares(
                tunnel_limit(settings.max_tunnels, descriptors, settings.max_detached),
                protected=0 if keeps_silent else 1,
            ),
            sessions=SessionRegistry(settings),
            certificates=self._certificates,
            make_codec=make_codec,
            tunnel_ended=tunnel_ended,
        )
        self._listeners: list[Listener] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._is_restored = False
        self._restored: list[Connection] = []  # continue when the bridge is entered
        self._to_part: list[socket.socket] = []  # sockets of connections that the last restart has ended …
        self._partings: list[asyncio.Task[None]] = []  # … and the tasks that let their clients read the reason
        self._cut_off: list[Connection] = []  # connections that cannot be handed over in a restart

    @property
    def addresses(self) -> list[Address]:
        """The addresses that the bridge listens on, with the real ports."""
        return [listener.address for listener in self._listeners]

    @property
    def urls(self) -> list[str]:
        """The same as URLs and ``unix:PATH``."""
        scheme = "wss" if self._certificates else "ws"
        path = self._settings.path or ""
        return [f"{scheme}://{each}{path}" if isinstance(each, TCPAddress) else str(each) for each in self.addresses]

    @property
    def target(self) -> str:
        """The name of the target."""
        return str(self._state.target)

    @property
    def tunnels(self) -> int:
        """The number of tunnels with a connection, without detached sessions."""
        return self._state.seats.taken

    @property
    def max_tunnels(self) -> int:
        """The limit of tunnels; lower than in the settings if there are too few descriptors."""
        return self._state.seats.limit

    @property
    def greeting(self) -> str:
        """How to log in to the target, if that is known."""
        return self._state.target.greeting

    @property
    def authentication(self) -> str:
        """What clients must present: ``token``, ``client certificate``, both, or ``none``."""
        needed = ["token"] if self._tokens else []
        if self._settings.tls_client_ca is not None:
            needed.append("client certificate")
        return " and ".join(needed) or "none"

    @property
    def is_open_to_all(self) -> bool:
        """Whether anyone on the network may open a tunnel."""
        return self.authentication == "none" and not all(is_loopback(each.address) for each in self._listeners)

    @property
    def expiring(self) -> list[str]:
        """A line for each certificate that has expired or soon will."""
        return self._certificates.expiring() if self._certificates else []

    async def __aenter__(self) -> Self:
        check_loop(asyncio.get_running_loop())
        try:
            if not self._is_restored:
                self._listen()
            await self._state.target.start()
        except BaseException:
            self._close_listeners()
            raise
        self._accepting = [
            supervise(f"accepting at {listener.address}", functools.partial(self._accept, listener))
            for listener in self._listeners
        ]
        for connection in self._restored:
            self._follow(connection.go_on(), connection)
        self._restored.clear()
        self._partings = [asyncio.create_task(close_gently(sock, UNHEARD)) for sock in self._to_part]
        self._to_part.clear()
        return self

    def _listen(self) -> None:
        self._listeners = [Listener(ListeningSocket(sock)) for sock in take_sockets(os.environ)]
        specs = self._settings.listen or (() if self._listeners else (DEFAULT_LISTEN,))
        named = [(with_host(spec), "listen") for spec in specs]
        self._listeners += map(Listener, open_listening(named, unix_mode=int(self._settings.unix_mode, 8)))

    async def wait_for_failure(self) -> None:
        """Wait until the bridge has stopped accepting connections at an address after failures, which are logged."""
        await asyncio.wait(self._accepting, return_when=asyncio.FIRST_COMPLETED)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain(0)

    async def drain(self, seconds: float) -> None:
        """Stop accepting, let tunnels continue for ``seconds``, then end the remaining ones, and return.

        Nobody waits for detached sessions, but they end last, as a client whose handshake has begun may still resume.
        """
        self._state.draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            if not self._state.sessions.expects_any:
                break
            await asyncio.sleep(_LOOK_AGAIN)  # only clients that a restart has cut off may still reconnect
        for task in (*self._accepting, *self._partings):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._partings, return_exceptions=True)
        self._close_listeners()
        while (active := self._active()) and loop.time() < end:
            pause = min(_LOOK_AGAIN, end - loop.time())  # an active session may become a detached one
            await asyncio.wait(active, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        ending = self._active()
        for task in ending:
            relay = self._connections[task].relay
            if relay is None:
                task.cancel()
            else:
                relay.close(GOING_AWAY, f"drained for {seconds:g} s" if seconds else "")
        if ending:
            # A relay limits the time of its Close itself; the extra second is for a loop that is late.
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
        """Return the connections, without detached sessions."""
        return [task for task, each in self._connections.items() if each.relay is None or each.relay.attached]

    # ---- a restart in place: see `tunnel.restart.part.Part`

    async def hold(self) -> None:
        for listener in self._listeners:
            listener.pause()
        end = time.monotonic() + HOLD_LIMIT
        while time.monotonic() < end:
            if all(each.is_settled for each in self._connections.values()):
                return
            await asyncio.sleep(_LOOK_AT_HANDSHAKES)

    def go_on(self) -> None:
        self._cut_off.clear()
        for listener in self._listeners:
            listener.go_on()

    def capture(self, kept: Kept) -> Tree:
        state = self._state
        tunnels = [(each, each.capture(kept)) for task, each in self._connections.items() if not task.done()]
        self._cut_off = [each for each, tree in tunnels if tree is None and not each.is_handed_over]
        return {
            "listeners": [each.capture(kept) for each in self._listeners],
            "target": state.target.capture(kept),
            "last_session": state.sessions.last_number,
            "tunnels": [tree for _, tree in tunnels if tree is not None],
            "farewells": [kept.socket(each.sock) for each in self._cut_off if each.sock.fileno() >= 0],
        }

    def let_go(self) -> None:
        for connection in self._cut_off:
            connection.cut()

    def restore(self, tree: Tree, handed: Handed) -> None:
        self._is_restored = True
        state = self._state
        self._listeners = [restored_listener(each, handed) for each in tree["listeners"]]
        state.target.restore(tree["target"], handed)
        self._to_part = [handed.socket(number) for number in tree["farewells"]]
        for each in tree["tunnels"]:
            try:
                self._restored.append(self._restore_tunnel(each, handed))
            except Exception as exc:
                if handed.on_trial:
                    raise
                unexpected(exc, during="the restart")  # the other tunnels continue
        state.sessions.last_number = tree["last_session"]

    def _restore_tunnel(self, tree: Tree, handed: Handed) -> Connection:
        number, lifecycle = tree["target"], tree["lifecycle"]
        target = no_wire() if number is None else Channel(handed.socket(number), is_wire=False)
        wire = (
            Channel(handed.socket(lifecycle["wire"]), lifecycle["held"].tobytes()) if "wire" in lifecycle else no_wire()
        )
        connection = Connection(self._state, wire, Client(*tree["client"]))
        connection.restore(tree, target)
        return connection

    def reload(self) -> None:
        """Read tokens and certificates again. Files that cannot be used are logged; the old ones stay in use."""
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
                # So accepted connections are served before later ones can evict them, and a flood of connections leaves
                # time for the tunnels.
                crowded = self._state.handshakes.taken == self._state.handshakes.limit
                await asyncio.sleep(_CROWDED_PAUSE if crowded else 0)

    def _serve(self, sock: socket.socket, client: Client) -> None:
        """Begin to serve a connection; one that cannot be served is closed."""
        try:
            connection = Connection(self._state, Channel(sock), client)
            task = connection.start()
        except Exception as exc:
            sock.close()
            unexpected(exc, client=client.address)
            return
        self._follow(task, connection)

    def _follow(self, task: asyncio.Task[None], connection: Connection) -> None:
        self._connections[task] = connection
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task).close()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()


def _check(settings: BridgeSettings) -> None:
    """Check the settings that no other module checks. Raises UsageError."""
    if settings.path is not None and (not _PATH.fullmatch(settings.path) or "?" in settings.path):
        raise UsageError(f"{settings.path!r} is not a path that begins with /", setting="path")
    if settings.path == HEALTH_PATH:
        raise UsageError(f"{HEALTH_PATH} is reserved: the bridge reports its health there", setting="path")
    if not _MODE.fullmatch(settings.unix_mode):
        raise UsageError(f"{settings.unix_mode!r} is not a mode such as 0600", setting="unix_mode")
    if settings.tls_cert is None and (settings.tls_key is not None or settings.tls_client_ca is not None):
        raise UsageError(f"{spelled('tls_key')} and {spelled('tls_client_ca')} need {spelled('tls_cert')}")
