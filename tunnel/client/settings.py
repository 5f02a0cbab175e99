"""What one tunnel needs to know, resolved from the command line, the config file and the environment.

The most specific place wins, option by option: the command line, the host's own table in the config file, the
environment, the top of the config file, the default.
"""

from __future__ import annotations

import os

from tunnel.client.address import DEFAULT_TEMPLATE, fill_template, parse_url
from tunnel.client.config import load
from tunnel.client.options import BY_NAME, OPTIONS, Source, read_arguments, read_environment
from tunnel.client.proxy import choose_proxy
from tunnel.protocol.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tunnel.client.address import Address
    from tunnel.client.proxy import Proxy

TOKEN_FILE_LIMIT = 1 << 16  # bytes
# Of these the value in Settings is not the option's own.
_RESOLVED_APART = ("url", "header", "token-file", "proxy", "config")


class Settings:
    """Resolved options: an attribute for each option, and what several of them make together.

    ``url`` is where to dial and ``proxy`` by which way, ``headers`` are the fields to add to the handshake (the
    token's among them), ``warnings`` are lines to show to the user, ``notes`` lines for ``-v``.
    """

    __slots__ = (
        "ca_file",
        "client_cert",
        "client_key",
        "connect_timeout",
        "headers",
        "insecure",
        "ipv4",
        "ipv6",
        "log_file",
        "notes",
        "ping_interval",
        "ping_timeout",
        "port",
        "proxy",
        "quiet",
        "stdin_thread",
        "url",
        "verbose",
        "warnings",
    )
    ca_file: str | None
    client_cert: str | None
    client_key: str | None
    connect_timeout: float
    insecure: bool
    ipv4: bool
    ipv6: bool
    log_file: str | None
    ping_interval: float
    ping_timeout: float
    port: int
    quiet: bool
    stdin_thread: bool
    verbose: bool

    def __init__(
        self,
        url: Address,
        *,
        headers: Sequence[tuple[str, str]] = (),
        proxy: Proxy | None = None,
        **values: Any,
    ) -> None:
        self.url = url
        self.headers = tuple(headers)
        self.proxy = proxy
        self.warnings: list[str] = []
        self.notes: list[str] = []
        for option in OPTIONS:
            if option.name not in _RESOLVED_APART:
                setattr(self, option.attribute, values.pop(option.attribute, option.default))
        if values:
            raise TypeError(f"no such settings: {', '.join(values)}")
        if self.client_key and not self.client_cert:
            raise UsageError("--client-key needs --client-cert")
        if self.ipv4 and self.ipv6:
            raise UsageError("--ipv4 and --ipv6 exclude each other")


def resolve(arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings for the command line ``arguments`` (without the program's name).

    ``environ`` is ``os.environ`` if None. Raises UsageError.
    """
    environ = os.environ if environ is None else environ
    given, operands = read_arguments(arguments)
    if len(operands) != 1:
        problem = "HOST is missing" if not operands else f"one HOST is wanted, not {len(operands)}: {' '.join(operands)}"
        raise UsageError(f"{problem} (see wstunnel-py --help)")
    environment = read_environment(environ)
    place = given if "config" in given.values else environment
    config = load(place.values.get("config"), place.origins.get("config", "config file"), environ)
    sources = _Sources(given, environment)
    sources.resolve_host(operands[0], config)

    values = {}
    for option in OPTIONS:
        source = sources.of(option.name)
        if source and option.name not in _RESOLVED_APART:
            values[option.attribute] = source.values[option.name]
    proxied = sources.of("proxy")
    url = sources.url
    proxy = proxied.values["proxy"] if proxied else choose_proxy(url, environ)
    settings = Settings(url, proxy=proxy, **values)
    sources.add_headers(settings)
    if settings.insecure and url.secure:
        settings.warnings.append(f"the certificate of {url.host} is not verified (--insecure)")
    return settings


class _Sources:
    """The places that options come from, the most specific first, and the URL that they make together."""

    url: Address

    def __init__(self, given: Source, environment: Source) -> None:
        self.given = given
        self.environment = environment
        self.entry: Source | None = None
        self.all = [given, environment]
        self._url_is_template = True
        self._url_source: Source | None = None

    def of(self, name: str) -> Source | None:
        """Return the place that has the say on the option ``name``, None if no place says anything."""
        return next((source for source in self.all if name in source.values), None)

    def resolve_host(self, host: str, config: Config | None) -> None:
        """Find the table for ``host`` in the config file, and the URL."""
        literal = parse_url(host) if "://" in host else None
        name = host
        if config:
            self.entry, name = (config.entry_of_url(literal), host) if literal else config.entry_of_host(host)
            self.all = [self.given, *([self.entry] if self.entry else []), self.environment, config.top]
        if literal:
            if "url" in self.given.values:
                raise UsageError("--url and a URL in the place of HOST exclude each other")
            self.url, self._url_is_template = literal, False
            return
        port = self.of("port")
        source = self._url_source = self.of("url")
        template = source.values["url"] if source else DEFAULT_TEMPLATE
        self._url_is_template = "{host}" in template
        self.url = fill_template(template, name, port.values["port"] if port else int(BY_NAME["port"].default or 0))

    def add_headers(self, settings: Settings) -> None:
        """Collect the headers to send; of the same name only those of the most specific place.

        What is set for all tunnels goes to hosts that the user's own template leads to. A URL that stands for itself
        may come from anywhere (ssh passes on what a repository's URL says), so it gets no more than what was said
        beside it, on the command line, or in its own table.
        """
        taken: set[str] = set()
        collected: list[tuple[str, str]] = []
        for source in self.all:
            beside = source in (self.given, self.entry, self._url_source)
            if not (beside or self._url_is_template):
                if source.headers or "token" in source.values or "token-file" in source.values:
                    settings.notes.append(f"token and headers of {source.title} are not sent to a literal URL")
                continue
            fields = [field for field in source.headers if field[0].lower() not in taken]
            if "authorization" not in taken and (token := _token(source, settings)) is not None:
                if any(name.lower() == "authorization" for name, _ in fields):
                    raise UsageError(f"{source.title} gives both a token and an Authorization header")
                fields.append(("Authorization", f"Bearer {token}"))
            taken.update(name.lower() for name, _ in fields)
            collected += fields
        settings.headers = tuple(collected)


def _token(source: Source, settings: Settings) -> str | None:
    """Return the token of one place, None if it names none. Raises UsageError when there should be one and is not."""
    origin = source.origins.get("token", "")
    token: str | None = source.values.get("token")
    if path := source.values.get("token-file"):
        if token is not None:
            raise UsageError(f"{origin} and {source.origins['token-file']} exclude each other")
        origin = f"{source.origins['token-file']}: {path}"
        token = _read_token(path, source.origins["token-file"], settings)
    if token is None:
        return None
    if not token or not all("!" <= c <= "~" for c in token):
        raise UsageError(f"{origin}: no token, or one with spaces or special characters in it")
    return token


def _read_token(path: str, origin: str, settings: Settings) -> str:
    """Return the first line of a token file that is neither empty nor a # comment; empty if there is none."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(TOKEN_FILE_LIMIT).decode("utf-8", "replace")
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise UsageError("", cause="file", option=origin, path=path, reason=reason) from exc
    if os.name == "posix" and mode & 0o044:
        settings.warnings.append(f"{path} can be read by other users; chmod 600 keeps the token to yourself")
    lines = (line.strip() for line in content.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


if TYPE_CHECKING:
    from tunnel.client.config import Config
