"""The client's config file: global options, and tables for named hosts and patterns.

    token-file = "~/.config/wstunnel-py/token"

    [hosts.build]                 # wstunnel-py build
    url = "wss://build.example.com/ssh"

    [hosts."*.e2b"]               # wstunnel-py abc123.e2b: the part for the * becomes {host}
    headers = { e2b-traffic-access-token = "…" }

``tomllib`` is imported only if the file exists. The pattern ``*.e2b`` exists without it, too.
"""

from __future__ import annotations

import os
import sys

from tunnel.client.options import ALL, FLAG, PATH, SEVERAL, parse_value
from tunnel.client.words import suggestion
from tunnel.errors import UsageError
from tunnel.net.home import base_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.options import Value

    Values = dict[str, Value]

# Options that make no sense in the config file: they name the file, or are for a single run.
_NOT_IN_FILE = {"config", "stdio-threads", "pty-attach"}
_KEYS = [option.name for option in ALL.values() if option.kind not in SEVERAL and option.name not in _NOT_IN_FILE]
_KEYS.append("headers")
# Options that are allowed only in the table of a host or a pattern.
_OF_HOSTS = ("host-key-alias", "forward-port")
SIZE_LIMIT = 1 << 20  # bytes
# For a path of Windows in TOML's usual quotes.
_BACKSLASH = """; inside "…" a backslash begins an escape: write / instead, or put the value into '…'"""
# Words of tomllib's errors about an escape: "Unescaped '\\' in a string", "Invalid hex value",
# "Escaped character is not a Unicode scalar value".
_ESCAPES = {"Unescaped", "hex", "Escaped"}
# Exists without a table: in an ssh_config, E2B's sandboxes need names that differ from other hosts': ID.e2b.
SANDBOXES = "*.e2b"


class Config:
    """A parsed config file: ``options`` for all hosts, and ``hosts`` by name or pattern in lower case.

    `SANDBOXES` is always among the hosts. ``spellings`` has the names as they are written in the file, ``warnings`` the
    lines for the user.
    """

    __slots__ = ("hosts", "options", "path", "spellings", "warnings")

    def __init__(self, path: str, options: Values, hosts: dict[str, Values]) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.options = options
        self.spellings = {name.lower(): name for name in hosts}
        self.hosts: dict[str, Values] = {SANDBOXES: {}}
        self.hosts.update((name.lower(), table) for name, table in hosts.items())

    def lookup(self, host: str) -> tuple[str, Values] | None:
        """Return the text for {host}, and the table for ``host``: that of the exact name, or of the longest pattern.

        Case is ignored, as ssh passes ``%h`` in lower case.
        """
        table = self.hosts.get(host.lower())
        if table is not None:
            # A table for one sandbox, with its user for example, does not change the meaning of its name.
            suffix = SANDBOXES[1:]
            is_sandbox = host.lower().endswith(suffix) and not ("url" in table or "pty-url" in table)
            return host[: -len(suffix)] if is_sandbox and "*" not in host else host, table
        for pattern in self.patterns_of(host):
            before, _, after = pattern.partition("*")
            return host[len(before) : len(host) - len(after)], self.hosts[pattern]
        return None

    def patterns_of(self, host: str) -> list[str]:
        """Return the patterns that match ``host``, the longest first."""
        wanted = host.lower()
        found = []
        for pattern in (name for name in self.hosts if "*" in name):
            before, _, after = pattern.partition("*")
            if len(host) > len(before) + len(after) and wanted.startswith(before) and wanted.endswith(after):
                found.append(pattern)
        return sorted(found, key=len, reverse=True)


def config_path() -> str | None:
    """Return the path of the file on this platform, whether or not it exists; None for a user without a home."""
    if sys.platform == "win32":
        folder = base_folder("APPDATA", "AppData", "Roaming")
    elif sys.platform == "darwin":
        folder = base_folder("", "Library", "Application Support")
    else:
        folder = base_folder("XDG_CONFIG_HOME", ".config")
    return None if folder is None else os.path.join(folder, "wstunnel-py", "config.toml")


def load_config(path: str | None) -> Config:
    """Read the file at ``path``, which must exist, or the default one if that exists. Raises UsageError.

    Other users must not be able to write it, as it decides where secrets are sent. The null device is an empty file.
    """
    wanted = path is not None
    path = path if path is not None else config_path()
    if path is None:
        return Config("the config file", {}, {})
    if os.path.normcase(path) == os.devnull:  # on Windows also NUL
        return Config(path, {}, {})
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as exc:
        if wanted:
            raise UsageError("there is no such file", code="config", path=os.path.abspath(path)) from exc
        return Config(path, {}, {})
    except OSError as exc:
        # In a container, HOME is often another user's folder, which this one may not enter.
        if isinstance(exc, PermissionError) and not wanted:
            return Config(path, {}, {})
        raise _unusable(path, exc) from exc
    from tunnel.net.files import LENIENT, exposure_warning, read_regular  # late, as most users have no such file

    try:
        data, info = read_regular(path, SIZE_LIMIT, guard=LENIENT, too_long="the file is larger than {limit} bytes")
    except OSError as exc:
        raise _unusable(path, exc) from exc
    config = parse_config(data, path)
    if _holds_secrets(config):
        config.warnings += exposure_warning(path, info, "the secrets in ")
    return config


