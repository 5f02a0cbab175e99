"""The command lines whose WebSocket is waited for: a bridge to a target, a program, another WebSocket, or ourselves."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
from collections.abc import Callable, Sequence
from http import HTTPStatus

from tunnel.children.orphans import look_after_orphans
from tunnel.client.signals import not_ignored
from tunnel.client.trace import Trace, say
from tunnel.errors import UsageError
from tunnel.protocol.control import SUBPROTOCOL
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT
from tunnel.protocol.message_size import LARGEST_MESSAGE, LEAST_MESSAGE
from tunnel.protocol.upgrade import check_header
from tunnel.server.address_target import parse_target
from tunnel.server.bridge import Bridge
from tunnel.server.handshake import Upgrade
from tunnel.server.http import Refusal
from tunnel.server.log import LOGGER, set_up
from tunnel.server.settings import BridgeSettings
from tunnel.server.supervision import unhandled_errors_logged
from tunnel.server.target import Target
from tunnel.websocat.addresses import COMMAND, DIAL, DIAL_WS
from tunnel.websocat.dialling import Dialler, announce, check_places, make_room, unix_mode
from tunnel.websocat.messages import MessageCodec
from tunnel.websocat.plan import Plan
from tunnel.websocat.targets import OutgoingWebSocket, Program, StandardStreams

_UNUSED = "127.0.0.1:22"  # a target's address where the target is none


def negotiate(upgrade: Upgrade, *, protocol: str | None, headers: Sequence[tuple[str, str]]) -> None:
    """Answer as websocat does: select a subprotocol, and add ``headers``.

    ``protocol`` is the only one to select; None: the first that the client offers. Raises Refusal for a client that
    offers others only.
    """
    offered = [name for name in upgrade.offered if name != SUBPROTOCOL]
    if protocol is not None:
        if offered and protocol not in offered:
            raise Refusal(HTTPStatus.BAD_REQUEST, "subprotocol", f"the subprotocol here is {protocol}")
        upgrade.offers_resume = False
    upgrade.asks_for_speed_test = False  # websocat has no such thing
    # A client that offers none must not be answered one (RFC 6455 section 4.2.2).
    selected = (protocol or offered[0]) if offered else None
    upgrade.answer_with(selected, headers)


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
    seats, size = line.number("conncap"), plan.messages.size
    interval, timeout = line.number("ping-interval"), line.number("ping-timeout")
    return BridgeSettings(
        listen=(plan.websocket.rest,),
        unix_mode=f"{unix_mode():04o}",
        target=plan.other.rest if plan.other.kind == DIAL else _UNUSED,
        path=line.text("restrict-uri"),
        max_tunnels=1 if plan.oneshot else 1000 if seats is None else seats,
        max_message=LARGEST_MESSAGE if size is None else min(max(size, LEAST_MESSAGE), LARGEST_MESSAGE),
        # Smaller messages than a session may have are left to the codec of a plain tunnel.
        resume_for=3600.0 if plan.messages.fit_for_sessions and (size is None or size >= LEAST_MESSAGE) else 0.0,
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
        negotiate=functools.partial(negotiate, protocol=plan.line.text("server-protocol"), headers=headers),
        make_codec=functools.partial(MessageCodec, plan.messages),
        tunnel_ended=tunnel_ended,
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
        return OutgoingWebSocket(Dialler(other.rest, plan.line, plan.messages), trace)
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
