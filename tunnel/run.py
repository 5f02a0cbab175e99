"""The process of a bridge and a terminal service: loop, log, descriptors, signals, ready lines, systemd."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

from tunnel._version import __version__
from tunnel.errors import INTERNAL, UsageError, optional_packages, require_package, spelled
from tunnel.net.descriptors import (
    CALLED,
    descriptor_limit,
    note_soft_limit,
    raise_descriptor_limit,
    soft_limit_at_start,
)
from tunnel.net.event_loop import STOP, loop_factory, posix_only, signals_handled
from tunnel.net.standard_streams import fill_standard_descriptors
from tunnel.pki.tokens import read_tokens
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT
from tunnel.protocol.message_size import LARGEST_MESSAGE
from tunnel.restart.arrival import Arrival, arrival
from tunnel.server.address_target import parse_target
from tunnel.server.bridge import Bridge
from tunnel.server.log import LogHandler, event, set_up, unexpected
from tunnel.server.log_output import open_log
from tunnel.server.pidfile import pidfile
from tunnel.server.secret_files import exposed_secrets
from tunnel.server.settings import EMBEDDED, BridgeSettings, ServeSettings
from tunnel.server.supervision import unhandled_errors_logged
from tunnel.server.systemd import notify, reloading
from tunnel.server.target import Target

if TYPE_CHECKING:
    from tunnel.pty.server.service import TerminalService
    from tunnel.restart.part import Part

File = str | os.PathLike[str]
Several = File | Sequence[File]


def run(settings: ServeSettings) -> None:
    """Run a bridge, a terminal service or both until SIGTERM or SIGINT, then drain them.

    SIGHUP reloads files; with a controlling terminal it ends the service, like SIGTERM. Ignored signals stay ignored.

    Raises UsageError or DialError if it cannot start, and SystemExit if an essential part fails; once it is ready, only
    signals end it otherwise.
    """
    fill_standard_descriptors()
    arrived = arrival(os.environ)
    make_loop = _uvloop() if settings.uvloop else loop_factory()
    log = _set_up_log(settings, on_trial=arrived is not None and arrived.on_trial)
    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            status = runner.run(_run(settings, log, arrived))
    finally:
        log.close()
    if status:
        raise SystemExit(status)  # the log has the reason


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

    The parameters are the options of ``wstunnel-py serve``. Where several values are possible, a single one need not be
    in a sequence: ``listen="127.0.0.1:0"``. Times are in seconds.

    - ``listen``: addresses to listen on, ``HOST:PORT``, ``PORT`` (all addresses) or ``unix:PATH``; port 0 takes a free
      one (`Bridge.urls`).
      Default: the sockets that systemd passes, else ``0.0.0.0:8081``.
    - ``unix_mode``: permissions of Unix sockets, in octal.
    - ``target``: the target, ``HOST:PORT`` or ``unix:PATH``; ``embedded`` is the embedded SSH server, with
      ``authorized_keys``, ``host_key`` and ``no_agent_forwarding``.
    - ``path``: the only path of the URL for tunnels.
    - ``tls_cert``, ``tls_key``: certificate chain and key (PEM) for TLS; ``tls_client_ca``: require a client
      certificate issued by this CA.
    - ``token_file``: require one of the bearer tokens in these files.
    - ``allow_origin``: let web pages of these origins open tunnels.
    - ``trusted_proxy``: networks of the proxies whose ``X-Forwarded-For`` is trusted.
    - ``max_tunnels``, ``max_detached``: limits for tunnels and for detached sessions.
    - ``resume_for``: how long a session waits for its client after its connection is lost; 0: no sessions.
    - ``resume_memory``: MiB for all data that may have to be sent again.
    - ``handshake_timeout``, ``dial_timeout``: limits for a client's request and for connecting to the target.
    - ``ping_interval``, ``ping_timeout``: ping a client after this much silence, and drop the connection after that
      much more; at most 8 s for a session.
    - ``max_message``: the largest message to send, in bytes.

    `Bridge.drain` ends the tunnels cleanly. Raises UsageError for an invalid value; entering the bridge raises
    DialError if it cannot listen on an address.
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
    """Return the target of the settings. Raises UsageError."""
    if settings.target == EMBEDDED:
        posix_only("the embedded SSH server needs a POSIX system", "target")
        from tunnel.ssh.embedded import EmbeddedTarget

        require_package("asyncssh", "target")  # which its process imports
        return EmbeddedTarget(
            settings.host_key, settings.authorized_keys, agent_forwarding=not settings.no_agent_forwarding
        )
    if settings.host_key is not None or settings.authorized_keys is not None:
        names = " and ".join(map(spelled, ("host_key", "authorized_keys")))
        raise UsageError(f"{names} apply only to {spelled('target')} {EMBEDDED}")
    return parse_target(settings.target)


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop]:
    posix_only("uvloop needs a POSIX system", "uvloop")
    with optional_packages("uvloop"):
        import uvloop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _terminals(settings: ServeSettings) -> TerminalService | None:
    if settings.pty is None:
        if settings.web:
            raise UsageError(f"the web page requires {spelled('pty')}", setting="web")
        return None
    posix_only("terminals need a POSIX system", "pty")
    with optional_packages("pty"):
        from tunnel.pty.server.service import TerminalService
    if not settings.web:
        return TerminalService(settings)
    if not settings.pty_token_file:
        raise UsageError(
            f"the web page requires {spelled('pty_token_file')}: without it, other web pages could use the terminals",
            setting="web",
        )
    from tunnel.pty.web import PATHS, routes

    return TerminalService(settings, routes=routes(), open_paths=PATHS, same_origin=True)


def _set_up_log(settings: ServeSettings, *, on_trial: bool) -> LogHandler:
    """Begin to log; on trial nothing is written to the log file, but it must be writable."""
    if not on_trial:
        return set_up(settings.log_format, settings.log_file)
    if settings.log_file is not None:
        os.close(open_log(settings.log_file))
    return set_up("text", None)


async def _run(settings: ServeSettings, log: LogHandler, arrived: Arrival | None) -> int:
    with unhandled_errors_logged(asyncio.get_running_loop()):
        return await _serve(settings, log, arrived)


async def _serve(settings: ServeSettings, log: LogHandler, arrived: Arrival | None) -> int:
    """Serve until a signal comes, or something fails for good; return the exit code."""
    if hasattr(signal, "SIGUSR2"):
        # Imported now: later the disk may have another version of the package, or no descriptor may be left.
        from tunnel.restart import course, trial  # noqa: F401
    stop, stop_at_once, restart = asyncio.Event(), asyncio.Event(), asyncio.Event()
    raise_descriptor_limit()
    # "none" is not an address: it disables the bridge.
    target = None if settings.listen == ("none",) else choose_target(settings)
    bridge = None if target is None else Bridge(settings, target)
    terminals = _terminals(settings)
    if bridge is None and terminals is None:
        raise UsageError(f"with none there is nothing to serve: add {spelled('pty')}", setting="listen")
    began = None if arrived is None else _take_up(arrived, {"bridge": bridge, "terminals": terminals})
    if os.name == "posix":
        from tunnel.children.orphans import look_after_orphans  # late, as it needs signals that Windows lacks

        look_after_orphans()  # now that all children of an earlier version are known

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

    # Checked now: when SIGHUP arrives, the terminal may not be ours any more.
    on_hangup = stop.set if _has_terminal() else on_reload

    async with AsyncExitStack() as doors:
        handlers = doors.enter_context(ExitStack())  # signal handlers, removed after everything else is closed
        if bridge is not None:
            await doors.enter_async_context(bridge)
        if terminals is not None:
            await doors.enter_async_context(terminals)
        on_signal = {**dict.fromkeys(STOP, on_stop), "SIGHUP": on_hangup, "SIGUSR2": restart.set}
        handlers.enter_context(signals_handled(on_signal))
        try:
            doors.enter_context(pidfile(settings.pidfile))  # from now on scripts may send signals
        except UsageError as exc:
            if began is None:
                raise
            _tell("warning", logging.WARNING, [str(exc)], settings, log)  # not an error: open tunnels must continue
        if began is None:
            if bridge is not None:
                _announce(bridge, settings, log)
            if terminals is not None:
                _announce_terminals(terminals, settings, log)
            # Not a warning, as this may be how the platform mounts its secrets.
            _tell("note", logging.INFO, exposed_secrets(settings), settings, log)
            if target is not None:
                doors.callback(asyncio.create_task(_check_target(target, settings, log)).cancel)
        else:
            event(logging.INFO, "restarted", version=__version__, seconds=time.monotonic() - began)
            from tunnel.restart.execution import unblock_signals

            unblock_signals()
        gc.freeze()  # the modules stay; the garbage collector need not look through them as tunnels are opened
        _tell_systemd("READY=1")
        services = [each for each in (bridge, terminals) if each is not None]
        failures = (each.wait_for_failure() for each in services)
        parts: dict[str, Part] = {}
        if bridge is not None:
            parts["bridge"] = bridge
        if terminals is not None:
            parts["terminals"] = terminals
        await _first_of(stop.wait(), _restart_when_asked(restart, stop, parts, log), *failures)
        status = 0 if stop.is_set() else INTERNAL
        _tell_systemd("STOPPING=1")
        event(logging.INFO, "draining", seconds=settings.drain)
        if bridge is not None and settings.drain:
            _announce_drain(bridge.tunnels, settings, log)
        await _first_of(_drain(bridge, terminals, settings.drain), stop_at_once.wait())
        return status


def _take_up(arrived: Arrival, parts: Mapping[str, Part | None]) -> float:
    """Restore the ``parts`` from the old version's state; return when that was captured. Raises UsageError.

    On trial this process ends here.
    """
    from tunnel.children.child import reap_at_end

    trees, handed = arrived.load()
    for name, part in parts.items():
        if part is not None and name in trees:
            part.restore(trees[name], handed)
    arrived.succeed()
    handed.close_rest()
    process = trees["process"]
    note_soft_limit(process["soft_limit"])
    reap_at_end(process["children"])
    return float(process["captured_at"])


async def _restart_when_asked(
    asked: asyncio.Event, stop: asyncio.Event, parts: Mapping[str, Part], log: LogHandler
) -> None:
    """Restart in place whenever that is ``asked`` for; continue if it fails."""
    if not hasattr(signal, "SIGUSR2"):
        await asyncio.Event().wait()  # nobody can ask for it
    from tunnel.children.child import unreaped_pids
    from tunnel.restart.course import become_new_version  # late, as they need signals that Windows lacks
    from tunnel.restart.trial import RestartRefused

    def process() -> dict[str, Any]:
        """Return the state of the process besides its parts."""
        return {"soft_limit": soft_limit_at_start(), "captured_at": time.monotonic(), "children": unreaped_pids()}

    def last_words() -> None:
        event(logging.INFO, "restart")
        log.write_out()
        if asked.is_set():
            signal.raise_signal(signal.SIGUSR2)  # it is blocked now, so the new version gets it

    while True:
        await asked.wait()
        asked.clear()
        _tell_systemd(reloading())
        try:
            await become_new_version(
                parts,
                version=__version__,
                process=process,
                is_wanted=lambda: not stop.is_set(),
                last_words=last_words,
            )
        except RestartRefused as exc:
            event(logging.ERROR, "restart-failed", reason=str(exc), kept="the version in use")
        except Exception as exc:
            unexpected(exc, during="a restart")
            event(logging.ERROR, "restart-failed", reason="an internal error, see above", kept="the version in use")
        _tell_systemd("READY=1")


def _has_terminal() -> bool:
    """Return whether there is a controlling terminal, whose end causes SIGHUP."""
    if os.name != "posix":
        return False
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
        warnings.append(f"anyone who can reach this address may open tunnels: see {spelled('token_file')}")
    warnings += bridge.expiring
    if bridge.max_tunnels < settings.max_tunnels:
        warnings.append(
            f"{descriptor_limit()} {CALLED} are too few for "
            f"{spelled('max_tunnels')} {settings.max_tunnels}: the limit is {bridge.max_tunnels} tunnels"
        )
    _tell("warning", logging.WARNING, warnings, settings, log)


async def _check_target(target: Target, settings: ServeSettings, log: LogHandler) -> None:
    """Warn if nothing answers at the target; otherwise only the first client would notice."""
    try:
        if reason := await target.why_unanswered():
            line = f"no tunnel can be opened yet: {reason}; start the SSH server, or see {spelled('target')}"
            _tell("warning", logging.WARNING, [line], settings, log)
    except Exception as exc:
        unexpected(exc, during="the check of the target")


def _announce_drain(tunnels: int, settings: ServeSettings, log: LogHandler) -> None:
    """Say on a terminal why the program does not end yet after Ctrl-C; otherwise the line in the log is enough."""
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
    from tunnel.pty.web.invitation import invitation, may_show_secrets

    file = settings.pty_token_file[0]
    # On standard error only, and only if that is not the log: the link contains the token.
    token = read_tokens(file, "pty_token_file")[0] if may_show_secrets() else None
    for line in invitation(terminals.urls, settings.pty_host, token=token, token_file=file, environ=os.environ):
        log.say(line)


def _tell_systemd(state: str) -> None:
    try:
        notify(state)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        event(logging.WARNING, "notify-failed", state=state.partition("=")[0], reason=reason)
