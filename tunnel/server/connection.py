"""One connection at the bridge: TLS, request, checks, dialling the target, 101, relay, and a line in the log.

This is the order in which a client experiences the bridge, and the only place where that order stands. At each stage a
connection holds a place of what that stage uses up, and may have to give way to others: a handshake until the request
is there, then a seat among the tunnels, or else a farewell, which is the time to read why there is no tunnel.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from http import HTTPStatus

from tunnel.errors import DialError
from tunnel.net.address import Client
from tunnel.net.channel import Channel
from tunnel.protocol.control import SUBPROTOCOL, SessionOffer
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.server.certificates import start_tls
from tunnel.server.handshake import Upgrade, health_answer, is_health_check
from tunnel.server.http import Head, Refusal, busy, read_head, send_last
from tunnel.server.log import Value, event, unexpected
from tunnel.server.plain import PlainLifecycle
from tunnel.server.relay import Relay
from tunnel.server.resumable import ResumableLifecycle
from tunnel.server.shares import Place, Shares
from tunnel.server.state import BridgeState
from tunnel.server.target import Target

SLOW_ANSWER = 1.0  # seconds that a client waits for the answer that its token is wrong
_DIALS = 3  # tries to dial the target when descriptors have run out
_DIAL_PAUSE = 0.05  # seconds between two of them


class Connection:
    """A connection that was accepted, and its way through the bridge."""

    def __init__(self, state: BridgeState, sock: socket.socket, client: Client) -> None:
        self._state = state
        self._wire = Channel(sock)
        self._client = client
        self._forwarded = ""
        self._place: Place | None = None
        self._target: Target = state.target
        self._is_handed_over = False  # to the session that it has resumed
        self._is_parting = False  # whether the client has been told why there is no tunnel, or is about to be
        self._gave_way = False
        self._session: ResumableLifecycle | None = None  # that of our tunnel, if it can be resumed
        self.relay: Relay | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to serve the connection to its end, for which the oldest handshake may have to give way.

        How it ended is logged. The task that is returned has to be followed by `close`.
        """
        self._task = asyncio.create_task(self._serve())
        self._hold(self._state.handshakes)
        return self._task

    def close(self) -> None:
        """Let go of everything, once the task has ended."""
        del self._task  # which refers to this connection, so that neither would be freed soon
        self._leave()
        if self.relay is not None or self._is_handed_over:
            return
        if self._gave_way:
            self._wire.abort()  # leaves nothing in the kernel, as a close would
        else:
            self._wire.close()

    async def _serve(self) -> None:
        try:
            await self._open()
            if self.relay is not None:
                await self._run(self.relay)
        except Exception as exc:
            unexpected(exc, client=self._client.address)
            if self.relay is None and not self._is_handed_over:
                await self._part(_INTERNAL_ERROR.answer())

    async def _run(self, relay: Relay) -> None:
        try:
            ending = await relay.run()
        finally:
            self._state.tunnel_ended()
        number: dict[str, Value] = {}
        if self._session is not None:
            self._client = self._session.client
            number = {"session": self._session.number}
        self._log(
            logging.INFO,
            "tunnel",
            **number,
            target=str(self._target),
            bytes_in=ending.bytes_in,
            bytes_out=ending.bytes_out,
            seconds=ending.seconds,
            reason=ending.reason,
        )

    # ---- places

    def _hold(self, shares: Shares) -> Place | None:
        """Hold a place of ``shares`` instead of the last one; None when there is none to be had."""
        self._leave()
        self._place = shares.enter(self._client.source, self._give_way, standing=self._standing)
        return self._place

    def _leave(self) -> None:
        if self._place is not None:
            self._place.leave()
            self._place = None

    def _give_way(self) -> None:
        if self.relay is None:
            self._gave_way = True
            if not self._is_parting:
                self._log(logging.INFO, "refused", error="gave-way", message="other clients need its place")
            self._task.cancel()
        else:
            self.relay.give_way()

    def _standing(self) -> int:
        return 0 if self.relay is None else self.relay.standing()

    # ---- the handshake, after which there is a relay, or the client has been told why not

    async def _open(self) -> None:
        try:
            head = await self._receive_request()
            self._leave()
            if is_health_check(head):
                await self._part(self._health(head))
            else:
                await self._upgrade(head)
        except Refusal as refusal:
            self._log(logging.INFO, "refused", status=refusal.status.value, error=refusal.code, message=refusal.message)
            await self._part(refusal.answer(), slowly=refusal.slowly)
        except OSError as exc:
            if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError):
                self._log(logging.INFO, "refused", error="tls", message=exc.reason or str(exc))
            else:
                # TCP health checks and port scanners do nothing else.
                self._log(logging.DEBUG, "hung-up", reason=exc.strerror or str(exc))

    async def _part(self, answer: bytes, *, slowly: bool = False) -> None:
        """Send a last answer, and let the client read it; when too many are at that, the oldest are let go."""
        self._is_parting = True
        self._hold(self._state.farewells)
        if slowly:
            await asyncio.sleep(SLOW_ANSWER)
        await send_last(self._wire, answer)

    def _health(self, head: Head) -> bytes:
        state = self._state
        return health_answer(
            head, tunnels=state.seats.taken, detached=state.sessions.detached_count, draining=state.draining
        )

    async def _receive_request(self) -> Head:
        limit = self._state.settings.handshake_timeout
        try:
            async with asyncio.timeout(limit):
                if self._state.certificates is not None:
                    self._wire = await start_tls(self._state.certificates.context, self._wire.sock)
                return await read_head(self._wire)
        except TimeoutError as exc:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout", f"no request came within {limit:g} s") from exc

    async def _upgrade(self, head: Head) -> None:
        state = self._state
        upgrade = Upgrade(head)
        self._forwarded = ", ".join(upgrade.forwarded_for)
        self._client = state.proxies.client(self._client, upgrade.forwarded_for)
        if upgrade.resume:
            self._resume(upgrade, head.rest)
            return
        state.rules.admit(upgrade)
        self._check_staying()
        if self._hold(state.seats) is None:
            raise state.full()
        if upgrade.asks_for_speed_test:
            self._target = state.speed_test
        target = await self._dial()
        try:
            self._check_staying()
            self.relay = self._make_relay(Channel(target, is_wire=False), upgrade, head.rest)
        except BaseException:
            target.close()
            raise

    def _make_relay(self, target: Channel, upgrade: Upgrade, rest: bytes) -> Relay:
        """Return the relay, whose first words to the client are the 101. Nothing is left of one that fails."""
        state, wire = self._state, self._wire_with(rest)
        resumable = upgrade.offers_resume and not upgrade.asks_for_speed_test
        offer = state.sessions.offer(self._client.source) if resumable else None
        if offer is None or self._place is None:
            return Relay(wire, target, self._plain(upgrade.accept()))
        self._session = self._resumable(offer, upgrade.accept(resumable=True), self._place)
        relay = Relay(wire, target, self._session)
        self._place = None  # it is the session's, and is given back whenever that is detached
        return relay

    def _plain(self, answer: bytes) -> PlainLifecycle:
        state, settings = self._state, self._state.settings
        stream = PlainStream(
            client=False,
            buffers=state.buffers,
            keepalive=Keepalive(time.monotonic(), settings.ping_interval, settings.ping_timeout),
            preamble=answer,
            max_message=settings.max_message,
            codec=state.make_codec(),
        )
        return PlainLifecycle(stream)

    def _resumable(self, offer: SessionOffer, answer: bytes, seat: Place) -> ResumableLifecycle:
        state, settings = self._state, self._state.settings
        stream = ResumableStream(
            client=False,
            buffers=state.buffers,
            now=time.monotonic(),
            offer=offer,
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            preamble=answer,
            max_message=settings.max_message,
        )
        return ResumableLifecycle(stream, offer, registry=state.sessions, client=self._client, seat=seat)

    def _resume(self, upgrade: Upgrade, rest: bytes) -> None:
        """Give the connection to the session that it asks for; raises Refusal."""
        state = self._state
        session, request = state.sessions.find(upgrade.resume)
        state.rules.admit(upgrade)
        if not upgrade.offers_resume:
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-resume", f"a session is resumed with the protocol {SUBPROTOCOL}")
        session.take_over(
            request,
            self._wire_with(rest),
            self._client,
            self._seat_for,
            lambda received: upgrade.accept(resumable=True, received=received),
        )
        self._is_handed_over = True

    def _wire_with(self, rest: bytes) -> Channel:
        """Return the connection, at which ``rest``, what came behind the request, is received first."""
        if rest:
            self._wire.put_back(memoryview(rest))
        return self._wire

    def _seat_for(self, session: ResumableLifecycle) -> Place:
        """Return a seat for a session that has none while it is detached; raises Refusal."""
        seats = self._state.seats
        seat = seats.enter(self._client.source, session.give_way, standing=session.standing)
        if seat is None:
            raise self._state.full()
        return seat

    async def _dial(self) -> socket.socket:
        state = self._state
        for attempt in range(1, _DIALS + 1):
            try:
                return await self._target.dial(state.settings.dial_timeout, self._client)
            except DialError as exc:
                if attempt < _DIALS and _is_out_of_descriptors(exc.__cause__) and state.free_descriptor(self._place):
                    await asyncio.sleep(_DIAL_PAUSE)
                    continue
                message = f"the target cannot be reached: {exc}"
                if exc.code == "tcp-timeout":
                    raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, "target-timeout", message) from exc
                raise Refusal(HTTPStatus.BAD_GATEWAY, "target-unreachable", message) from exc
        raise AssertionError("the last try returns or raises")

    def _check_staying(self) -> None:
        if self._state.draining:
            raise busy("draining", "the bridge is stopping")

    def _log(self, level: int, name: str, **fields: Value) -> None:
        event(level, name, client=self._client.address, **fields, forwarded=self._forwarded)


_INTERNAL_ERROR = Refusal(
    HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "an unexpected error, of which the bridge's log has more"
)


def _is_out_of_descriptors(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
