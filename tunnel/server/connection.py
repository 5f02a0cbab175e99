"""One connection at the bridge: TLS, request, checks, dialling the target, 101, relay, and a line in the log.

This module defines that order. At each stage a connection holds a slot of the resource that the stage needs, and may be
evicted for other clients: a handshake until the request has arrived, then a tunnel, or, for a refused client, a
farewell: the time to read the reason.
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
from tunnel.net.time_limit import within
from tunnel.protocol.capture import offer_of
from tunnel.protocol.control import SUBPROTOCOL, SessionOffer
from tunnel.protocol.frames import SERVICE_RESTART
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.restart.state import Kept, Tree
from tunnel.server.certificates import start_tls
from tunnel.server.handshake import Upgrade, health_answer, is_health_check
from tunnel.server.http import Head, Refusal, busy, read_head, send_last
from tunnel.server.log import Value, event, unexpected
from tunnel.server.plain import PlainLifecycle
from tunnel.server.relay import Ending, Relay
from tunnel.server.resumable import ResumableLifecycle
from tunnel.server.shares import Place, Shares
from tunnel.server.state import BridgeState
from tunnel.server.target import Target
from tunnel.server.tls_channel import ServerTLSChannel

SLOW_ANSWER = 1.0  # seconds of delay before the answer to a wrong token
_DIALS = 3  # attempts to connect to the target if no descriptor is left
_DIAL_PAUSE = 0.05  # seconds between two attempts


class Connection:
    """An accepted connection, from its handshake to its end."""

    def __init__(self, state: BridgeState, wire: Channel, client: Client) -> None:
        self._state = state
        self._wire = wire
        self._client = client
        self._forwarded = ""
        self._place: Place | None = None
        self._target: Target = state.target
        self.is_handed_over = False  # to the session that it has resumed
        self._is_parting = False  # whether the client was refused, or is about to be
        self._gave_way = False
        self._session: ResumableLifecycle | None = None  # the session of this tunnel, if it is one
        self.relay: Relay | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to serve the connection; at the limit, the oldest handshake is evicted.

        The end is logged. Call `close` when the returned task has ended.
        """
        self._task = asyncio.create_task(self._serve())
        self._hold(self._state.handshakes)
        return self._task

    def go_on(self) -> asyncio.Task[None]:
        """Continue a restored tunnel, as `start` begins a new one."""
        self._task = asyncio.create_task(self._serve())
        return self._task

    def close(self) -> None:
        """Release everything, once the task has ended."""
        del self._task  # breaks the reference cycle with the task, so that both are freed at once
        self._leave()
        if self.relay is not None or self.is_handed_over:
            return
        if self._gave_way:
            self._wire.abort()  # unlike a close, it leaves no data in the kernel
        else:
            self._wire.close()

    async def _serve(self) -> None:
        try:
            if self.relay is None:
                await self._open()
            if self.relay is not None:
                await self._run(self.relay)
        except Exception as exc:
            unexpected(exc, client=self._client.address)
            if self.relay is None and not self.is_handed_over:
                await self._part(_INTERNAL_ERROR.answer())

    async def _run(self, relay: Relay) -> None:
        try:
            ending = await relay.run()
        finally:
            self._state.tunnel_ended()
        self._log_end(ending)

    def _log_end(self, ending: Ending) -> None:
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

    # ---- restarts of the bridge

    @property
    def is_settled(self) -> bool:
        """Whether the handshake is over: the connection is a tunnel or closed."""
        return self.relay is not None or self.is_handed_over

    def capture(self, kept: Kept) -> Tree | None:
        """Return the state of the tunnel; None if there is none that can continue in another process."""
        relay = self.relay
        tree = None if relay is None or self._target is self._state.speed_test else relay.capture(kept)
        if tree is None:
            return None
        client = self._client if self._session is None else self._session.client
        return {**tree, "client": [client.address, client.source], "forwarded": self._forwarded}

    def restore(self, tree: Tree, target: Channel) -> None:
        """Restore the captured tunnel; ``target``, and the wire of a plain tunnel, are restored already."""
        self._forwarded = tree["forwarded"]
        lifecycle = tree["lifecycle"]
        if "wire" in lifecycle:
            plain = self._plain(b"")
            plain.restore(lifecycle)
            self._place = self._restored_seat()
            self.relay = Relay(self._wire, target, plain, self._state.busy)
        else:
            seat = self._restored_seat()
            if not lifecycle["has_seat"]:
                seat.leave()
            self._session = self._resumable(offer_of(lifecycle["stream"]), b"", seat)
            self.relay = Relay(self._wire, target, self._session, self._state.busy)
            self._session.restore(lifecycle)
        self.relay.restore(tree)

    def _restored_seat(self) -> Place:
        return self._state.seats.overdraw(self._client.source, self._give_way, standing=self._standing, weight=1)

    @property
    def sock(self) -> socket.socket:
        """The socket to the client; None if it is closed."""
        return (self._wire if self.relay is None else self.relay.pump.wire).sock

    def cut(self) -> None:
        """End a connection that cannot continue in another process, without waiting. The socket stays open for now."""
        try:
            if self.relay is not None:
                self._log_end(self.relay.cut(SERVICE_RESTART, "the bridge restarts"))
                self.relay.pump.wire.end_writing()
            elif not (self.is_handed_over or self._is_parting):
                self._refuse_for_restart()
        except OSError:
            pass  # the client is gone
        except Exception as exc:
            unexpected(exc, client=self._client.address)

    def _refuse_for_restart(self) -> None:
        """End a handshake that was not answered yet. Raises OSError."""
        refusal = busy("restarting", "the bridge restarts")
        self._log_refusal(refusal)
        if isinstance(self._wire, ServerTLSChannel) or self._state.certificates is None:  # not in the middle of TLS's
            self._wire.send([refusal.answer()])
            self._wire.end_writing()

    # ---- slots

    def _hold(self, shares: Shares) -> Place | None:
        """Exchange the slot for one of ``shares``; return None if none is free."""
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
                self._log(logging.INFO, "refused", error="evicted", message="another client needs its slot")
            self._task.cancel()
        else:
            self.relay.give_way()

    def _standing(self) -> int:
        return 0 if self.relay is None else self.relay.standing()

    # ---- the handshake; after it there is a relay, or the client was refused

    async def _open(self) -> None:
        try:
            head = await self._receive_request()
            self._leave()
            if is_health_check(head):
                await self._part(self._health(head))
            else:
                await self._upgrade(head)
        except Refusal as refusal:
            self._log_refusal(refusal)
            await self._part(refusal.answer(), slowly=refusal.slowly)
        except OSError as exc:
            if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError):
                self._log(logging.INFO, "refused", error="tls", message=exc.reason or str(exc))
            else:
                # TCP health checks and port scanners do only this.
                self._log(logging.DEBUG, "hung-up", reason=exc.strerror or str(exc))

    async def _part(self, answer: bytes, *, slowly: bool = False) -> None:
        """Send a last answer, and let the client read it; at the limit, the oldest of these connections is closed."""
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
            return await within(limit, self._read_request())  # usually the request is there already
        except TimeoutError as exc:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout", f"no request was received within {limit:g} s") from exc

    async def _read_request(self) -> Head:
        if self._state.certificates is not None:
            self._wire = await start_tls(self._state.certificates.context, self._wire.sock)
        return await read_head(self._wire)

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
        """Return the relay, which first sends the 101. If this fails, nothing remains of it."""
        state, wire = self._state, self._wire_with(rest)
        resumable = upgrade.offers_resume and not upgrade.asks_for_speed_test
        offer = state.sessions.offer(self._client.source) if resumable else None
        if offer is None or self._place is None:
            return Relay(wire, target, self._plain(upgrade.accept()), state.busy)
        self._session = self._resumable(offer, upgrade.accept(resumable=True), self._place)
        relay = Relay(wire, target, self._session, state.busy)
        self._place = None  # the session has it now, and gives it back when it is detached
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
        """Pass the connection to the session that it requests. Raises Refusal."""
        state = self._state
        session, request = state.sessions.find(upgrade.resume)
        state.rules.admit(upgrade)
        if not upgrade.offers_resume:
            problem = f"a session can be resumed only with the subprotocol {SUBPROTOCOL}"
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-resume", problem)
        session.take_over(
            request,
            self._wire_with(rest),
            self._client,
            self._seat_for,
            lambda received: upgrade.accept(resumable=True, received=received),
        )
        self.is_handed_over = True

    def _wire_with(self, rest: bytes) -> Channel:
        """Return the channel, which first returns ``rest``, the bytes after the request."""
        if rest:
            self._wire.put_back(memoryview(rest))
        return self._wire

    def _seat_for(self, session: ResumableLifecycle) -> Place:
        """Return a tunnel's slot for a detached session, which has none. Raises Refusal."""
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
                if _is_out_of_descriptors(exc.__cause__):
                    if attempt < _DIALS and state.free_descriptor(self._place):
                        await asyncio.sleep(_DIAL_PAUSE)
                        continue
                    raise busy("full", "the bridge has no file descriptor left for a connection to its target") from exc
                message = f"the target cannot be reached: {exc}"
                if exc.code == "tcp-timeout":
                    raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, "target-timeout", message) from exc
                raise Refusal(HTTPStatus.BAD_GATEWAY, "target-unreachable", message) from exc
        raise AssertionError("the last try returns or raises")

    def _check_staying(self) -> None:
        if self._state.draining:
            raise busy("draining", "the bridge is stopping")

    def _log_refusal(self, refusal: Refusal) -> None:
        self._log(logging.INFO, "refused", status=refusal.status.value, error=refusal.code, message=refusal.message)

    def _log(self, level: int, name: str, **fields: Value) -> None:
        event(level, name, client=self._client.address, **fields, forwarded=self._forwarded)


_INTERNAL_ERROR = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "an unexpected error: see the bridge's log")


def _is_out_of_descriptors(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
