"""The process around a bridge and terminals: event loop, log, descriptors, signals, ready lines, news for systemd."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tunnel.net.descriptors import raise_descriptor_limit
from tunnel.protocol.errors import UsageError, printable
from tunnel.server.bridge import Bridge
from tunnel.server.log import event, reopen, set_up
from tunnel.server.secret_files import exposed_secrets
from tunnel.server.settings import ServeSettings
from tunnel.server.systemd import notify, reloading

if TYPE_CHECKING:
    from tunnel.pty.service import TerminalService

# Descriptors beside those of tunnels, which have two each: listeners, log, event loop, handshakes.
_OTHER_DESCRIPTORS = 64


def run(settings: ServeSettings) -> None:
    """Run a bridge, or terminals, or both until SIGTERM or SIGINT, and drain them then.

    Raises UsageError or DialError when it cannot start; once it is ready nothing but signals ends it.
    """
    loop_factory = _uvloop() if settings.uvloop else None
    handler = set_up(settings.log_format, settings.log_file)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_run(settings, handler))
    finally:
        handler.close()


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError as exc:
        raise UsageError("--uvloop: uvloop is not installed: pip install 'wstunnel-py[uvloop]'") from exc
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _terminals(settings: ServeSettings) -> TerminalService | None:
    if settings.pty is None:
        if settings.web:
            raise UsageError("--web: the page needs --pty ADDRESS")
        return None
    try:
        from tunnel.pty.service import TerminalService
    except ModuleNotFoundError as exc:
        if exc.name != "aiohttp":
            raise
        raise UsageError("--pty: aiohttp is not installed: pip install 'wstunnel-py[pty]'") from exc
    if not settings.web:
        return TerminalService(settings)
    if not settings.pty_token_file:
        raise UsageError("--web: a page for browsers needs --pty-token-file: other pages of the browser could use it")
    from tunnel.pty.web import PATHS, routes

    return TerminalService(settings, routes=routes(), open_paths=PATHS, same_origin=True)


async def _run(settings: ServeSettings, handler: logging.Handler) -> None:
    loop = asyncio.get_running_loop()
    stop, stop_at_once = asyncio.Event(), asyncio.Event()
    # "none" is no address, so that a bridge is what happens unless somebody says so.
    bridge = None if settings.listen == ("none",) else Bridge(settings)
    terminals = _terminals(settings)
    if bridge is None and terminals is None:
        raise UsageError("--listen none leaves nothing to serve: add --pty ADDRESS")

    def on_stop() -> None:
        (stop_at_once if stop.is_set() else stop).set()

    def on_reload() -> None:
        _tell_systemd(reloading())
        reopen(handler)
        if bridge is not None:
            bridge.reload()
        if terminals is not None:
            terminals.reload()
        _tell_systemd("READY=1")

    async with AsyncExitStack() as doors:
        if bridge is not None:
            await doors.enter_async_context(bridge)
        if terminals is not None:
            await doors.enter_async_context(terminals)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_stop)
        loop.add_signal_handler(signal.SIGHUP, on_reload)
        if bridge is not None:
            _announce(bridge, settings)
        if terminals is not None:
            _announce_terminals(terminals, settings)
        # No warning, as it may be how the platform mounts its secrets.
        _tell("note", logging.INFO, exposed_secrets(settings), settings)
        _tell_systemd("READY=1")
        await stop.wait()
        _tell_systemd("STOPPING=1")
        event(logging.INFO, "draining", seconds=settings.drain)
        draining = asyncio.create_task(_drain(bridge, terminals, settings.drain))
        hurry = asyncio.create_task(stop_at_once.wait())
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurry):
            task.cancel()
        await asyncio.gather(draining, hurry, return_exceptions=True)


async def _drain(bridge: Bridge | None, terminals: TerminalService | None, seconds: float) -> None:
    async with asyncio.TaskGroup() as closing:
        if bridge is not None:
            closing.create_task(bridge.drain(seconds))
        if terminals is not None:
            closing.create_task(terminals.close())


def _announce(bridge: Bridge, settings: ServeSettings) -> None:
    urls = ", ".join(bridge.urls)
    resume = f"{settings.resume_for:g} s" if settings.resume_for else "off"
    if settings.log_format == "json":
        event(
            logging.INFO, "ready", listen=urls, target=bridge.target, auth=bridge.authentication, resume=resume,
            ssh=bridge.greeting,
        )  # fmt: skip
    else:
        _say(f"bridge ready on {urls} → {bridge.target} (auth: {bridge.authentication}, resume: {resume})")
        if bridge.greeting:
            _say(f"embedded SSH server: {bridge.greeting}")
    warnings = []
    if bridge.is_open_to_all:
        warnings.append("anybody who can reach this address may open tunnels: see --token-file")
    warnings += bridge.expiring
    needed = settings.max_tunnels * 2 + _OTHER_DESCRIPTORS
    available = raise_descriptor_limit()
    if available < needed:
        warnings.append(
            f"{available} descriptors (ulimit -n) are too few for --max-tunnels {settings.max_tunnels}: "
            f"{needed} may be needed"
        )
    _tell("warning", logging.WARNING, warnings, settings)


def _tell(kind: str, level: int, lines: Sequence[str], settings: ServeSettings) -> None:
    for line in lines:
        if settings.log_format == "json" or settings.log_file is not None:
            event(level, kind, message=line)
        if settings.log_format != "json":
            _say(f"{kind}: {line}")


def _announce_terminals(terminals: TerminalService, settings: ServeSettings) -> None:
    urls = ", ".join(terminals.urls)
    if settings.log_format == "json":
        event(logging.INFO, "terminals-ready", listen=urls, auth=terminals.authentication)
    else:
        _say(f"terminals ready on {urls} (auth: {terminals.authentication})")
    raise_descriptor_limit()


def _say(line: str) -> None:
    print(f"wstunnel-py: {printable(line)}", file=sys.stderr, flush=True)


def _tell_systemd(state: str) -> None:
    try:
        notify(state)
    except OSError as exc:
        event(logging.WARNING, "notify-failed", state=state.partition("=")[0], reason=exc.strerror or str(exc))
