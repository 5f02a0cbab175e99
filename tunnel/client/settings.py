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
from tunnel.client.options import ENVIRONMENT, FLAG, OPTIONS, SEVERAL, parse_value, split_header
from tunnel.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from tunnel.client.address import Address
    from tunnel.client.config import Config, Values
    from tunnel.client.options import Option, Value

    class TLSSettings(Protocol):
        """What of the settings is about TLS: paths of PEM files, and whether to trust anybody."""

        @property
        def ca_file(self) -> str | None: ...
        @property
        def client_cert(self) -> str | None: ...
        @property
        def client_key(self) -> str | None: ...
        @property
        def insecure(self) -> bool: ...


TOKEN_VARIABLE = "WSTUNNEL_PY_TOKEN"  # noqa: S105  # the name of a variable, not a secret
TOKEN_LIMIT = 8192  # characters, well below what servers take as a header
TOKEN_FILE_LIMIT = KEY_FILE_LIMIT = 1 << 20  # bytes
_CREDENTIALS = ("token-file", "pty-token-file", "header", "client-cert", "client-key")


class Settings:
    """The settings of one connection; times are in seconds, ``None`` means not given.

    ``headers`` holds everything that is added to the upgrade request, the bearer token included: never print it.
    ``warnings`` are lines for the user, ``notes`` lines for ``-v``.
    ``family`` is 0, or the socket family that addresses must have.
    """

    __slots__ = (
        "address", "ca_file", "client_cert", "client_key", "connect_timeout", "family", "headers", "insecure",
        "log_file", "max_message", "notes", "ping_interval", "ping_timeout", "proxy", "quiet", "reconnect_for",
        "resume", "stdin_thread", "verbose", "warnings",
    )  # fmt: skip

    def __init__(self, address: Address, headers: list[tuple[str, str]], options: Values, warnings: list[str]) -> None:
        def text(name: str) -> str | None:
            value = options.get(name)
            return value if isinstance(value, str) else None

        def number(name: str) -> float:
            value = options[name]
            return float(value) if isinstance(value, (int, float)) else 0.0

        self.address = address
        self.headers = headers
        self.warnings = warnings
        self.notes: list[str] = []
        self.ca_file = text("ca-file")
        self.client_cert = text("client-cert")
        self.client_key = text("client-key")
        self.proxy = text("proxy")
        self.log_file = text("log-file")
        self.verbose = options["verbose"] is True
        self.quiet = options["quiet"] is True
        self.insecure = options["insecure"] is True
        self.resume = options["no-resume"] is not True
        self.reconnect_for = number("reconnect-for")
        self.max_message = int(number("max-message"))
        self.stdin_thread = options["stdin-thread"] is True
        self.connect_timeout = number("connect-timeout")
        self.ping_interval = number("ping-interval")
        self.ping_timeout = number("ping-timeout")
        only4, only6 = options["ipv4"] is True, options["ipv6"] is True
        if only4 and only6:
            raise UsageError("--ipv4 and --ipv6 exclude each other")
        self.family = socket.AF_INET if only4 else socket.AF_INET6 if only6 else 0
        if self.client_key and not self.client_cert:
            raise UsageError("--client-key needs --client-cert")


def read_environment(environ: Mapping[str, str], options: Sequence[Option] = OPTIONS) -> Values:
    """Return the ``options`` that the environment gives. Raises UsageError, which names the variable."""
    values: Values = {}
    for option in options:
        word = environ.get(option.variable)
        if word is None:
            continue
        if option.kind in SEVERAL:
            lines = [line for line in word.split("\n") if line.strip()]
            values[option.name] = [str(parse_value(option, line, option.variable)) for line in lines]
        elif option.kind == FLAG and not word:
            values[option.name] = False
        else:
            values[option.name] = parse_value(option, word, option.variable)
    return values


