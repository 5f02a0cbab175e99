"""One connection at the bridge: TLS, request, checks, dialling the target, 101, session, and a line in the log.

This is the order in which a client experiences the bridge, and the only place where that order stands.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus

from tunnel.net.channel import Channel
from tunnel.net.tls import TLSChannel
from tunnel.protocol.errors import DialError
from tunnel.protocol.stream import ReadBuffers
from tunnel.server.access import RETRY_AFTER, Seats
from tunnel.server.address import Client
from tunnel.server.certificates import Certificates, start_tls
from tunnel.server.exchange import Head, Refusal, read_head, send, send_last
from tunnel.server.handshake import Rules, Upgrade, health_answer, is_health_check
from tunnel.server.log import Value, event, unexpected
from tunnel.server.session import Session
from tunnel.server.settings import BridgeSettings
from tunnel.server.target import Target

MAX_HANDSHAKES = 256  # at once; further connections wait in the kernel's queues
_ANSWER_LIMIT = 10.0  # seconds for the 101 to go out


@dataclass
class Common:
    """What all connections of a bridge have in common."""

    settings: BridgeSettings
    target: Target
    rules: Rules
    seats: Seats
    certificates: Certificates | None
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
        self._seated = False
        self.session: Session | None = None

    async def serve(self) -> None:
        """Serve the connection to its end, and log how it ended. Gives back one of ``common.handshakes``."""
        try:
            try:
                await self._open()
            finally:
                self._common.handshakes.release()
            if self.session is not None:
                ending = await self.session.run()
                self._log(
                    logging.INFO,
                    "tunnel",
                    target=str(self._common.target),
                    bytes_in=ending.bytes_in,
                    bytes_out=ending.bytes_out,
                    seconds=ending.seconds,
                    reason=ending.reason,
                )
        except Exception as exc:
            unexpected(exc, client=self._client.address)
        finally:
            self._wire.close()
            if self._seated:
                self._common.seats.free(self._client.source)

    async def _open(self) -> None:
        """Do the handshake, after which there is a session, or the client has been told why not."""
        try:
            head = await self._receive_request()
            if is_health_check(head):
                common = self._common
                await send_last(self._wire, health_answer(head, tunnels=common.seats.taken, draining=common.draining))
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
        accepted = common.rules.admit(upgrade)
        self._check_staying()
        common.seats.take(self._client.source)
        self._seated = True
        target = await self._dial()
        try:
            self._check_staying()
            async with asyncio.timeout(_ANSWER_LIMIT):
                await send(self._wire, accepted)
            self._wire = _channel(self._wire.sock, head.rest)
            self.session = Session(
                self._wire,
                Channel(target),
                buffers=common.buffers,
                ping_interval=common.settings.ping_interval,
                ping_timeout=common.settings.ping_timeout,
            )
        except BaseException:
            target.close()
            raise

    async def _dial(self) -> socket.socket:
        try:
            return await self._common.target.dial(self._common.settings.dial_timeout)
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