def _unusable(path: str, error: OSError) -> UsageError:
    return UsageError(error.strerror or str(error), code="config", path=path)


def _holds_secrets(config: Config) -> bool:
    """Return whether a table may hold a secret: a header, the query of a URL, or a proxy's password."""
    tables = (config.options, *config.hosts.values())
    return any(
        "header" in table or "@" in str(table.get("proxy", "")) or "?" in str(table.get("url", "")) for table in tables
    )


def parse_config(data: bytes, path: str) -> Config:
    """Parse ``data``, the bytes of the file at ``path``. Raises UsageError, which names the key."""
    if len(data) > SIZE_LIMIT:
        raise UsageError(f"the file is larger than {SIZE_LIMIT} bytes", code="config", path=path)
    import tomllib

    from tunnel.net.files import text_of

    try:
        tree = tomllib.loads(text_of(data))
    except (ValueError, RecursionError) as exc:  # not TOML, not UTF-8, a number too long, or tables nested too deeply
        remark = _BACKSLASH if _ESCAPES.intersection(str(exc).split()) else ""
        raise UsageError(f"{exc}{remark}", code="config", path=path) from exc
    tables = tree.pop("hosts", {})
    if not isinstance(tables, dict):
        raise UsageError("hosts must be a table", code="config", path=path)
    hosts: dict[str, Values] = {}
    spellings: dict[str, str] = {}
    for name, table in tables.items():
        if (other := spellings.setdefault(name.lower(), name)) != name:
            problem = "as case is ignored: remove one of them"
            raise UsageError(f"hosts.{name}: hosts.{other} is the same host, {problem}", code="config", path=path)
        if name.count("*") > 1:
            raise UsageError(f"hosts.{name}: a pattern can have only one *", code="config", path=path)
        if not isinstance(table, dict):
            raise UsageError(f"hosts.{name} must be a table", code="config", path=path)
        hosts[name] = _options(table, f"{path}: hosts.{name}: ", path, name)
        if "*" in name and "forward-port" in table:
            raise UsageError(f"{path}: hosts.{name}: forward-port: a pattern cannot have a port")
    for key in _OF_HOSTS:
        if key in tree:
            raise UsageError(f"{path}: {key}: it belongs in the table of a host, [hosts.NAME]")
    return Config(path, _options(tree, f"{path}: ", path), hosts)


def _options(table: dict[str, object], where: str, path: str, host: str = "") -> Values:
    values: Values = {}
    for key, word in table.items():
        if key == "headers":
            if not isinstance(word, dict) or not all(isinstance(value, str) for value in word.values()):
                raise UsageError(f"{where}headers must be a table of strings")
            lines = [f"{name}: {value}" for name, value in word.items()]
            values["header"] = [str(parse_value(ALL["header"], line, where + key)) for line in lines]
            continue
        if key not in _KEYS:
            remark = _about_table(host, key, word) if isinstance(word, dict) else suggestion(key, _KEYS)
            raise UsageError(f"{where}there is no option {key!r}{remark}")
        option = ALL[key]
        if option.kind == FLAG and not isinstance(word, bool):
            raise UsageError(f"{where}{key} must be true or false")
        if option.kind == PATH and isinstance(word, str) and word[1:2] == ":" and not word.isprintable():
            raise UsageError(f"{where}{key}: the value has characters that are not printable{_BACKSLASH}")
        value = parse_value(option, word, where + key)
        if option.kind == PATH and isinstance(value, str):
            # Relative to the file, as the working directory of a ProxyCommand is not known.
            value = os.path.join(os.path.dirname(os.path.abspath(path)), value)
        values[key] = value
    return values


def _about_table(host: str, key: str, table: dict[str, object]) -> str:
    """Return a hint for an unexpected table ``key``: at the top level, or inside that of ``host`` (an unquoted dot)."""
    if not host:
        return "; the table of a host is [hosts.NAME]"
    name = f"{host}.{key}"
    while len(table) == 1 and isinstance(inner := next(iter(table.values())), dict):
        name, table = f"{name}.{next(iter(table))}", inner
    return f'; a name with dots needs quotes: [hosts."{name}"]'
