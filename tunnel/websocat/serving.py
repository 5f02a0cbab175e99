"""Command lines that listen for a WebSocket: a bridge to an address, a program, another WebSocket or our streams."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
from collections.abc import Callable, Sequence
from http import HTTPStatus

from tunnel.client.trace import Trace, say
from tunnel.errors import UsageError
from tunnel.net.event_loop import STOP, loop_factory, signals_handled
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

_UNUSED = "127.0.0.1:22"  # a valid address in the settings, for targets without an address


def negotiate(upgrade: Upgrade, *, protocol: str | None, headers: Sequence[tuple[str, str]]) -> None:
    """Answer like websocat: select a subprotocol, and add ``headers``.

    ``protocol`` is the only one to select; None: the first that the client offers. Raises Refusal for a client that
    offers only others.
    """
    offered = [name for name in upgrade.offered if name != SUBPROTOCOL]
    if protocol is not None:
        if offered and protocol not in offered:
            raise Refusal(HTTPStatus.BAD_REQUEST, "subprotocol", f"the subprotocol here is {protocol}")
        upgrade.offers_resume = False
    upgrade.asks_for_speed_test = False  # websocat has none
    # No subprotocol for a client that offers none (RFC 6455 section 4.2.2).
    selected = (protocol or offered[0]) if offered else None
    upgrade.answer_with(selected, headers)


def run(plan: Plan) -> int:
    """Run a ``plan`` whose WebSocket listens; return the exit code. Raises TunnelError."""
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
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_run(plan, settings, headers, trace))
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
        # Messages smaller than a session allows are made by the codec of a plain tunnel.
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
    if os.name == "posix":
        from tunnel.children.orphans import look_after_orphans  # late, as it needs signals that Windows lacks

        look_after_orphans()
    ending: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not ending.done():
            ending.set_result(code)

    def tunnel_ended() -> None:
        if plan.oneshot:
            end(0)

    numbers = {name: getattr(signal, name, 0) for name in (*STOP, "SIGHUP")}
    on_signal = {name: functools.partial(end, 128 + number) for name, number in numbers.items()}
    bridge = Bridge(
        settings,
        _target(plan, settings, trace, end),
        negotiate=functools.partial(negotiate, protocol=plan.line.text("server-protocol"), headers=headers),
        make_codec=functools.partial(MessageCodec, plan.messages),
        tunnel_ended=tunnel_ended,
        keeps_silent=True,
    )
    with signals_handled(on_signal), unhandled_errors_logged(loop):
        async with bridge:
            _announce(plan, bridge)
            return await ending


def _target(plan: Plan, settings: BridgeSettings, trace: Trace, end: Callable[[int], None]) -> Target:
    """Return the target. Raises UsageError."""
    other = plan.other
    if other.kind == DIAL:
        return parse_target(settings.target)
    if other.kind == COMMAND:
        if os.name != "posix":
            raise UsageError(f"{other.text}: programs are started on POSIX systems only")
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
        say("warning: anyone who can reach this address may connect; `wstunnel-py serve` has --token-file")
