"""The environment of a session: what the client, its key and this server put into it."""

from __future__ import annotations

import re
from collections.abc import Mapping

# What a client may set for a command that is forced, whose behaviour must not be the client's to change: language and
# terminal, by names that lead to no file of the client's choice.
_HARMLESS = re.compile(r"LANG|LC_[A-Za-z0-9_]{1,32}")
_LANGUAGE = re.compile(r"[\w.@:,=;+-]{0,128}", re.ASCII)
_TERMINAL = re.compile(r"[A-Za-z0-9][\w.+:-]{0,63}", re.ASCII)
_NO_TERMINAL = "dumb"
# What this server tells about a session: no client may tell it instead.
_OWN = frozenset(("SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK", "SSH_ORIGINAL_COMMAND"))


def clients_own(asked: Mapping[str, str], *, is_forced: bool) -> dict[str, str]:
    """Return which of the variables that a client asks for it gets; ``is_forced``: only one command may run."""
    return {name: value for name, value in asked.items() if _may_set(name, value, is_forced)}


def terminal_type(asked: str) -> str:
    """Return what TERM is set to for a client that asks for ``asked``."""
    return asked if _TERMINAL.fullmatch(asked) else _NO_TERMINAL


def about_client(client: str) -> dict[str, str]:
    """Return what sshd tells of a connection, as far as it is known; ``client`` is HOST:PORT or a word."""
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
