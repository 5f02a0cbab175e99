"""Where the value of a setting comes from: five layers, in the same order for every command.

    option        the command line, or the arguments of a call in Python
    host entry    the host's table in the config file
    environment   WSTUNNEL_PY_…
    config        the config file's options for all hosts
    default       of the table in `options`

The first layer that has a value decides. Only headers are collected from all layers, and of those with the same name
the first layer's count.

Credentials never go to a literal URL by accident. The environment and the options for all hosts give credentials
(`CREDENTIALS` and the token's variable) for URLs that are built from a template, and for the URL that they name
themselves. A URL that stands on the command line or in a host's table as it is gets only the credentials of its own
table and of the command line; a table for a pattern of names gives it none. That rule stands in `layers_for` alone.
"""

from __future__ import annotations

from tunnel.client.address import host_of
from tunnel.client.config import load_config
from tunnel.client.options import ENVIRONMENT, FLAG, SEVERAL, parse_value, split_header
from tunnel.errors import UsageError, spelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunnel.client.config import Config, Values
    from tunnel.client.options import Option, Value

CREDENTIALS = ("token-file", "pty-token-file", "header", "client-cert", "client-key")
TOKEN_LIMIT = 8192  # characters, well below what servers take as a header
SECRET_FILE_LIMIT = 1 << 20  # bytes of a token or key file


class Layers:
    """The layers of one run, nearest first: ``given`` (option), ``table`` (host entry), ``environment``, ``config``.

    ``options`` are those of the command. ``prefix`` is that of the options that say where to connect to: ``pty-`` for
    a terminal service. ``host`` is what becomes {host}. ``warnings`` are lines for the user, ``notes`` lines for -v.
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
        self.token: str | None = None  # of the environment
        self.withheld: list[str] = []  # credentials that are not for this URL
        self._entry = next(
            (config.spellings.get(name, name) for name, each in config.hosts.items() if each is table), ""
        )
        self._layers = [given, table, environment, config.options]
        self._options = {option.name: option for option in options}

    def first(self, name: str) -> Value | None:
        """Return the value of the nearest layer above the default, None if there is none."""
        return next((layer[name] for layer in self._layers if name in layer), None)

    def value(self, name: str) -> Value:
        """Return the value of a setting; False if no layer has one and there is no default."""
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
        """Return whether the nearest layer, the command line, has the option."""
        return name in self._layers[0]

    @property
    def is_default_url(self) -> bool:
        """Whether the host went into the default template."""
        return bool(self.host) and "://" not in self.host and self.text(f"{self.prefix}url") is None

    @property
    def origins(self) -> dict[str, str]:
        """What whoever gave a setting calls it; settings of the command line and defaults are left out."""
        origins = {option.setting: self.origin(name) for name, option in self._options.items()}
        return {setting: origin for setting, origin in origins.items() if origin is not None}

    def origin(self, name: str) -> str | None:
        """Return what whoever gave a setting calls it; None for one of the command line, or that nobody gave."""
        return self._origin(name, next((at for at, layer in enumerate(self._layers) if name in layer), None))

    def _origin(self, name: str, at: int | None) -> str | None:
        key = "headers" if name == "header" else name
        if at == 1:
            return f"{self.config_path}: hosts.{self._entry}: {key}"
        if at == 2:
            return self._options[name].variable
        return f"{self.config_path}: {key}" if at == 3 else None

    # ---- credentials

    def withhold(self) -> None:
        """Take the credentials out of the environment, its token included, and of the options for all hosts."""
        names = [name for name in CREDENTIALS if any(name in layer for layer in self._layers[2:])]
        self._layers[2:] = [
            {name: value for name, value in layer.items() if name not in names} for layer in self._layers[2:]
        ]
        if self.token is not None:
            names.append("token")
            self.token = None
        self.withheld = names
        if names:
            self.notes.append(f"not sent to a literal URL: {', '.join(names)} of the environment or of all hosts")

    def withhold_of_table(self) -> None:
        """Take the credentials out of the host entry, which is one for a pattern of names."""
        self._layers[1] = {name: value for name, value in self._layers[1].items() if name not in CREDENTIALS}

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers of all layers; those of the same name only from the nearest layer that has it."""
        return [field for _, field in self._headers()]

    def _headers(self) -> list[tuple[int, tuple[str, str]]]:
        """Return the headers of all layers, each with the number of its layer."""
        headers: list[tuple[int, tuple[str, str]]] = []
        for at, layer in enumerate(self._layers):
            taken = {field[0].lower() for _, field in headers}
            lines = layer.get("header")
            fields = map(split_header, lines if isinstance(lines, list) else ())
            headers += [(at, field) for field in fields if field[0].lower() not in taken]
        return headers

    def credentials(self) -> dict[str, str]:
        """Return what is sent for this host: ``token`` and the names of headers, each with who gave it in words."""
        name = f"{self.prefix}token-file"
        sent = {}
        if self._has_own_token:
            sent["token"] = f"the token of {token_variable(self.prefix)}"
        elif (path := self.first(name)) is not None:
            sent["token"] = f"the token in {path} ({self.origin(name) or spelled(self._options[name].setting)})"
        for at, (field, _) in self._headers():
            sent[field.lower()] = f"the header {field} ({self._origin('header', at) or spelled('header')})"
        return sent

    def bearer(self) -> str | None:
        """Return the token: of the environment itself, or from the file that the nearest layer names.

        A file that others can read is warned of. Raises UsageError for what holds no token.
        """
        name = f"{self.prefix}token-file"
        if self.token is not None and self._has_own_token:
            return _checked(self.token.strip(), token_variable(self.prefix), None)
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
        self.warnings += exposure_warning(str(path), info, "the token file ")
        try:
            text = text_of(data)
        except UnicodeDecodeError:
            text = data.decode("latin-1")  # no token either
        return _checked(text.strip(), f"{origin or spelled(setting)}: {path}", setting)

    @property
    def _has_own_token(self) -> bool:
        """Whether the token is that of the environment itself: a file that is named nearer goes before it."""
        return self.token is not None and not any(f"{self.prefix}token-file" in layer for layer in self._layers[:2])

    def warn_of_tls(self) -> None:
        """Warn of a certificate that is not checked, and of a client's key that others can read."""
        self._warn_of_key()
        if self.flag("insecure"):
            self.warnings.append(f"the server's certificate is not checked ({spelled('insecure')})")

    def _warn_of_key(self) -> None:
        certificate, key = self.text("client-cert"), self.text("client-key")
        if certificate is None:
            return  # without one no key is used
        from tunnel.client.client_key import key_path
        from tunnel.net.files import exposure_warning, read_regular

        try:
            path = key_path(certificate, key)
            if path is None:
                return
            data, info = read_regular(path, SECRET_FILE_LIMIT)
        except OSError:
            return  # whoever uses it tells what is wrong with it
        if b"PRIVATE KEY-----" in data:
            self.warnings += exposure_warning(path, info, "the key in ")


