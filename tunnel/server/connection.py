"""One connection at the bridge: TLS, request, checks, dialling the target, 101, session, and a line in the log.

This is the order in which a client experiences the bridge, and the only place where that order stands.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from tunnel.net.address import Client
from tunnel.net.channel import Channel
from tunnel.net.tls import TLSChannel
from tunnel.protocol.control import SUBPROTOCOL, SessionOffer
from tunnel.protocol.errors import DialError
from tunnel.protocol.stream import PlainStream, ReadBuffers
from tunnel.server.access import RETRY_AFTER, Seat, Seats
from tunnel.server.certificates import Certificates, start_tls
from tunnel.server.destination import Destination
from tunnel.server.exchange import Head, Refusal, read_head, send, send_last
from tunnel.server.handshake import Rules, Upgrade, health_answer, is_health_check
from tunnel.server.log import Value, event, unexpected
from tunnel.server.resumable import ResumableSession
from tunnel.server.session import PlainSession, Session
from tunnel.server.sessions import Sessions
from tunnel.server.settings import BridgeSettings
from tunnel.server.speed import SpeedTarget

MAX_HANDSHAKES = 256  # at once; further connections wait in the kernel's queues
_ANSWER_LIMIT = 10.0  # seconds for the 101 to go out


@dataclass
class Common:
    """What all connections of a bridge have in common."""

    settings: BridgeSettings
    target: Destination
    rules: Rules
    seats: Seats
    sessions: Sessions
    certificates: Certificates | None
    speed_test: SpeedTarget = field(default_factory=SpeedTarget)
    buffers: ReadBuffers = field(default_factory=ReadBuffers)
    handshakes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_HANDSHAKES))
    draining: bool = False


class Connection:
    """A connection that was accepted, and its way through the bridge."""

    def __init__(self, common: Common, sock: socket.socket, client: Client) -> None:
        self._common = common
        self._wire = Channel(sock)
        self._client = client
        self._forwarded = ""
        self._seat: Seat | None = None
        self._target: Destination = common.target
        self._is_handed_over = False  # to the session that it has resumed
        self.session: Session | None = None

    async def serve(self) -> None:
        """Serve the connection to its end, and log how it ended. Gives back one of ``common.handshakes``."""
        try:
            try:
                await self._open()
            finally:
                self._common.handshakes.release()
            if self.session is not None:
                await self._run(self.session)
        except Exception as exc:
            unexpected(exc, client=self._client.address)
        finally:
            if not self._is_handed_over:
                self._wire.close()
            if self._seat is not None:
                self._seat.free()

    async def _run(self, session: Session) -> None:
        ending = await session.run()
        number: dict[str, Value] = {}
        if isinstance(session, ResumableSession):
            self._client = session.client
            number = {"session": session.number}
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

    async def _open(self) -> None:
        """Do the handshake, after which there is a session, or the client has been told why not."""
        try:
            head = await self._receive_request()
            if is_health_check(head):
                await send_last(self._wire, self._health(head))
            else:
                await self._upgrade(head)
        except Refusal as refusal:
            self._log(logging.INFO, "refused", status=refusal.status.value, error=refusal.code, message=refusal.message)
            await send_last(self._wire, refusal.answer())
        except OSError as exc:
            if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError):
                self._log(logging.INFO, "refused", error="tls", message=exc.reason or str(exc))
            else:
                # TCP health checks and port scanners do nothing else.
                self._log(logging.DEBUG, "hung-up", reason=exc.strerror or str(exc))

    def _health(self, head: Head) -> bytes:
        common = self._common
        return health_answer(
            head, tunnels=common.seats.taken, detached=common.sessions.detached_count, draining=common.draining
        )

    async def _receive_request(self) -> Head:
        limit = self._common.settings.handshake_timeout
        try:
            async with asyncio.timeout(limit):
                if self._common.certificates is not None:
                    self._wire = _channel(await start_tls(self._common.certificates.context, self._wire.sock))
                return await read_head(self._wire)
        except TimeoutError as exc:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout", f"no request came within {limit:g} s") from exc

    async def _upgrade(self, head: Head) -> None:
        common = self._common
        upgrade = Upgrade(head)
        self._forwarded = upgrade.forwarded
        if upgrade.resume:
            self._resume(upgrade, head.rest)
            return
        common.rules.admit(upgrade)
        self._check_staying()
        self._seat = common.seats.take(self._client.source)
        if upgrade.asks_for_speed_test:
            self._target = common.speed_test
        target = await self._dial()
        offer = None
        try:
            self._check_staying()
            offer = common.sessions.offer() if upgrade.offers_resume and not upgrade.asks_for_speed_test else None
            async with asyncio.timeout(_ANSWER_LIMIT):
                await send(self._wire, upgrade.accept(resumable=offer is not None))
            self._wire = _channel(self._wire.sock, head.rest)
            self.session = self._new_session(Channel(target), offer)
        except BaseException:
            if offer is not None:
                common.sessions.withdraw(offer)
            target.close()
            raise

    def _new_session(self, target: Channel, offer: SessionOffer | None) -> Session:
        common = self._common
        if offer is None or self._seat is None:
            return self._plain_session(target)
        seat, self._seat = self._seat, None  # given back whenever the session is detached
        return ResumableSession(
            self._wire,
            target,
            sessions=common.sessions,
            offer=offer,
            client=self._client,
            seat=seat,
            buffers=common.buffers,
            ping_interval=common.settings.ping_interval,
            ping_timeout=common.settings.ping_timeout,
        )

    def _plain_session(self, target: Channel, make_stream: Callable[..., PlainStream] = PlainStream) -> PlainSession:
        common = self._common
        return PlainSession(
            self._wire,
            target,
            buffers=common.buffers,
            ping_interval=common.settings.ping_interval,
            ping_timeout=common.settings.ping_timeout,
            make_stream=make_stream,
        )

    def _resume(self, upgrade: Upgrade, rest: bytes) -> None:
        """Give the connection to the session that it asks for; raises Refusal."""
        common = self._common
        session, request = common.sessions.find(upgrade.resume)
        common.rules.admit(upgrade)
        if not upgrade.offers_resume:
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-resume", f"a session is resumed with the protocol {SUBPROTOCOL}")
        session.take_over(
            request,
            _channel(self._wire.sock, rest),
            self._client,
            lambda seat: common.seats.take(self._client.source, instead_of=seat),
            lambda received: upgrade.accept(resumable=True, received=received),
        )
        self._is_handed_over = True

    async def _dial(self) -> socket.socket:
        try:
            return await self._target.dial(self._common.settings.dial_timeout, self._client)
        except DialError as exc:
            message = f"the target cannot be reached: {exc}"
            if exc.cause == "tcp-timeout":
                raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, "target-timeout", message) from exc
            raise Refusal(HTTPStatus.BAD_GATEWAY, "target-unreachable", message) from exc

    def _check_staying(self) -> None:
        if self._common.draining:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "draining",
                "the bridge is stopping",
                {"Retry-After": str(RETRY_AFTER)},
            )

    def _log(self, level: int, name: str, **fields: Value) -> None:
        event(level, name, client=self._client.address, **fields, forwarded=self._forwarded)


def _channel(sock: socket.socket, prefetched: bytes = b"") -> Channel:
    return TLSChannel(sock, prefetched) if isinstance(sock, ssl.SSLSocket) else Channel(sock, prefetched)
