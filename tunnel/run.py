"""The process around a bridge and terminals: event loop, log, descriptors, signals, ready lines, news for systemd."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from tunnel.children.orphans import look_after_orphans
from tunnel.client.signals import not_ignored
from tunnel.errors import INTERNAL, UsageError, optional_packages, require_package, spelled
from tunnel.net.descriptors import descriptor_limit, raise_descriptor_limit
from tunnel.net.standard_streams import fill_standard_descriptors
from tunnel.server.address_target import parse_target
from tunnel.server.bridge import Bridge
from tunnel.server.log import LogHandler, event, set_up, unexpected
from tunnel.server.secret_files import exposed_secrets
from tunnel.server.settings import EMBEDDED, BridgeSettings, ServeSettings
from tunnel.server.supervision import strays_logged
from tunnel.server.systemd import notify, reloading
from tunnel.server.target import Target

if TYPE_CHECKING:
    from tunnel.pty.server.service import TerminalService


def run(settings: ServeSettings) -> None:
    """Run a bridge, or terminals, or both until SIGTERM or SIGINT, and drain them then.

    SIGHUP reloads what a service reads; with a controlling terminal it is that terminal's end, and so ours. A signal
    that is ignored stays so.

    Raises UsageError or DialError when it cannot start, and SystemExit when something failed that it cannot do without;
    once it is ready nothing else but signals ends it.
    """
    fill_standard_descriptors()
    loop_factory = _uvloop() if settings.uvloop else None
    log = set_up(settings.log_format, settings.log_file)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            status = runner.run(_run(settings, log))
    finally:
        log.close()
    if status:
        raise SystemExit(status)  # the log has told why


def serve(**options: Any) -> Bridge:
    """Return a `Bridge`, to be entered with ``async with``; ``options`` are the fields of `BridgeSettings`."""
    settings = BridgeSettings(**options)
    return Bridge(settings, choose_target(settings))


def choose_target(settings: BridgeSettings) -> Target:
    """Return the target that the settings ask for; raises UsageError."""
    if settings.target == EMBEDDED:
        from tunnel.ssh.embedded import EmbeddedTarget

        require_package("asyncssh", "target")  # which its process imports
        return EmbeddedTarget(
            settings.host_key, settings.authorized_keys, agent_forwarding=not settings.no_agent_forwarding
        )
    if settings.host_key is not None or settings.authorized_keys is not None:
        names = " and ".join(map(spelled, ("host_key", "authorized_keys")))
        raise UsageError(f"{names} are for {spelled('target')} {EMBEDDED}; any other SSH server has its own files")
    return parse_target(settings.target)


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop]:
    with optional_packages("uvloop"):
        import uvloop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _terminals(settings: ServeSettings) -> TerminalService | None:
    if settings.pty is None:
        if settings.web:
            raise UsageError(f"the page needs {spelled('pty')}", setting="web")
        return None
    with optional_packages("pty"):
        from tunnel.pty.server.service import TerminalService
    if not settings.web:
        return TerminalService(settings)
    if not settings.pty_token_file:
        raise UsageError(
            f"a page for browsers needs {spelled('pty_token_file')}: other pages of the browser could use it",
            setting="web",
        )
    from tunnel.pty.web import PATHS, routes

    return TerminalService(settings, routes=routes(), open_paths=PATHS, same_origin=True)


async def _run(settings: ServeSettings, log: LogHandler) -> int:
    with strays_logged(asyncio.get_running_loop()):
        return await _serve(settings, log)


async def _serve(settings: ServeSettings, log: LogHandler) -> int:
    """Serve until a signal comes, or something fails for good; return the exit code."""
    loop = asyncio.get_running_loop()
    look_after_orphans()
    stop, stop_at_once = asyncio.Event(), asyncio.Event()
    raise_descriptor_limit()
    # "none" is no address, so that a bridge is what happens unless somebody says so.
    bridge = None if settings.listen == ("none",) else Bridge(settings, choose_target(settings))
    terminals = _terminals(settings)
    if bridge is None and terminals is None:
        raise UsageError(f"none leaves nothing to serve: add {spelled('pty')}", setting="listen")

    def on_stop() -> None:
        (stop_at_once if stop.is_set() else stop).set()

    def on_reload() -> None:
        steps = [log.reopen, *(each.reload for each in (bridge, terminals) if each is not None)]
        _tell_systemd(reloading())
        for step in steps:
            try:
                step()
            except Exception as exc:
                unexpected(exc, during="reload")
        _tell_systemd("READY=1")

    # Asked now, as a terminal that hangs up is no longer ours when we hear of it. It may be heard of twice.
    on_hangup = stop.set if _has_terminal() else on_reload

    async with AsyncExitStack() as doors:
        if bridge is not None:
            await doors.enter_async_context(bridge)
        if terminals is not None:
            await doors.enter_async_context(terminals)
        on_signal = {signal.SIGTERM: on_stop, signal.SIGINT: on_stop, signal.SIGHUP: on_hangup}
        for number in not_ignored(*on_signal):
            loop.add_signal_handler(number, on_signal[number])
        if bridge is not None:
            _announce(bridge, settings, log)
        if terminals is not None:
            _announce_terminals(terminals, settings, log)
        # No warning, as it may be how the platform mounts its secrets.
        _tell("note", logging.INFO, exposed_secrets(settings), settings, log)
        _tell_systemd("READY=1")
        services = [each for each in (bridge, terminals) if each is not None]
        await _first_of(stop.wait(), *(each.wait_for_failure() for each in services))
        status = 0 if stop.is_set() else INTERNAL
        _tell_systemd("STOPPING=1")
        event(logging.INFO, "draining", seconds=settings.drain)
        await _first_of(_drain(bridge, terminals, settings.drain), stop_at_once.wait())
        return status


def _has_terminal() -> bool:
    """Return whether there is a controlling terminal, whose end is announced by SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of ``waits`` to end, and cancel the others; an error is logged."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            unexpected(outcome)


