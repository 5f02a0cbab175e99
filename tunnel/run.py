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
from tunnel.pki.tokens import read_tokens
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT
from tunnel.protocol.message_size import LARGEST_MESSAGE
from tunnel.server.address_target import parse_target
from tunnel.server.bridge import Bridge
from tunnel.server.log import LogHandler, event, set_up, unexpected
from tunnel.server.secret_files import exposed_secrets
from tunnel.server.settings import EMBEDDED, BridgeSettings, ServeSettings
from tunnel.server.supervision import unhandled_errors_logged
from tunnel.server.systemd import notify, reloading
from tunnel.server.target import Target

if TYPE_CHECKING:
    from tunnel.pty.server.service import TerminalService

File = str | os.PathLike[str]
Several = File | Sequence[File]


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


def serve(
    *,
    listen: Several = (),
    unix_mode: str = "0600",
    target: str = "127.0.0.1:22",
    authorized_keys: File | None = None,
    host_key: File | None = None,
    no_agent_forwarding: bool = False,
    path: str | None = None,
    tls_cert: File | None = None,
    tls_key: File | None = None,
    tls_client_ca: File | None = None,
    token_file: Several = (),
    allow_origin: Several = (),
    trusted_proxy: Several = (),
    max_tunnels: int = 1000,
    max_detached: int = 1000,
    resume_for: float = 3600.0,
    resume_memory: int = 512,
    handshake_timeout: float = 10.0,
    dial_timeout: float = 10.0,
    ping_interval: float = PING_INTERVAL,
    ping_timeout: float = PING_TIMEOUT,
    max_message: int = LARGEST_MESSAGE,
) -> Bridge:
    """Return a bridge, to be entered with ``async with``; leaving the block ends its tunnels.

    The parameters are the options of ``wstunnel-py serve``. Where several values are possible, one may be given as it
    is: ``listen="127.0.0.1:0"``. Times are in seconds.

    - ``listen``: addresses to listen on, ``HOST:PORT``, ``PORT`` (all addresses) or ``unix:PATH``; port 0 takes a free
      one (`Bridge.urls`).
      Default: the sockets that systemd passes, else ``0.0.0.0:8081``.
    - ``unix_mode``: permissions of Unix sockets, in octal.
    - ``target``: where tunnels lead, ``HOST:PORT`` or ``unix:PATH``; ``embedded`` is an SSH server of this package,
      with ``authorized_keys``, ``host_key`` and ``no_agent_forwarding``.
    - ``path``: the only path of a URL that tunnels are opened at.
    - ``tls_cert``, ``tls_key``: certificate chain and key (PEM) to speak TLS with; ``tls_client_ca``: demand a client
      certificate of this authority.
    - ``token_file``: demand one of the bearer tokens in these files.
    - ``allow_origin``: let web pages of these origins open tunnels.
    - ``trusted_proxy``: networks of the proxies whose ``X-Forwarded-For`` is believed.
    - ``max_tunnels``, ``max_detached``: how many tunnels there may be, and how many sessions without a connection.
    - ``resume_for``: how long a session waits for its client after its connection is lost; 0: no session is resumed.
    - ``resume_memory``: MiB for all that may have to be sent again.
    - ``handshake_timeout``, ``dial_timeout``: limits for a client's request and for connecting to the target.
    - ``ping_interval``, ``ping_timeout``: ping a client after this much silence, and give it up after that much more;
      the connection of a session that can be resumed after 8 s at most.
    - ``max_message``: the largest message to send, in bytes.

    `Bridge.drain` ends the tunnels in good order. Raises UsageError for a value that cannot be used; entering the
    bridge raises DialError for an address that cannot be listened on.
    """
    settings = BridgeSettings(
        listen=_several(listen), unix_mode=unix_mode, target=target, authorized_keys=_path(authorized_keys),
        host_key=_path(host_key), no_agent_forwarding=no_agent_forwarding, path=path, tls_cert=_path(tls_cert),
        tls_key=_path(tls_key), tls_client_ca=_path(tls_client_ca), token_file=_several(token_file),
        allow_origin=_several(allow_origin), trusted_proxy=_several(trusted_proxy), max_tunnels=max_tunnels,
        max_detached=max_detached, resume_for=resume_for, resume_memory=resume_memory,
        handshake_timeout=handshake_timeout, dial_timeout=dial_timeout, ping_interval=ping_interval,
        ping_timeout=ping_timeout, max_message=max_message,
    )  # fmt: skip
    return Bridge(settings, choose_target(settings))


def _several(values: Several) -> tuple[str, ...]:
    if isinstance(values, str | os.PathLike):
        return (os.fspath(values),)
    return tuple(os.fspath(value) for value in values)


def _path(file: File | None) -> str | None:
    return None if file is None else os.fspath(file)


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
    with unhandled_errors_logged(asyncio.get_running_loop()):
        return await _serve(settings, log)


async def _serve(settings: ServeSettings, log: LogHandler) -> int:
    """Serve until a signal comes, or something fails for good; return the exit code."""
    loop = asyncio.get_running_loop()
    look_after_orphans()
    stop, stop_at_once = asyncio.Event(), asyncio.Event()
    raise_descriptor_limit()
    # "none" is no address, so that a bridge is what happens unless somebody says so.
    target = None if settings.listen == ("none",) else choose_target(settings)
    bridge = None if target is None else Bridge(settings, target)
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
        if target is not None:
            doors.callback(asyncio.create_task(_check_target(target, settings, log)).cancel)
        services = [each for each in (bridge, terminals) if each is not None]
        await _first_of(stop.wait(), *(each.wait_for_failure() for each in services))
        status = 0 if stop.is_set() else INTERNAL
        _tell_systemd("STOPPING=1")
        event(logging.INFO, "draining", seconds=settings.drain)
        if bridge is not None and settings.drain:
            _announce_drain(bridge.tunnels, settings, log)
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


async def _check_target(target: Target, settings: ServeSettings, log: LogHandler) -> None:
    """Warn if nothing answers at the target: nobody else tells whoever starts the bridge, only the first client."""
    try:
        if reason := await target.why_unanswered():
            line = f"no tunnel can be opened yet: {reason}; start the SSH server, or see {spelled('target')}"
            _tell("warning", logging.WARNING, [line], settings, log)
    except Exception as exc:
        unexpected(exc, during="a look at the target")


def _announce_drain(tunnels: int, settings: ServeSettings, log: LogHandler) -> None:
    """Tell whoever has pressed Ctrl-C why the program does not end yet; the log's line is enough for anybody else."""
    if settings.log_format != "json" and os.isatty(2):
        open_ones = {0: "no tunnel is open", 1: "1 tunnel is open"}.get(tunnels, f"{tunnels} tunnels are open")
        log.say(f"draining for up to {settings.drain:g} s: {open_ones}; a second Ctrl-C or SIGTERM stops at once")


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
        if settings.web:
            _announce_page(terminals, settings, log)


def _announce_page(terminals: TerminalService, settings: ServeSettings, log: LogHandler) -> None:
    from tunnel.pty.web.invitation import invitation, may_show_secrets, page_address

    file = settings.pty_token_file[0]
    # On stderr only, never as an event, and only where that is no log.
    token = read_tokens(file, "pty_token_file")[0] if may_show_secrets() else None
    address = page_address(terminals.urls)
    for line in invitation(address, settings.pty_host, token=token, token_file=file, environ=os.environ):
        log.say(line)


def _tell_systemd(state: str) -> None:
    try:
        notify(state)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        event(logging.WARNING, "notify-failed", state=state.partition("=")[0], reason=reason)
