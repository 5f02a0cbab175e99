"""Environment variables of a session: those of the client and those of this server."""

from __future__ import annotations

import re
from collections.abc import Mapping

# What a client may set for a forced command, whose behaviour the client must not change: language and terminal type,
# with values that cannot point to files of the client's choice.
_HARMLESS = re.compile(r"LANG|LC_[A-Za-z0-9_]{1,32}")
_LANGUAGE = re.compile(r"[\w.@:,=;+-]{0,128}", re.ASCII)
_TERMINAL = re.compile(r"[A-Za-z0-9][\w.+:-]{0,63}", re.ASCII)
_NO_TERMINAL = "dumb"
# Set by this server; clients may not set them.
_OWN = frozenset(("SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK", "SSH_ORIGINAL_COMMAND"))


def client_variables(asked: Mapping[str, str], *, is_forced: bool) -> dict[str, str]:
    """Return the requested variables that a client may set; ``is_forced``: the session has a forced command."""
    return {name: value for name, value in asked.items() if _may_set(name, value, is_forced)}


def terminal_type(asked: str) -> str:
    """Return the value of TERM for a client that requests ``asked``."""
    return asked if _TERMINAL.fullmatch(asked) else _NO_TERMINAL


def connection_variables(client: str) -> dict[str, str]:
    """Return the variables that sshd sets about a connection, if they are known; ``client`` is HOST:PORT or a word."""
    host, _, port = client.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit():
        return {}
    return {"SSH_CLIENT": f"{host} {port} 22", "SSH_CONNECTION": f"{host} {port} 127.0.0.1 22"}


def _may_set(name: str, value: str, is_forced: bool) -> bool:
    if not name or "=" in name or "\0" in name or name in _OWN:
        return False
    if name == "TERM":
        return _TERMINAL.fullmatch(value) is not None
    return not is_forced or (_HARMLESS.fullmatch(name) is not None and _LANGUAGE.fullmatch(value) is not None)