async def _drain(bridge: Bridge | None, terminals: TerminalService | None, seconds: float) -> None:
    async with asyncio.TaskGroup() as closing:
        if bridge is not None:
            closing.create_task(bridge.drain(seconds))
        if terminals is not None:
            closing.create_task(terminals.close())


def _announce(bridge: Bridge, settings: ServeSettings, log: LogHandler) -> None:
    urls = ", ".join(bridge.urls)
    resume = f"{settings.resume_for:g} s" if settings.resume_for else "off"
    if settings.log_format == "json":
        event(
            logging.INFO, "ready", listen=urls, target=bridge.target, auth=bridge.authentication, resume=resume,
            ssh=bridge.greeting,
        )  # fmt: skip
    else:
        log.say(f"bridge ready on {urls} → {bridge.target} (auth: {bridge.authentication}, resume: {resume})")
        if bridge.greeting:
            log.say(f"embedded SSH server: {bridge.greeting}")
    warnings = []
    if bridge.is_open_to_all:
        warnings.append(f"anybody who can reach this address may open tunnels: see {spelled('token_file')}")
    warnings += bridge.expiring
    if bridge.max_tunnels < settings.max_tunnels:
        warnings.append(
            f"{descriptor_limit()} descriptors (ulimit -n) are too few for "
            f"{spelled('max_tunnels')} {settings.max_tunnels}: the limit is {bridge.max_tunnels} tunnels"
        )
    _tell("warning", logging.WARNING, warnings, settings, log)


def _tell(kind: str, level: int, lines: Sequence[str], settings: ServeSettings, log: LogHandler) -> None:
    for line in lines:
        if settings.log_format == "json" or settings.log_file is not None:
            event(level, kind, message=line)
        if settings.log_format != "json":
            log.say(f"{kind}: {line}")


def _announce_terminals(terminals: TerminalService, settings: ServeSettings, log: LogHandler) -> None:
    urls = ", ".join(terminals.urls)
    if settings.log_format == "json":
        event(logging.INFO, "terminals-ready", listen=urls, auth=terminals.authentication)
    else:
        log.say(f"terminals ready on {urls} (auth: {terminals.authentication})")


def _tell_systemd(state: str) -> None:
    try:
        notify(state)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        event(logging.WARNING, "notify-failed", state=state.partition("=")[0], reason=reason)
