"""Where the value of a setting comes from: five layers, in the same order for every command.

    option        the command line, or the arguments of a call in Python
    host entry    the host's table in the config file
    environment   WSTUNNEL_PY_…
    config        the config file's options for all hosts
    default       of the table in `options`

The first layer that has a value decides. Only headers are collected from all layers; for a name that several layers
have, the first layer decides.

Credentials are never sent to a literal URL by accident. Those from the environment and from the config file's top level
(`CREDENTIALS`, and the token's variable) are for URLs that are built from a template, and for a URL from the same
place. A literal URL from the command line or a host's table gets only the credentials of the command line and of its
own table, and none from the table of a pattern. Only `layers_for` applies this rule.
"""

from __future__ import annotations

from tunnel.client.address import host_of
from tunnel.client.config import SANDBOXES, load_config
from tunnel.client.options import ENVIRONMENT, FLAG, SEVERAL, parse_value, split_header
from tunnel.errors import UsageError, spelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunnel.client.config import Config, Values
    from tunnel.client.options import Option, Value

KEY_VARIABLE = "E2B_API_KEY"
_OF_APIS = ("api-url", "api-domain")
CREDENTIALS = ("token-file", "pty-token-file", "header", "client-cert", "client-key")
TOKEN_LIMIT = 8192  # characters, well below what servers take as a header
SECRET_FILE_LIMIT = 1 << 20  # bytes of a token or key file


