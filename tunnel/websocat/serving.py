"""The command lines whose WebSocket is waited for: a bridge to a target, a program, another WebSocket, or ourselves."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus

from tunnel.children.orphans import look_after_orphans
from tunnel.client.signals import not_ignored
from tunnel.client.trace import Trace, say
from tunnel.errors import UsageError
from tunnel.net.address import Client
from tunnel.net.channel import Channel
from tunnel.protocol.control import SUBPROTOCOL
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT
from tunnel.protocol.stream import PlainStream
from tunnel.protocol.upgrade import check_header
from tunnel.server.access import Origins, Tokens
from tunnel.server.address_target import parse_target
from tunnel.server.bridge import Bridge
from tunnel.server.connection import Connection
from tunnel.server.handshake import Rules, Upgrade
from tunnel.server.http import Refusal
from tunnel.server.log import LOGGER, set_up
from tunnel.server.session import PlainSession, Session
from tunnel.server.settings import BridgeSettings
from tunnel.server.state import BridgeState
from tunnel.server.supervision import unhandled_errors_logged
from tunnel.server.target import Target
from tunnel.websocat.addresses import COMMAND, DIAL, DIAL_WS
from tunnel.websocat.dialling import Dialler, announce, check_places, make_room, unix_mode
from tunnel.websocat.messages import Manners, MessageStream
from tunnel.websocat.plan import Plan
from tunnel.websocat.targets import Onward, Program, StandardStreams

_UNUSED = "127.0.0.1:22"  # a target's address where the target is none


class Answers(Rules):
    """Rules with websocat's way of answering: what subprotocol is selected, and with which headers.

    ``protocol`` is the only one to select; None: the first that the client offers.
    """

    def __init__(
        self,
        path: str | None,
        tokens: Tokens,
        origins: Origins,
        *,
        protocol: str | None,
        headers: Sequence[tuple[str, str]],
    ) -> None:
        super().__init__(path, tokens, origins)
        self._protocol = protocol
        self._headers = headers

    def admit(self, upgrade: Upgrade) -> None:
        """As `Rules.admit`; refuses a client that offers other subprotocols than the one that is served."""
        super().admit(upgrade)
        offered = [name for name in upgrade.offered if name != SUBPROTOCOL]
        if self._protocol is not None:
            if offered and self._protocol not in offered:
                raise Refusal(HTTPStatus.BAD_REQUEST, "subprotocol", f"the subprotocol here is {self._protocol}")
            upgrade.offers_resume = False
        upgrade.asks_for_speed_test = False  # websocat has no such thing
        # A client that offers none must not be answered one (RFC 6455 section 4.2.2).
        selected = (self._protocol or offered[0]) if offered else None
        upgrade.answer_with(selected, self._headers)


class MessageConnection(Connection):
    """A connection whose plain tunnels have ``manners``; ``ended`` is called when its tunnel has."""

    def __init__(
        self, state: BridgeState, sock: socket.socket, client: Client, *, manners: Manners, ended: Callable[[], None]
    ) -> None:
        super().__init__(state, sock, client)
        self._manners = manners
        self._ended = ended

    def _plain_session(
        self, wire: Channel, target: Channel, answer: bytes, make_stream: Callable[..., PlainStream] = PlainStream
    ) -> PlainSession:
        return super()._plain_session(wire, target, answer, functools.partial(MessageStream, manners=self._manners))

    @property
    def _max_message(self) -> int:
        size = self._manners.size
        return super()._max_message if size is None else min(size, super()._max_message)

    async def _run(self, session: Session) -> None:
        try:
            await super()._run(session)
        finally:
            self._ended()


def run(plan: Plan) -> int:
    """Do what ``plan``, whose WebSocket listens, asks for; return the exit code. Raises TunnelError."""
    check_places(plan)
    settings = _settings(plan)
    headers = [_header(field) for field in plan.line.several("server-header")]
    make_room(plan, settings.listen[0])
    handler = set_up("text", None)
    if not plan.line.flag("verbose"):
        LOGGER.setLevel(logging.CRITICAL if plan.line.flag("quiet") else logging.WARNING)
    trace = Trace(verbose=plan.line.flag("verbose"))
    for note in plan.notes:
        trace.step("options", note)
    try:
        return asyncio.run(_run(plan, settings, headers, trace))
    finally:
        handler.close()


def _settings(plan: Plan) -> BridgeSettings:
    line = plan.line
    seats = line.number("conncap")
    interval, timeout = line.number("ping-interval"), line.number("ping-timeout")
    return BridgeSettings(
        listen=(plan.websocket.rest,),
        unix_mode=f"{unix_mode():04o}",
        target=plan.other.rest if plan.other.kind == DIAL else _UNUSED,
        path=line.text("restrict-uri"),
        max_tunnels=1 if plan.oneshot else 1000 if seats is None else seats,
        resume_for=3600.0 if plan.manners.fit_for_sessions else 0.0,
        ping_interval=PING_INTERVAL if interval is None else interval,
        ping_timeout=PING_TIMEOUT if timeout is None else timeout,
    )


def _header(field: str) -> tuple[str, str]:
    name, _, value = field.partition(":")
    try:
        check_header(name.strip(), value.strip())
    except UsageError as exc:
        raise UsageError(f"--server-header: {exc}") from exc
    return name.strip(), value.strip()


async def _run(plan: Plan, settings: BridgeSettings, headers: Sequence[tuple[str, str]], trace: Trace) -> int:
    loop = asyncio.get_running_loop()
    look_after_orphans()
    ending: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not ending.done():
            ending.set_result(code)

    def tunnel_ended() -> None:
        if plan.oneshot:
            end(0)

    for number in not_ignored(signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, end, 128 + number)
    bridge = Bridge(
        settings,
        _target(plan, settings, trace, end),
        make_rules=functools.partial(Answers, protocol=plan.line.text("server-protocol"), headers=headers),
        make_connection=functools.partial(MessageConnection, manners=plan.manners, ended=tunnel_ended),
        keeps_silent=True,
    )
    with unhandled_errors_logged(loop):
        async with bridge:
            _announce(plan, bridge)
            return await ending


def _target(plan: Plan, settings: BridgeSettings, trace: Trace, end: Callable[[int], None]) -> Target:
    """Return where tunnels lead. Raises UsageError."""
    other = plan.other
    if other.kind == DIAL:
        return parse_target(settings.target)
    if other.kind == COMMAND:
        arguments = plan.line.several("exec-args")
        return Program(["sh", "-c", other.rest] if other.shell else [other.rest, *arguments])
    if other.kind == DIAL_WS:
        return Onward(Dialler(other.rest, plan.line, plan.manners), trace)
    return StandardStreams(several=not plan.oneshot, end=end)


def _announce(plan: Plan, bridge: Bridge) -> None:
    if plan.line.flag("stdout-announce-listening-ports"):
        for address in bridge.addresses:
            announce(address)
    if plan.line.flag("quiet"):
        return
    say(f"listening on {', '.join(bridge.urls)} → {bridge.target}")
    for warning in plan.warnings:
        say(f"warning: {warning}")
    if bridge.is_open_to_all:
        say("warning: anybody who can reach this address may connect; `wstunnel-py serve` has --token-file")
