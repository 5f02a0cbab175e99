"""The settings of one run of ``shell``, ``pty ps`` or ``pty kill``: the terminal service and the terminal.

Values come from the layers of `tunnel.client.layers`, as for `connect`, with the same rule for credentials.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunnel.client.address import fill
from tunnel.client.layers import Layers, layers_for
from tunnel.client.options import BY_NAME, PTY, PTY_OPTIONS, SHELL_OPTIONS, Option
from tunnel.client.sandbox import find_sandbox
from tunnel.client.settings import check_client_key
from tunnel.errors import UsageError, spelled
from tunnel.pty.client.access import ServiceAccess
from tunnel.pty.client.endpoint import LOCAL, PORT, TEMPLATE, TOKEN_FIELD, Endpoint
from tunnel.pty.client.http import HttpOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Values
    from tunnel.client.options import Value

ANSWER_LIMIT = 10.0  # seconds for a call: after a laptop was suspended, its old connections never answer


@dataclass(frozen=True, kw_only=True)
class ShellSettings:
    """The service and the terminal; times are in seconds. ``warnings`` are lines for the user.

    ``access`` gives access to a service in a sandbox whose provider can be asked. ``notes`` are lines for ``-v``.
    ``origins`` has where settings come from, except those from the command line; ``layers`` are their layers.
    """

    place: Endpoint
    http_options: HttpOptions
    quiet: bool = False
    verbose: bool = False
    attach: int | None = None
    command: tuple[str, ...] | None = None
    cwd: str | None = None
    user: str | None = None
    envs: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 0.0
    keep: bool = False
    grace: float = 60.0
    reconnect_for: float = 600.0
    escape: str | None = "~"
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    layers: Layers | None = None
    access: ServiceAccess | None = None


def resolve(
    host: str | None,
    given: Values,
    command: Sequence[str] = (),
    *,
    options: Sequence[Option] = SHELL_OPTIONS,
    environ: Mapping[str, str] = os.environ,
) -> ShellSettings:
    """Return the settings for ``host``: an http(s):// URL, a name from the config file, or the text for {host}.

    None is the service that an option, the environment or the config file names, else the one on this machine. Raises
    UsageError.
    """
    layers = layers_for(host or "", given, environ, options, prefix=PTY)
    template = layers.text("pty-url")
    sandbox = None
    if host is not None and layers.provider(by_default=layers.is_sandbox(host)):
        sandbox = find_sandbox(layers, host, template)
    if "://" in layers.host and not layers.is_given("pty-url"):
        url = layers.host
    elif host is None and template is None:
        url = LOCAL
    else:
        if template is None and sandbox is not None:
            template = f"https://{sandbox.place()}"
        elif template is None:
            _check_guess(layers, environ)
        url = fill(template or TEMPLATE, layers.host, int(layers.number("pty-port")))
    headers = layers.headers()
    token = layers.bearer()
    if token is not None:
        headers.append((TOKEN_FIELD, token))
    place = Endpoint(url, headers)
    access = None if sandbox is None else ServiceAccess(sandbox, place)
    layers.warn_of_tls()
    http_options = HttpOptions(
        ca_file=layers.text("ca-file"),
        client_cert=layers.text("client-cert"),
        client_key=layers.text("client-key"),
        insecure=layers.flag("insecure"),
        proxy=layers.text("proxy"),
        connect_timeout=layers.number("connect-timeout"),
        request_timeout=ANSWER_LIMIT,
    )
    check_client_key(http_options)
    if any(option.name == "pty-escape" for option in options):
        return _with_terminal(place, http_options, layers, command, environ, access)
    return ShellSettings(place=place, http_options=http_options, **_shown(layers), access=access)


def _check_guess(layers: Layers, environ: Mapping[str, str]) -> None:
    """Raise UsageError if only the URL of the host's bridge is set: then its terminals are not E2B's."""
    variable = BY_NAME["url"].variable
    remedy = None
    if layers.first("url") is not None:
        remedy = f'{layers.origin("url")} is that of its bridge; add pty-url = "http://MACHINE:{PORT}" beside it'
    elif environ.get(variable):
        remedy = f"{variable} is that of its bridge; set {PTY_OPTIONS[0].variable}=http://{{host}}:{PORT}"
    if remedy:
        problem = f"the terminal service's URL is not known for {layers.host}"
        raise UsageError(f"{problem}: {remedy}, or {spelled('pty_url')}")


def _with_terminal(
    place: Endpoint,
    http_options: HttpOptions,
    layers: Layers,
    command: Sequence[str],
    environ: Mapping[str, str],
    access: ServiceAccess | None,
) -> ShellSettings:
    attach, escape = layers.value("pty-attach"), layers.text("pty-escape")
    if attach is not False and (command or any(map(layers.is_given, ("pty-cwd", "pty-user", "pty-env")))):
        others = ", ".join(map(spelled, ("pty_cwd", "pty_user")))
        problem = f"an existing terminal cannot be given a command, {others} or {spelled('pty_env')}"
        raise UsageError(problem, setting="pty_attach")
    return ShellSettings(
        place=place,
        http_options=http_options,
        **_shown(layers),
        access=access,
        attach=attach if isinstance(attach, int) and attach is not False else None,
        command=tuple(command) or None,
        cwd=layers.text("pty-cwd"),
        user=layers.text("pty-user"),
        envs={**_own_terminal(environ), **_variables(layers.value("pty-env"))},
        timeout=layers.number("pty-timeout"),
        keep=layers.flag("pty-keep"),
        grace=layers.number("pty-grace"),
        reconnect_for=layers.number("pty-reconnect-for"),
        escape=None if escape == "none" else escape,
    )


def _shown(layers: Layers) -> dict[str, Any]:
    """Return the settings for this command's own output."""
    return {
        "quiet": layers.flag("quiet"),
        "verbose": layers.flag("verbose"),
        "warnings": layers.warnings,
        "notes": layers.notes,
        "origins": layers.origins,
        "layers": layers,
    }


def _own_terminal(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the type of the terminal that this program runs in, as ssh passes it on, if it is known."""
    kind = environ.get("TERM", "")
    return {"TERM": kind} if kind and kind.isascii() and kind.isprintable() else {}


def _variables(lines: Value) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines) if isinstance(lines, list) else {}
