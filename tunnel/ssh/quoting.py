"""Quoting of words for ssh_config, a ProxyCommand and rsync's remote shell, which all have different rules."""

from __future__ import annotations

import sys

from tunnel.errors import UsageError

_PLAIN_MARKS = frozenset("_@+=:,./-%")  # characters that need no quotes in any shell or parser
_REFUSED = '"$`\\'


def quoted(text: str, *, percent: bool = True, platform: str = sys.platform) -> str:
    """Return ``text`` as one word of ssh_config and of the shell that runs a ProxyCommand, quoted only if necessary.

    ``percent``: ssh expands tokens here. Raises UsageError if no quoting is safe in OpenSSH, a shell and the
    other parsers. On Windows backslashes become slashes, which it accepts as well.
    """
    if platform == "win32":
        text = text.replace("\\", "/")
    if not text.isprintable() or not text or any(c in text for c in _REFUSED):
        raise UsageError(f'{text!r} cannot be written into ssh_config: " $ ` \\ and control characters are not allowed')
    return _in_quotes(text, "", percent=percent)


def quoted_value(text: str, *, platform: str = sys.platform) -> str:
    """Return ``text`` as one word after ``ssh -o``, which only OpenSSH parses. Raises UsageError."""
    text = _checked(text, platform)
    if "${" in text:
        raise UsageError(f"{text!r} cannot be given to ssh, which takes ${{…}} for a variable")
    return _in_quotes(text, '"\\')


def quoted_for_shell(text: str, *, platform: str = sys.platform) -> str:
    """Return ``text`` as one word of a ProxyCommand after ``ssh -o``. Raises UsageError.

    ssh parses quotes and expands %, then the user's shell parses it. On Windows there is no shell: the started program
    parses its own command line, in which only quotes are special.
    """
    return _in_quotes(_checked(text, platform), '"' if platform == "win32" else _REFUSED)


def quoted_for_rsync(text: str) -> str:
    """Return ``text`` as one word of rsync's ``-e``, in which a doubled quote stands for itself."""
    return "'" + text.replace("'", "''") + "'" if any(c in text for c in " \t'\"") or not text else text


def _checked(text: str, platform: str) -> str:
    if platform == "win32":
        text = text.replace("\\", "/")
    if not text.isprintable():
        raise UsageError(f"{text!r} cannot be given to ssh: control characters are not allowed")
    return text


def _in_quotes(text: str, escaped: str, *, percent: bool = True) -> str:
    word = "".join(f"\\{c}" if c in escaped else c for c in text)
    word = word.replace("%", "%%") if percent else word
    plain = text and all(c.isalnum() or c in _PLAIN_MARKS for c in text) and not text.startswith("=")
    return word if plain else f'"{word}"'
