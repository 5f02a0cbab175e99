"""The config file: options for every tunnel, and tables for named hosts and patterns of them.

    port = 8081
    [hosts.build]
    url = "wss://gateway.example/build"
    token-file = "build.token"
    [hosts."*.e2b"]
    headers = { e2b-traffic-access-token = "…" }

Its keys are the names of the options; relative paths start at the file's own folder.
"""

from __future__ import annotations

import os
import sys

from tunnel.client.address import parse_url
from tunnel.client.options import BY_NAME, OPTIONS, PATH, Source, suggestion
from tunnel.protocol.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tunnel.client.address import Address

SIZE_LIMIT = 1 << 20  # bytes
_KEYS = [option.name for option in OPTIONS if option.in_config and option.name != "header"] + ["headers"]


class Config:
    """A config file that was read: ``top`` for every tunnel, ``hosts`` by name or pattern."""

    __slots__ = ("hosts", "top")

    def __init__(self, top: Source, hosts: dict[str, Source]) -> None:
        self.top = top
        self.hosts = hosts

    def entry_of_host(self, host: str) -> tuple[Source | None, str]:
        """Return the table for ``host``, and what of it goes into {host}.

        A table of the very name comes first, then the longest pattern; there {host} is what its ``*`` stands for.
        Upper and lower case do not differ, as ssh passes on the name in lower case.
        """
        wanted = host.lower()
        for name, entry in self.hosts.items():
            if name.lower() == wanted:
                return entry, host
        for name, entry in sorted(self.hosts.items(), key=lambda item: len(item[0]), reverse=True):
            head, star, tail = name.lower().partition("*")
            fits = wanted.startswith(head) and wanted.endswith(tail) and len(wanted) > len(head) + len(tail)
            if star and fits:
                return entry, host[len(head) : len(host) - len(tail)]
        return None, host

    def entry_of_url(self, address: Address) -> Source | None:
        """Return the table whose ``url`` is this very URL, if there is one."""
        for entry in self.hosts.values():
            url = entry.values.get("url", "{host}")
            if "{" not in url and parse_url(url) == address:
                return entry
        return None


def default_path(environ: Mapping[str, str]) -> str:
    """Return where the config file is looked for on this platform."""
    if sys.platform == "win32":
        folder = environ.get("APPDATA") or os.path.expanduser("~\\AppData\\Roaming")
    elif sys.platform == "darwin":
        folder = os.path.expanduser("~/Library/Application Support")
    else:
        folder = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(folder, "wstunnel-py", "config.toml")


def load(path: str | None, origin: str, environ: Mapping[str, str]) -> Config | None:
    """Read the config file at ``path``, which ``origin`` named; without one the usual file, if it exists.

    Raises UsageError when it cannot be read, is no TOML, or says anything that is not understood.
    """
    named = path is not None
    path = path if path is not None else default_path(environ)
    try:
        with open(path, "rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as exc:
        if not named and isinstance(exc, FileNotFoundError | NotADirectoryError):
            return None
        reason = exc.strerror or str(exc)
        raise UsageError("", cause="file", option=origin, path=path, reason=reason) from exc
    if len(content) > SIZE_LIMIT:
        raise UsageError(f"the file is larger than {SIZE_LIMIT} bytes", cause="config", path=path)
    import tomllib

    try:
        return _read(tomllib.loads(content.decode()), path)
    except ValueError as exc:  # no TOML, or no UTF-8
        raise UsageError(str(exc), cause="config", path=path) from exc


def _read(document: dict[str, Any], path: str) -> Config:
    hosts = document.pop("hosts", {})
    if not (isinstance(hosts, dict) and all(isinstance(table, dict) for table in hosts.values())):
        raise UsageError("hosts is a table of tables: [hosts.NAME]", cause="config", path=path)
    entries = {}
    for name, table in hosts.items():
        if name.count("*") > 1:
            raise UsageError(f"the pattern {name!r} has more than one *", cause="config", path=path)
        entries[name] = _read_table(table, f"[hosts.{name}]", f"{path}: [hosts.{name}] ", path)
    return Config(_read_table(document, "the config file", f"{path}: ", path), entries)


def _read_table(table: dict[str, Any], title: str, origin: str, path: str) -> Source:
    source = Source(title)
    for key, raw in table.items():
        if key not in _KEYS:
            raise UsageError(f"{origin}there is no key {key!r}{suggestion(key, _KEYS)}")
        if key == "headers":
            if not (isinstance(raw, dict) and all(isinstance(value, str) for value in raw.values())):
                raise UsageError(f"{origin}headers: a table of names and texts is wanted here")
            for name, value in raw.items():
                source.put_header(name, value, f"{origin}headers")
            continue
        option = BY_NAME[key]
        source.put(option, raw, origin + key)
        if option.kind == PATH:
            source.values[key] = os.path.join(os.path.dirname(path), source.values[key])
    return source