def layers_for(
    host: str, given: Values, environ: Mapping[str, str], options: Sequence[Option], *, prefix: str = ""
) -> Layers:
    """Return the layers for ``host``, with the credentials that its URL may get. Raises UsageError.

    ``given`` are the options of the command line, ``environ`` is the environment.
    """
    url = f"{prefix}url"
    environment = read_environment(environ, options)
    config = configured(given, environment)
    literal = _literal_of(host, given.get(url))
    name, table, is_foreign = _table_of(config, host, literal)
    layers = Layers(config, given, table, environment, options, host=name, prefix=prefix)
    layers.token = environ.get(token_variable(prefix))
    if literal is not None or (url not in given and url in table and _is_literal(table[url])):
        layers.withhold()
    if is_foreign:
        layers.withhold_of_table()
    return layers


def bearer_field(token: str) -> tuple[str, str]:
    """Return the header that shows a bearer token to a bridge (RFC 6750)."""
    return "Authorization", f"Bearer {token}"


def configured(given: Values, environment: Values) -> Config:
    """Return the config file that the command line or the environment names, else the usual one. Raises UsageError."""
    path = given.get("config", environment.get("config"))
    return load_config(str(path) if path is not None else None)


def read_environment(environ: Mapping[str, str], options: Sequence[Option]) -> Values:
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


def token_variable(prefix: str) -> str:
    """Return the environment variable that holds a token itself."""
    return f"{ENVIRONMENT}{prefix.upper().replace('-', '_')}TOKEN"


def _is_literal(url: object) -> bool:
    """Return whether a URL is one for all hosts, in which no name of a host goes."""
    return "{host}" not in str(url)


def _literal_of(host: str, url: object) -> str | None:
    """Return the literal URL that a command line names, by the option ``url`` (None: not given) or as ``host``."""
    if url is not None:
        return str(url) if _is_literal(url) else None
    return host if "://" in host else None


def _table_of(config: Config, host: str, literal: str | None) -> tuple[str, Values, bool]:
    """Return what becomes {host}, the table of the config file for it, and whether its credentials are not for the URL.

    What is said of a pattern of names is meant for the URLs that are built from them, not for any ``literal`` URL that
    comes along: of a pattern's table that URL gets no credentials.
    """
    found = config.lookup(host) if "://" not in host else None
    name, table = found if found else (host, {})
    if literal is None or host.lower() in config.hosts:
        return name, table, False
    url_host = host_of(literal.replace("{port}", "1")).lower().removesuffix(".")
    if url_host in config.hosts:
        return name, config.hosts[url_host], False
    return name, table, True


def _checked(token: str, origin: str, setting: str | None) -> str:
    if not token:
        raise UsageError("there is no token in it", setting=setting, origin=origin)
    if len(token) > TOKEN_LIMIT or not all("!" <= c <= "~" for c in token):
        problem = "it must hold one token: a line of printable ASCII without spaces"
        raise UsageError(problem, setting=setting, origin=origin)
    return token
