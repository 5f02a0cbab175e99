"""What one run of the client uses, resolved from the command line, the environment and the config file.

An option of the command line goes before the table of the host in the config file, that before the environment, that
before the config file's global options, those before the default. Credentials of the environment and of the global
options go only to URLs that those sources built themselves; see `resolve`.
"""

from __future__ import annotations

import os
import socket

from tunnel.client.address import DEFAULT_TEMPLATE, fill_template, parse_url
from tunnel.client.config import load_config
from tunnel.client.options import FLAG, LIST, OPTIONS, parse_value
from tunnel.protocol.errors import UsageError
from tunnel.protocol.upgrade import check_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunnel.client.address import Address
    from tunnel.client.config import Values
    from tunnel.client.options import Value

TOKEN_VARIABLE = "WSTUNNEL_PY_TOKEN"  # noqa: S105  # the name of a variable, not a secret
TOKEN_LIMIT = 8192  # characters, well below what servers take as a header
_CREDENTIALS = ("token-file", "header", "client-cert", "client-key")


class Settings:
    """The settings of one connection; times are in seconds, ``None`` means not given.

    ``headers`` holds everything that is added to the upgrade request, the bearer token included: never print it.
    ``family`` is 0, or the socket family that addresses must have.
    """

    __slots__ = (
        "address", "ca_file", "client_cert", "client_key", "connect_timeout", "family", "headers", "insecure",
        "ping_interval", "ping_timeout", "proxy", "stdin_thread", "warnings",
    )  # fmt: skip

    def __init__(self, address: Address, headers: list[tuple[str, str]], options: Values, warnings: list[str]) -> None:
        def text(name: str) -> str | None:
            value = options.get(name)
            return value if isinstance(value, str) else None

        def seconds(name: str) -> float:
            value = options[name]
            return float(value) if isinstance(value, (int, float)) else 0.0

        self.address = address
        self.headers = headers
        self.warnings = warnings
        self.ca_file = text("ca-file")
        self.client_cert = text("client-cert")
        self.client_key = text("client-key")
        self.proxy = text("proxy")
        self.insecure = options["insecure"] is True
        self.stdin_thread = options["stdin-thread"] is True
        self.connect_timeout = seconds("connect-timeout")
        self.ping_interval = seconds("ping-interval")
        self.ping_timeout = seconds("ping-timeout")
        only4, only6 = options["ipv4"] is True, options["ipv6"] is True
        if only4 and only6:
            raise UsageError("--ipv4 and --ipv6 exclude each other")
        self.family = socket.AF_INET if only4 else socket.AF_INET6 if only6 else 0
        if self.client_key and not self.client_cert:
            raise UsageError("--client-key needs --client-cert")


def read_environment(environ: Mapping[str, str]) -> Values:
    """Return the options that the environment gives. Raises UsageError, which names the variable."""
    values: Values = {}
    for option in OPTIONS:
        word = environ.get(option.variable)
        if word is None:
            continue
        if option.kind == LIST:
            values[option.name] = [line for line in word.split("\n") if line.strip()]
        elif option.kind == FLAG and not word:
            values[option.name] = False
        else:
            values[option.name] = parse_value(option, word, option.variable)
    return values


def resolve(host: str, given: Values, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings for ``host``: a ws(s):// URL, a name from the config file, or what goes into the template.

    ``given`` are the options of the command line. Credentials (token, headers, client certificate) that the
    environment or the config's global options give are meant for the URLs that those build; another URL, literal on
    the command line or in a host's table, gets only those of its own table and of the command line. Raises UsageError.
    """
    environment = read_environment(environ)
    config_file = given.get("config", environment.get("config"))
    config = load_config(config_file if isinstance(config_file, str) else None)
    is_url = "://" in host
    found = config.lookup(parse_url(host).host if is_url else host)
    name, table = found if found else (host, {})

    sources: list[Values] = [given, table, environment, config.options]
    template = _first("url", sources)
    foreign = "url" not in given and (is_url or ("url" in table and "{host}" not in str(table["url"])))
    merged: Values = {option.name: option.default if option.default is not None else False for option in OPTIONS}
    for source in reversed(sources):
        usable = source if source is given or source is table or not foreign else _without_credentials(source)
        merged.update(usable)
    if is_url and "url" not in given:
        address = parse_url(host)
    else:
        port = merged["port"]
        text = template if isinstance(template, str) else DEFAULT_TEMPLATE
        address = fill_template(text, name, port if isinstance(port, int) else 0)

    warnings: list[str] = []
    headers = _headers(merged["header"])
    token = _token(given, table, environ, merged, foreign, warnings)
    if token is not None:
        if any(field.lower() == "authorization" for field, _ in headers):
            raise UsageError("both a token and an Authorization header are given")
        headers.append(("Authorization", f"Bearer {token}"))
    if merged["insecure"] is True:
        warnings.append("the server's certificate is not checked (--insecure)")
    return Settings(address, headers, merged, warnings)


def _first(name: str, sources: list[Values]) -> Value | None:
    return next((source[name] for source in sources if name in source), None)


def _without_credentials(values: Values) -> Values:
    return {name: value for name, value in values.items() if name not in _CREDENTIALS}


def _headers(lines: Value) -> list[tuple[str, str]]:
    headers = []
    for line in lines if isinstance(lines, list) else ():
        name, colon, value = line.partition(":")
        if not colon:
            raise UsageError(f"the header {name[:40]!r} has no colon; write it as 'Name: value'")
        name, value = name.strip(), value.strip()
        check_header(name, value)
        headers.append((name, value))
    return headers


def _token(
    given: Values, table: Values, environ: Mapping[str, str], merged: Values, foreign: bool, warnings: list[str]
) -> str | None:
    """Return the bearer token: from the file that is nearest, or from the environment itself."""
    near = "token-file" in given or "token-file" in table
    if not near and not foreign and TOKEN_VARIABLE in environ:
        return _checked(environ[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE)
    path = merged.get("token-file")
    if not isinstance(path, str):
        return None
    path = os.path.expanduser(path)
    try:
        with open(path, "rb") as file:
            if hasattr(os, "getuid") and os.fstat(file.fileno()).st_mode & 0o044:
                warnings.append(f"the token file {path} can be read by others; chmod 600 it")
            data = file.read(TOKEN_LIMIT * 2)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise UsageError("", cause="file", option="--token-file", path=path, reason=reason) from exc
    return _checked(data.decode("latin-1").strip(), path)


def _checked(token: str, origin: str) -> str:
    if not token:
        raise UsageError(f"{origin} is set, but holds no token")
    if len(token) > TOKEN_LIMIT or not all("!" <= c <= "~" for c in token):
        raise UsageError(f"{origin} must hold one token: a line of printable ASCII without spaces")
    return token