def resolve(host: str, given: Values, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings for ``host``: a ws(s):// URL, a name from the config file, or what goes into the template.

    ``given`` are the options of the command line. Credentials (token, headers, client certificate) that the
    environment or the config's global options give are meant for the URLs that a template makes, and for those that
    stand there themselves; another URL, literal on the command line (as HOST or in --url) or in a host's table, gets
    only those of its own table and of the command line. Raises UsageError.
    """
    environment = read_environment(environ)
    config_file = given.get("config", environment.get("config"))
    config = load_config(config_file if isinstance(config_file, str) else None)
    literal = literal_of(host, given.get("url"))
    name, table = table_of(config, host, None if literal is None else _host_of(literal))
    sources: list[Values] = [given, table, environment, config.options]
    template = first("url", sources)
    foreign = literal is not None or ("url" not in given and "url" in table and is_literal(table["url"]))
    withheld = withhold(sources) if foreign else []
    withheld += ["token"] if foreign and TOKEN_VARIABLE in environ else []
    merged: Values = {option.name: option.default if option.default is not None else False for option in OPTIONS}
    for source in reversed(sources):
        merged.update(source)
    if "://" in host and "url" not in given:
        address = parse_url(host)
    else:
        port = merged["port"]
        text = template if isinstance(template, str) else DEFAULT_TEMPLATE
        address = fill_template(text, name, port if isinstance(port, int) else 0)

    warnings = list(config.warnings)
    headers = headers_of(sources)
    token = token_of(sources, None if foreign else environ.get(TOKEN_VARIABLE), config.path, warnings)
    if token is not None:
        if any(field.lower() == "authorization" for field, _ in headers):
            raise UsageError("both a token and an Authorization header are given")
        headers.append(("Authorization", f"Bearer {token}"))
    if headers or "?" in address.resource:
        from tunnel.client.credentials import keep_header, keep_query

        keep_query(address.resource)
        for field, value in headers:
            keep_header(field, value, str(address))
    warnings += exposed_key(merged)
    if merged["insecure"] is True:
        warnings.append("the server's certificate is not checked (--insecure)")
    settings = Settings(address, headers, merged, warnings)
    if withheld:
        settings.notes.append(withheld_note(withheld))
    return settings


def is_literal(url: object) -> bool:
    """Return whether a URL is one for all hosts, in which no name of a host goes."""
    return "{host}" not in str(url)


def literal_of(host: str, url: object) -> str | None:
    """Return the literal URL that a command line names, by the option ``url`` (None: not given) or as ``host``."""
    if url is not None:
        return str(url) if is_literal(url) else None
    return host if "://" in host else None


def table_of(config: Config, host: str, url_host: str | None) -> tuple[str, Values]:
    """Return what becomes {host}, and the table of the config file for it.

    ``url_host`` is the host of a literal URL, None if there is none. What is said about a pattern of names is meant for
    the URLs that are built from them, not for any URL that comes along: of a pattern's table that gets no credentials.
    """
    found = config.lookup(host) if "://" not in host else None
    name, table = found if found else (host, {})
    if url_host is None or host.lower() in config.hosts:
        return name, table
    url_host = url_host.lower().removesuffix(".")
    if url_host in config.hosts:
        return name, config.hosts[url_host]
    return name, {option: value for option, value in table.items() if option not in _CREDENTIALS}


def _host_of(url: str) -> str:
    try:
        return parse_url(url.replace("{port}", "1")).host
    except UsageError:
        return ""  # what is wrong with it is told by who uses it


def first(name: str, sources: list[Values]) -> Value | None:
    """Return the value that the nearest of the ``sources`` has for an option."""
    return next((source[name] for source in sources if name in source), None)


def withhold(sources: list[Values]) -> list[str]:
    """Take the credentials out of the environment and of the config's global options; return the names of those."""
    withheld = [name for name in _CREDENTIALS if any(name in source for source in sources[2:])]
    sources[2:] = [{name: value for name, value in source.items() if name not in withheld} for source in sources[2:]]
    return withheld


def withheld_note(names: list[str]) -> str:
    """Return what ``-v`` tells of credentials that are not sent."""
    return f"not sent to a literal URL: {', '.join(names)} of the environment or of all hosts"


def headers_of(sources: list[Values]) -> list[tuple[str, str]]:
    """Return the headers of all ``sources``; those of the same name only from the nearest source that has it."""
    headers: list[tuple[str, str]] = []
    for source in sources:
        taken = {name.lower() for name, _ in headers}
        lines = source.get("header")
        fields = map(split_header, lines if isinstance(lines, list) else ())
        headers += [field for field in fields if field[0].lower() not in taken]
    return headers


def token_of(
    sources: list[Values], from_environment: str | None, config: str, warnings: list[str], prefix: str = ""
) -> str | None:
    """Return the token: from the file that the nearest source names, or from the environment itself.

    ``prefix`` is that of the option's name: ``pty-`` for the token of a terminal service.
    """
    name, variable = f"{prefix}token-file", f"{ENVIRONMENT}{prefix.upper().replace('-', '_')}TOKEN"
    origins = ("--token-file", f"{config}: {name}", f"{variable}_FILE", f"{config}: {name}")
    nearest = next((at for at, source in enumerate(sources) if name in source), len(sources))
    if from_environment is not None and nearest > 1:
        return _checked(from_environment.strip(), variable)
    if nearest == len(sources):
        return None
    path, origin = str(sources[nearest][name]), origins[nearest]
    from tunnel.net.files import LENIENT, read_regular, text_of

    try:
        data, info = read_regular(path, TOKEN_FILE_LIMIT, guard=LENIENT)
        if hasattr(os, "getuid") and info.st_mode & 0o044:
            warnings.append(f"the token file {path} can be read by others; chmod 600 it")
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise UsageError("", cause="file", option=origin, path=path, reason=reason) from exc
    try:
        text = text_of(data)
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # no token either
    return _checked(text.strip(), f"{origin}: {path}")


def exposed_key(options: Values) -> list[str]:
    """Return a warning if others can read the key of the client certificate.

    A file that cannot be used is told of by who uses it.
    """
    path = options.get("client-key") or options.get("client-cert")
    if not isinstance(path, str) or not hasattr(os, "getuid"):
        return []
    from tunnel.net.files import read_regular

    try:
        data, info = read_regular(path, KEY_FILE_LIMIT)
    except OSError:
        return []
    if not info.st_mode & 0o044 or b"PRIVATE KEY-----" not in data:
        return []
    return [f"the key in {path} can be read by others; chmod 600 it"]


def _checked(token: str, origin: str) -> str:
    if not token:
        raise UsageError(f"{origin} holds no token")
    if len(token) > TOKEN_LIMIT or not all("!" <= c <= "~" for c in token):
        raise UsageError(f"{origin} must hold one token: a line of printable ASCII without spaces")
    return token
