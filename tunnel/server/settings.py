"""The options of the bridge, in one table: name, default, limits and help of each.

`tunnel.cli.serve` makes the command line and the environment (``WSTUNNEL_PY_SERVE_…``) from it; Python code passes the
same values to `BridgeSettings` and `TerminalSettings`. The module that uses an option checks its text.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tunnel.errors import UsageError
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT
from tunnel.protocol.message_size import LARGEST_MESSAGE, LEAST_MESSAGE

DEFAULT_LISTEN = "0.0.0.0:8081"  # where the edge of a sandbox connects
EMBEDDED = "embedded"  # the target that is the embedded SSH server
_DAY = 86400.0


def _option(
    default: Any,
    help_text: str,
    *,
    metavar: str | None = None,
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {"help": help_text, "metavar": metavar, "limits": limits, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """How bridges and terminal services find out their clients' addresses."""

    trusted_proxy: tuple[str, ...] = _option(
        (),
        "Take the client's address from the X-Forwarded-For header of proxies in this network (CIDR), or of proxies "
        "that connect to a Unix socket ('unix'). May be repeated. Limits are applied per client address.",
        metavar="NETWORK",
    )


@dataclass(frozen=True, kw_only=True)
class BridgeSettings(SourceSettings):
    """The settings of a `Bridge`. Times are in seconds. Raises UsageError for a value outside its limits."""

    listen: tuple[str, ...] = _option(
        (),
        "Where to listen: HOST:PORT, [IPV6]:PORT, PORT or :PORT (all addresses), or unix:PATH. Port 0 means any free "
        "port. May be repeated. 'none': run no bridge, only --pty. "
        f"Default: the sockets that systemd passes, or {DEFAULT_LISTEN}.",
        metavar="ADDRESS",
    )
    target: str = _option(
        "127.0.0.1:22",
        "What tunnels connect to: HOST:PORT, unix:PATH, or 'embedded' for the embedded SSH server.",
        metavar="ADDRESS",
    )
    token_file: tuple[str, ...] = _option(
        (),
        "Require one of the bearer tokens in this file, one per line. May be repeated. Default: no token is required.",
        metavar="FILE",
    )
    tls_cert: str | None = _option(None, "Use TLS with this certificate chain (PEM).", metavar="FILE")
    tls_key: str | None = _option(None, "Key of --tls-cert (PEM), if it is not in the same file.", metavar="FILE")
    tls_client_ca: str | None = _option(
        None, "Require a client certificate issued by this CA (PEM; mutual TLS).", metavar="FILE"
    )
    path: str | None = _option(None, "Accept tunnels only at this path of the URL. Default: any path.", metavar="PATH")
    allow_origin: tuple[str, ...] = _option(
        (),
        "Allow web pages of this origin (https://example.org, * for all) to open tunnels. May be repeated.",
        metavar="ORIGIN",
    )
    authorized_keys: str | None = _option(
        None,
        "File with the public keys that may log in to the embedded SSH server. They log in as the user who runs the "
        "bridge. Default: ~/.ssh/authorized_keys.",
        metavar="FILE",
    )
    host_key: str | None = _option(
        None,
        "Host key of the embedded SSH server, created if it does not exist. Default: in ~/.local/state/wstunnel-py.",
        metavar="FILE",
    )
    no_agent_forwarding: bool = _option(
        False, "Do not forward authentication agents (ssh -A) in the embedded SSH server."
    )
    unix_mode: str = _option("0600", "Permissions of the Unix sockets to listen on.", metavar="MODE")
    max_tunnels: int = _option(
        1000,
        "Maximum number of tunnels. At the limit, a new one replaces one of the client address that has the most.",
        metavar="N",
        limits=(1, 1_000_000),
    )
    resume_for: float = _option(
        3600.0,
        "How long a session is kept after its connection is lost. 0: tunnels end with their connections.",
        metavar="SECONDS",
        limits=(0, _DAY),
    )
    max_detached: int = _option(
        1000,
        "Maximum number of detached sessions, whose clients have no connection. Beyond it, the client address that has "
        "the most loses its oldest one.",
        metavar="N",
        limits=(0, 1_000_000),
    )
    resume_memory: int = _option(
        512,
        "Memory for data that may have to be sent again. When it is used up, new tunnels are plain tunnels.",
        metavar="MIB",
        limits=(1, 1_000_000),
    )
    handshake_timeout: float = _option(
        10.0, "Time limit for a client's TLS handshake and request.", metavar="SECONDS", limits=(0.1, 600)
    )
    dial_timeout: float = _option(
        10.0, "Time limit for connecting to the target.", metavar="SECONDS", limits=(0.1, 600)
    )
    drain: float = _option(
        30.0,
        "How long open tunnels may continue after SIGTERM. A second signal ends them at once.",
        metavar="SECONDS",
        limits=(0, _DAY),
    )
    ping_interval: float = _option(
        PING_INTERVAL, "Send a ping after this much silence.", metavar="SECONDS", limits=(0.1, _DAY)
    )
    ping_timeout: float = _option(
        PING_TIMEOUT,
        "Close a connection if nothing arrives for this long after a ping. Sessions wait at most 8 s.",
        metavar="SECONDS",
        limits=(0.1, _DAY),
    )

    max_message: int = _option(
        LARGEST_MESSAGE,
        "Size of the largest message to send, for an edge that accepts no larger ones. "
        "Sessions find this size automatically.",
        metavar="BYTES",
        limits=(LEAST_MESSAGE, LARGEST_MESSAGE),
    )

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class TerminalSettings(SourceSettings):
    """The settings of a `TerminalService`. Raises UsageError for a value outside its limits."""

    pty: str | None = _option(
        None,
        "Serve terminals (E2B's PTY protocol) over HTTP at this address: HOST:PORT or unix:PATH. E2B uses port 49983. "
        "With --listen none, only terminals are served.",
        metavar="ADDRESS",
    )
    pty_token_file: tuple[str, ...] = _option(
        (),
        "Require one of the access tokens in this file, one per line, for terminals. May be repeated. "
        "Without a token, terminals are served on loopback only.",
        metavar="FILE",
    )
    web: bool = _option(
        False,
        "Serve a web page with a terminal at the --pty address, and print its link. Requires --pty-token-file.",
    )
    pty_user: str | None = _option(
        None,
        "Run terminals as this user, unless a client with a token asks for another. Default: the user who runs serve.",
        metavar="USER",
    )
    pty_host: tuple[str, ...] = _option(
        (),
        "Accept requests for this host name of the terminal service, besides localhost and IP addresses: "
        "box.example.org, *.example.org, * for any. May be repeated.",
        metavar="NAME",
    )
    pty_scrollback: int = _option(
        1 << 20, "How much output to keep for each terminal.", metavar="BYTES", limits=(0, 1 << 30)
    )
    pty_max_processes: int = _option(500, "Maximum number of terminals and commands.", metavar="N", limits=(1, 100_000))
    pty_max_subscribers: int = _option(64, "Maximum number of clients per terminal.", metavar="N", limits=(1, 10_000))

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class ServeSettings(TerminalSettings, BridgeSettings):
    """The options of ``wstunnel-py serve``: of the bridge, of terminals, and of the process that both run in."""

    log_format: str = _option("text", "Format of log lines.", choices=("text", "json"))
    log_file: str | None = _option(
        None, "Write the log to this file, which is reopened on SIGHUP. Default: standard error.", metavar="FILE"
    )
    pidfile: str | None = _option(
        None,
        "Write the process ID to this file while the service runs. A restart in place keeps the file.",
        metavar="FILE",
    )
    uvloop: bool = _option(False, "Use uvloop as the event loop. It must be installed.")


def variable(name: str) -> str:
    """Return the environment variable for the option ``name``."""
    return f"WSTUNNEL_PY_SERVE_{name.upper()}"


def _check(settings: BridgeSettings | TerminalSettings) -> None:
    for option in dataclasses.fields(settings):
        value, limits, choices = getattr(settings, option.name), option.metadata["limits"], option.metadata["choices"]
        # Written so that a NaN also fails.
        if limits and not limits[0] <= value <= limits[1]:
            raise UsageError(f"{value} is not between {limits[0]:.15g} and {limits[1]:.15g}", setting=option.name)
        if choices and value not in choices:
            raise UsageError(f"{value!r} is not one of {', '.join(choices)}", setting=option.name)
