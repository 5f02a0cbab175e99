"""What one run of ``shell``, ``pty ps`` or ``pty kill`` uses: the terminal service, and the terminal that is wanted.

Sources and their order are those of `tunnel.client.settings`, and so is the rule that credentials of the environment
and of the config's global options go only to URLs that a template made, never to a literal one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tunnel.client.config import load_config
from tunnel.client.options import SHELL_OPTIONS, Option
from tunnel.client.settings import (
    exposed_key,
    first,
    headers_of,
    is_literal,
    literal_of,
    read_environment,
    table_of,
    token_of,
    withheld_note,
    withhold,
)
from tunnel.errors import UsageError
from tunnel.pty.client.endpoint import LOCAL, TEMPLATE, TOKEN_FIELD, Endpoint, fill
from tunnel.pty.client.http import HttpOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Values
    from tunnel.client.options import Value

TOKEN_VARIABLE = "WSTUNNEL_PY_PTY_TOKEN"  # noqa: S105  # the name of a variable, not a secret
ANSWER_LIMIT = 10.0  # seconds for a call: after a laptop's sleep its old connections never answer


@dataclass(frozen=True, kw_only=True)
class ShellSettings:
    """The service, and the terminal that is wanted; times are in seconds. ``warnings`` are lines for the user.

    ``notes`` are lines for ``-v``.
    """

    place: Endpoint
    way: HttpOptions
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


def resolve(
    host: str | None,
    given: Values,
    command: Sequence[str] = (),
    *,
    options: Sequence[Option] = SHELL_OPTIONS,
    environ: Mapping[str, str] = os.environ,
) -> ShellSettings:
    """Return the settings for ``host``: an http(s):// URL, a name from the config file, or what goes into the template.

    None is the service that --url, the environment or the config file names, else the one on this machine. Raises
    UsageError.
    """
    environment = read_environment(environ, options)
    config_file = given.get("config", environment.get("config"))
    config = load_config(config_file if isinstance(config_file, str) else None)
    literal = literal_of(host or "", given.get("pty-url"))
    name, table = table_of(config, host or "", None if literal is None else _host_of(literal))
    sources: list[Values] = [given, table, environment, config.options]
    foreign = literal is not None or ("pty-url" not in given and "pty-url" in table and is_literal(table["pty-url"]))
    withheld = withhold(sources) if foreign else []
    withheld += ["token"] if foreign and TOKEN_VARIABLE in environ else []
    merged: Values = {option.name: option.default if option.default is not None else False for option in options}
    for source in reversed(sources):
        merged.update(source)
    template = first("pty-url", sources)
    if "://" in name and "pty-url" not in given:
        url = name
    elif host is None and template is None:
        url = LOCAL
    else:
        url = fill(str(template or TEMPLATE), name, int(str(merged["pty-port"])))

    warnings = list(config.warnings)
    headers = headers_of(sources)
    token = token_of(sources, None if foreign else environ.get(TOKEN_VARIABLE), config.path, warnings, "pty-")
    if token is not None:
        headers.append((TOKEN_FIELD, token))
    warnings += exposed_key(merged)
    if merged["insecure"] is True:
        warnings.append("the server's certificate is not checked (--insecure)")
    way = HttpOptions(
        ca_file=_text(merged, "ca-file"),
        client_cert=_text(merged, "client-cert"),
        client_key=_text(merged, "client-key"),
        insecure=merged["insecure"] is True,
        proxy=_text(merged, "proxy"),
        connect_timeout=_seconds(merged["connect-timeout"]),
        request_timeout=ANSWER_LIMIT,
    )
    if way.client_key and not way.client_cert:
        raise UsageError("--client-key needs --client-cert")
    place = Endpoint(url, headers)
    notes = [withheld_note(withheld)] if withheld else []
    quiet, verbose = merged["quiet"] is True, merged["verbose"] is True
    if "pty-escape" not in merged:
        return ShellSettings(place=place, way=way, quiet=quiet, verbose=verbose, warnings=warnings, notes=notes)
    attach, envs = merged["pty-attach"], merged["pty-env"]
    escape = str(merged["pty-escape"])
    settings = ShellSettings(
        place=place,
        way=way,
        quiet=quiet,
        verbose=verbose,
        attach=attach if isinstance(attach, int) and attach is not False else None,
        command=tuple(command) or None,
        cwd=_text(merged, "pty-cwd"),
        user=_text(merged, "pty-user"),
        envs={**_own_terminal(environ), **_variables(envs)},
        timeout=_seconds(merged["pty-timeout"]),
        keep=merged["pty-keep"] is True,
        grace=_seconds(merged["pty-grace"]),
        reconnect_for=_seconds(merged["pty-reconnect-for"]),
        escape=None if escape == "none" else escape,
        warnings=warnings,
        notes=notes,
    )
    if settings.attach is not None and (command or any(n in given for n in ("pty-cwd", "pty-user", "pty-env"))):
        raise UsageError("--attach joins a terminal as it is: it takes no command, --cwd, --user or -e")
    return settings


def _host_of(url: str) -> str:
    try:
        return Endpoint(url.replace("{port}", "1")).address.host
    except UsageError:
        return ""  # what is wrong with it is told by who uses it


def _own_terminal(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the type of the terminal that this program runs in, as ssh passes it on, if it is known."""
    kind = environ.get("TERM", "")
    return {"TERM": kind} if kind and kind.isascii() and kind.isprintable() else {}


def _variables(lines: Value) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines) if isinstance(lines, list) else {}


def _text(values: Values, name: str) -> str | None:
    value = values[name]
    return value if isinstance(value, str) else None


def _seconds(value: Value) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