class Layers:
    """The layers of one run, nearest first: ``given`` (option), ``table`` (host entry), ``environment``, ``config``.

    ``options`` are those of the command. ``prefix`` is that of the options for the connection: ``pty-`` for a terminal
    service. ``host`` is the text for {host}. ``warnings`` are lines for the user, ``notes`` lines for -v.
    """

    def __init__(
        self,
        config: Config,
        given: Values,
        table: Values,
        environment: Values,
        options: Sequence[Option],
        *,
        host: str = "",
        prefix: str = "",
    ) -> None:
        self.config_path = config.path
        self.host = host
        self.prefix = prefix
        self.warnings = list(config.warnings)
        self.notes: list[str] = []
        self.token: str | None = None  # from the environment
        self.key: str | None = None  # the API key from the environment
        self.asks_provider = False  # whether the host is a sandbox whose provider is asked
        self.is_literal = False  # whether the URL is a literal one, without {host}
        self.aliases: dict[str, str] = {}  # option → variable of another program that set it
        self.withheld: list[str] = []  # credentials that are not sent to this URL
        self._entry = next(
            (config.spellings.get(name, name) for name, each in config.hosts.items() if each is table), ""
        )
        # Hosts that can be meant instead, if the config file has no table for this one.
        self.other_hosts = [] if self._entry else [name for name in config.spellings.values() if "*" not in name]
        self._layers = [given, table, environment, config.options]
        self._options = {option.name: option for option in options}

    def first(self, name: str) -> Value | None:
        """Return the value of the first layer that has one, without the default; else None."""
        return next((layer[name] for layer in self._layers if name in layer), None)

    def value(self, name: str) -> Value:
        """Return the value of a setting: that of the first layer, else the default, else False."""
        found = self.first(name)
        if found is None:
            found = self._options[name].default
        return False if found is None else found

    def text(self, name: str) -> str | None:
        value = self.value(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> float:
        value = self.value(name)
        return float(value) if isinstance(value, (int, float)) else 0.0

    def flag(self, name: str) -> bool:
        return self.value(name) is True

    def is_given(self, name: str) -> bool:
        """Return whether the command line has the option."""
        return name in self._layers[0]

    @property
    def is_default_url(self) -> bool:
        """Whether the URL is the default template's."""
        return bool(self.host) and "://" not in self.host and self.text(f"{self.prefix}url") is None

    @property
    def origins(self) -> dict[str, str]:
        """Setting → where its value comes from; without settings from the command line and defaults."""
        origins = {option.setting: self.origin(name) for name, option in self._options.items()}
        return {setting: origin for setting, origin in origins.items() if origin is not None}

    def origin(self, name: str) -> str | None:
        """Return where a setting's value comes from; None for the command line and the default."""
        return self._origin(name, next((at for at, layer in enumerate(self._layers) if name in layer), None))

    def _origin(self, name: str, at: int | None) -> str | None:
        key = "headers" if name == "header" else name
        if at == 1:
            return f"{self.config_path}: hosts.{self._entry}: {key}"
        if at == 2:
            return self.aliases.get(name) or self._options[name].variable
        return f"{self.config_path}: {key}" if at == 3 else None

    # ---- credentials

    def withhold(self) -> None:
        """Remove the credentials of the environment, its token included, and of the config file's top level."""
        names = [name for name in CREDENTIALS if any(name in layer for layer in self._layers[2:])]
        self._layers[2:] = [
            {name: value for name, value in layer.items() if name not in names} for layer in self._layers[2:]
        ]
        if self.token is not None:
            names.append("token")
            self.token = None
        self.withheld = names
        if names:
            where = "the environment or the config file's top level"
            self.notes.append(f"not sent to a literal URL: {', '.join(names)} from {where}")

    def drop_token(self) -> None:
        """Remove the token of the config file and the environment, as the caller gives another."""
        self.token = None
        name = f"{self.prefix}token-file"
        self._layers[1:] = [{key: value for key, value in layer.items() if key != name} for layer in self._layers[1:]]

    def withhold_of_table(self) -> None:
        """Remove the credentials of the host entry, which is the table of a pattern."""
        self._layers[1] = {name: value for name, value in self._layers[1].items() if name not in CREDENTIALS}

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers of all layers; for a name that several layers have, only the first layer's."""
        return [field for _, field in self._headers()]

    def _headers(self) -> list[tuple[int, tuple[str, str]]]:
        """Return the headers of all layers as (number of the layer, header)."""
        headers: list[tuple[int, tuple[str, str]]] = []
        for at, layer in enumerate(self._layers):
            taken = {field[0].lower() for _, field in headers}
            lines = layer.get("header")
            fields = map(split_header, lines if isinstance(lines, list) else ())
            headers += [(at, field) for field in fields if field[0].lower() not in taken]
        return headers

    def credentials(self) -> dict[str, str]:
        """Return the credentials for this host: ``token`` and names of headers → where each comes from, in words."""
        name = f"{self.prefix}token-file"
        sent = {}
        if self._has_own_token:
            sent["token"] = f"the token from {token_variable(self.prefix)}"
        elif (path := self.first(name)) is not None:
            sent["token"] = f"the token in {path} ({self.origin(name) or spelled(self._options[name].setting)})"
        for at, (field, _) in self._headers():
            sent[field.lower()] = f"the header {field} ({self._origin('header', at) or spelled('header')})"
        return sent

    def bearer(self) -> str | None:
        """Return the token: the one in the environment, or that in the file that the first layer names.

        Warns if other users can read the file. Raises UsageError for a file without a token.
        """
        name = f"{self.prefix}token-file"
        if self.token is not None and self._has_own_token:
            return _checked(self.token.strip(), token_variable(self.prefix), None)
        return self._read_secret(name)

    def _read_secret(self, name: str) -> str | None:
        """Return the secret in the file that the option ``name`` names; None without the option. Raises UsageError."""
        path = self.first(name)
        if path is None:
            return None
        setting, origin = self._options[name].setting, self.origin(name)
        from tunnel.net.files import LENIENT, exposure_warning, read_regular, text_of

        try:
            data, info = read_regular(str(path), SECRET_FILE_LIMIT, guard=LENIENT)
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise UsageError(code="file", setting=setting, origin=origin, path=path, reason=reason) from exc
        self.warnings += exposure_warning(str(path), info, f"the {self._options[name].flag.replace('-', ' ')} ")
        try:
            text = text_of(data)
        except UnicodeDecodeError:
            text = data.decode("latin-1")  # not a token: refused below
        what = "key" if name == "api-key-file" else "token"
        return _checked(text.strip(), f"{origin or spelled(setting)}: {path}", setting, what)

    # ---- the provider

    def is_sandbox(self, host: str) -> bool:
        """Return whether ``host`` is a sandbox of E2B if no provider is set.

        It is if no URL is set, or if its name says so and neither the command line nor its table has a URL.
        """
        url = f"{self.prefix}url"
        if "://" in host or any(url in layer for layer in self._layers[:2]):
            return False
        return self.first(url) is None or host.lower().endswith(SANDBOXES[1:])

    def provider(self, *, by_default: bool) -> str | None:
        """Return the provider of the sandbox, None if there is none; ``by_default``: E2B, if there is an API key."""
        chosen = self.text("provider")
        if chosen is not None:
            return None if chosen == "none" else chosen
        has_key = self.key is not None or self.first("api-key-file") is not None
        return "e2b" if by_default and has_key else None

    def api_key(self) -> tuple[str, str]:
        """Return the key of the provider's API, and where it comes from, in words.

        A key from the environment or the config file's top level is not sent to an API that the command line or a
        host's table names. Raises UsageError.
        """
        name = "api-key-file"
        is_near = any(name in layer for layer in self._layers[:2])
        foreign = next((each for each in _OF_APIS if any(each in layer for layer in self._layers[:2])), None)
        if foreign is not None and not is_near:
            setting, origin = self._options[foreign].setting, self.origin(foreign)
            problem = "the API key from the environment or the config file's top level is not sent to this API"
            raise UsageError(f"{problem}: give {spelled('api_key_file')} as well", setting=setting, origin=origin)
        if self.key is not None and not is_near:
            return _checked(self.key.strip(), KEY_VARIABLE, None, "key"), KEY_VARIABLE
        key = self._read_secret(name)
        if key is None:
            problem = f"the provider requires an API key: {KEY_VARIABLE} or {spelled('api_key_file')}"
            raise UsageError(problem)
        return key, str(self.first(name))

    @property
    def _has_own_token(self) -> bool:
        """Whether the token in the environment counts: no earlier layer names a file."""
        return self.token is not None and not any(f"{self.prefix}token-file" in layer for layer in self._layers[:2])

    def warn_of_tls(self) -> None:
        """Warn if the server's certificate is not checked, or if other users can read the client's key."""
        self._warn_of_key()
        if self.flag("insecure"):
            self.warnings.append(f"the server's certificate is not checked ({spelled('insecure')})")

    def _warn_of_key(self) -> None:
        certificate, key = self.text("client-cert"), self.text("client-key")
        if certificate is None:
            return  # without a certificate, no key is used
        from tunnel.client.client_key import key_path
        from tunnel.net.files import exposure_warning, read_regular

        try:
            path = key_path(certificate, key)
            if path is None:
                return
            data, info = read_regular(path, SECRET_FILE_LIMIT)
        except OSError:
            return  # the error is reported where the file is used
        if b"PRIVATE KEY-----" in data:
            self.warnings += exposure_warning(path, info, "the key in ")


def layers_for(
    host: str, given: Values, environ: Mapping[str, str], options: Sequence[Option], *, prefix: str = ""
) -> Layers:
    """Return the layers for ``host``, with only the credentials that its URL may get. Raises UsageError.

    ``given`` are the options of the command line, ``environ`` is the environment.
    """
    url = f"{prefix}url"
    environment = read_environment(environ, options)
    config = configured(given, environment)
    literal = _literal_of(host, given.get(url))
    name, table, is_foreign = _table_of(config, host, literal)
    layers = Layers(config, given, table, environment, options, host=name, prefix=prefix)
    layers.token = environ.get(token_variable(prefix))
    layers.key = environ.get(KEY_VARIABLE) or None
    if environment:
        layers.aliases = used_aliases(environ, options)
    if literal is not None or (url not in given and url in table and _is_literal(table[url])):
        layers.is_literal = True
        layers.withhold()
    if is_foreign:
        layers.withhold_of_table()
    return layers


def bearer_field(token: str) -> tuple[str, str]:
    """Return the header with a bearer token (RFC 6750 section 2.1)."""
    return "Authorization", f"Bearer {token}"


def configured(given: Values, environment: Values) -> Config:
    """Return the config file that the command line or the environment names, else the default. Raises UsageError."""
    path = given.get("config", environment.get("config"))
    return load_config(str(path) if path is not None else None)


def read_environment(environ: Mapping[str, str], options: Sequence[Option]) -> Values:
    """Return the ``options`` that are set in the environment. Raises UsageError, which names the variable."""
    values: Values = {}
    for option in options:
        word = environ.get(option.variable)
        name = option.variable
        if word is None:
            if not option.alias or not (word := environ.get(option.alias)):
                continue
            name = option.alias
        if option.kind in SEVERAL:
            lines = [line for line in word.split("\n") if line.strip()]
            values[option.name] = [str(parse_value(option, line, name)) for line in lines]
        elif option.kind == FLAG and not word:
            values[option.name] = False
        else:
            values[option.name] = parse_value(option, word, name)
    return values


def used_aliases(environ: Mapping[str, str], options: Sequence[Option]) -> dict[str, str]:
    """Return option → the variable of another program by which it is set, if it is set in the environment at all."""
    return {each.name: each.alias for each in options if each.alias and each.variable not in environ}


def token_variable(prefix: str) -> str:
    """Return the name of the environment variable that holds a token."""
    return f"{ENVIRONMENT}{prefix.upper().replace('-', '_')}TOKEN"


def _is_literal(url: object) -> bool:
    """Return whether a URL is a literal one, without {host}."""
    return "{host}" not in str(url)


def _literal_of(host: str, url: object) -> str | None:
    """Return the literal URL of a command line, from the option ``url`` (None: not given) or ``host``; else None."""
    if url is not None:
        return str(url) if _is_literal(url) else None
    return host if "://" in host else None


def _table_of(config: Config, host: str, literal: str | None) -> tuple[str, Values, bool]:
    """Return the text for {host}, its table in the config file, and whether that table's credentials are withheld.

    The table of a pattern is for URLs that are built from host names. A ``literal`` URL gets no credentials from it.
    """
    found = config.lookup(host) if "://" not in host else None
    name, table = found if found else (host, {})
    if literal is None or host.lower() in config.hosts:
        return name, table, False
    url_host = host_of(literal.replace("{port}", "1")).lower().removesuffix(".")
    if url_host in config.hosts:
        return name, config.hosts[url_host], False
    return name, table, True


def _checked(token: str, origin: str, setting: str | None, what: str = "token") -> str:
    if not token:
        raise UsageError(f"there is no {what} in it", setting=setting, origin=origin)
    if len(token) > TOKEN_LIMIT or not all("!" <= c <= "~" for c in token):
        problem = f"it must hold one {what}: a line of printable ASCII without spaces"
        raise UsageError(problem, setting=setting, origin=origin)
    return token
