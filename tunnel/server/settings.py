"""The options of the bridge, in one table: name, default, limits and help of each.

The command line and the environment (``WSTUNNEL_PY_SERVE_…``) are made from it by `tunnel.cli.serve`; from Python the
same values are given to `BridgeSettings` and `TerminalSettings`. What an option's text means is checked by the module
that uses it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tunnel.errors import UsageError
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT
from tunnel.protocol.message_size import LARGEST_MESSAGE, LEAST_MESSAGE

DEFAULT_LISTEN = "0.0.0.0:8081"  # in a sandbox, where the edge connects to
EMBEDDED = "embedded"  # the target that is an SSH server of our own
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
    """How bridges and terminal services tell their clients apart."""

    trusted_proxy: tuple[str, ...] = _option(
        (),
        "Take a client's address from the X-Forwarded-For of proxies in this network (CIDR), or unix for those that "
        "connect to a Unix socket. Several are possible. Limits are shared between addresses.",
        metavar="NETWORK",
    )


@dataclass(frozen=True, kw_only=True)
class BridgeSettings(SourceSettings):
    """What a `Bridge` is made from. Times are in seconds. Raises UsageError for a value beyond its limits."""

    listen: tuple[str, ...] = _option(
        (),
        f"Where to listen: HOST:PORT, [IPV6]:PORT, :PORT (all addresses) or unix:PATH; port 0 takes a free one. "
        f"Several are possible; none: no bridge, for --pty alone. "
        f"Default: the sockets that systemd passes, else {DEFAULT_LISTEN}.",
        metavar="ADDRESS",
    )
    unix_mode: str = _option("0600", "Permissions of Unix sockets that are listened on.", metavar="MODE")
    target: str = _option(
        "127.0.0.1:22",
        "Where tunnels lead: HOST:PORT, unix:PATH, or 'embedded' for an SSH server of this program's own.",
        metavar="ADDRESS",
    )
    authorized_keys: str | None = _option(
        None,
        "Who may log in at the embedded SSH server, as the user that the bridge runs as. "
        "Default: ~/.ssh/authorized_keys.",
        metavar="FILE",
    )
    host_key: str | None = _option(
        None,
        "Host key of the embedded SSH server, made if it does not exist. Default: in ~/.local/state/wstunnel-py.",
        metavar="FILE",
    )
    no_agent_forwarding: bool = _option(
        False, "Let nobody who logs in at the embedded SSH server forward an authentication agent (ssh -A)."
    )
    path: str | None = _option(None, "The only path of a URL that tunnels are opened at. Default: any.", metavar="PATH")
    tls_cert: str | None = _option(None, "Speak TLS with this certificate chain (PEM).", metavar="FILE")
    tls_key: str | None = _option(None, "The certificate's key (PEM), if not in the same file.", metavar="FILE")
    tls_client_ca: str | None = _option(
        None, "Demand a client certificate of this authority (PEM; mutual TLS).", metavar="FILE"
    )
    token_file: tuple[str, ...] = _option(
        (),
        "Demand one of the bearer tokens in this file, one a line. Several are possible.",
        metavar="FILE",
    )
    allow_origin: tuple[str, ...] = _option(
        (),
        "Let web pages of this origin (https://example.org, * for all) open tunnels. Several are possible.",
        metavar="ORIGIN",
    )
    max_tunnels: int = _option(
        1000,
        "How many tunnels there may be. When there are as many, the address that holds most gives way to others.",
        metavar="N",
        limits=(1, 1_000_000),
    )
    resume_for: float = _option(
        3600.0,
        "How long a session whose connection is lost waits for its client; 0: tunnels end with their connections.",
        metavar="SECONDS",
        limits=(0, _DAY),
    )
    max_detached: int = _option(
        1000,
        "How many sessions may wait so. When there are more, one of the address that has most ends, the oldest first.",
        metavar="N",
        limits=(0, 1_000_000),
    )
    resume_memory: int = _option(
        512,
        "Memory for all that may have to be sent again, both ways; when it is used up, tunnels are plain ones.",
        metavar="MIB",
        limits=(1, 1_000_000),
    )
    handshake_timeout: float = _option(
        10.0, "How long a client may take for TLS and its request.", metavar="SECONDS", limits=(0.1, 600)
    )
    dial_timeout: float = _option(
        10.0, "How long connecting to the target may take.", metavar="SECONDS", limits=(0.1, 600)
    )
    drain: float = _option(
        30.0,
        "How long tunnels may go on after SIGTERM; a second signal ends them at once.",
        metavar="SECONDS",
        limits=(0, _DAY),
    )
    ping_interval: float = _option(
        PING_INTERVAL, "Ping a client that was silent for so long.", metavar="SECONDS", limits=(0.1, _DAY)
    )
    ping_timeout: float = _option(
        PING_TIMEOUT, "Give a client up that is silent for so long after a ping.", metavar="SECONDS", limits=(0.1, _DAY)
    )

    max_message: int = _option(
        LARGEST_MESSAGE,
        "Largest message to send, for an edge that takes no larger ones. A session that can be resumed finds out by "
        "itself.",
        metavar="BYTES",
        limits=(LEAST_MESSAGE, LARGEST_MESSAGE),
    )

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class TerminalSettings(SourceSettings):
    """What a `TerminalService` is made from. Raises UsageError for a value beyond its limits."""

    pty: str | None = _option(
        None,
        "Serve terminals (E2B's PTY protocol) over HTTP here: HOST:PORT or unix:PATH. E2B's own port is 49983. "
        "With --listen none, nothing but terminals.",
        metavar="ADDRESS",
    )
    pty_token_file: tuple[str, ...] = _option(
        (),
        "Demand one of the access tokens in this file, one a line, for terminals. Several are possible. "
        "Without a token terminals are on loopback only.",
        metavar="FILE",
    )
    web: bool = _option(
        False, "Serve a page with a terminal for browsers at the --pty address; needs --pty-token-file."
    )
    pty_user: str | None = _option(
        None,
        "Run terminals as this user unless a client with a token asks for another. Default: the bridge's own.",
        metavar="USER",
    )
    pty_host: tuple[str, ...] = _option(
        (),
        "A name that clients call the terminal service by, beside localhost and addresses: box.example.org, "
        "*.example.org, * for any. Several are possible.",
        metavar="NAME",
    )
    pty_scrollback: int = _option(
        1 << 20, "How many bytes of output to keep for each terminal.", metavar="BYTES", limits=(0, 1 << 30)
    )
    pty_max_processes: int = _option(500, "How many terminals and commands may run.", metavar="N", limits=(1, 100_000))
    pty_max_subscribers: int = _option(64, "How many clients may follow one terminal.", metavar="N", limits=(1, 10_000))

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class ServeSettings(TerminalSettings, BridgeSettings):
    """The options of ``wstunnel-py serve``: of the bridge, of terminals, and of the process that both run in."""

    log_format: str = _option("text", "How log lines are written.", choices=("text", "json"))
    log_file: str | None = _option(
        None, "Write the log to this file, opened again on SIGHUP. Default: stderr.", metavar="FILE"
    )
    uvloop: bool = _option(False, "Use uvloop, which must be installed, for the event loop.")


def variable(name: str) -> str:
    """Return the environment variable for the option ``name``."""
    return f"WSTUNNEL_PY_SERVE_{name.upper()}"


def _check(settings: BridgeSettings | TerminalSettings) -> None:
    for option in dataclasses.fields(settings):
        value, limits, choices = getattr(settings, option.name), option.metadata["limits"], option.metadata["choices"]
        # Written so that a NaN fails too.
        if limits and not limits[0] <= value <= limits[1]:
            raise UsageError(f"{value} is not between {limits[0]:g} and {limits[1]:g}", setting=option.name)
        if choices and value not in choices:
            raise UsageError(f"{value!r} is not one of {', '.join(choices)}", setting=option.name)
