"""The command lines that start editors on a host of ssh's configuration."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass

from tunnel.errors import UsageError


@dataclass(frozen=True)
class Editor:
    """An editor: its ``program``, what to do if that is missing, and the words for a host and a path (may be empty)."""

    program: str
    remedy: str
    words: Callable[[str, str], list[str]]


def _vs_code(host: str, path: str) -> list[str]:
    # A path with a dot in its last part is taken for a file, unless it ends with a slash.
    return ["--remote", f"ssh-remote+{host}", *([path] if path else [])]


def _zed(host: str, path: str) -> list[str]:
    return [f"ssh://{host}{urllib.parse.quote(path) if path else '/~/'}"]


def _shell_command(name: str) -> str:
    menu = f"Shell Command: Install '{name}' command in PATH"
    return f'run "{menu}" in the editor\'s command palette, or install the editor'


EDITORS = {
    "code": Editor("code", _shell_command("code"), _vs_code),
    "cursor": Editor("cursor", _shell_command("cursor"), _vs_code),
    "windsurf": Editor("windsurf", _shell_command("windsurf"), _vs_code),
    "zed": Editor("zed", 'run "cli: install" in the editor\'s command palette, or install the editor', _zed),
}


def check_path(path: str) -> str:
    """Return a path on the host unchanged. Raises UsageError if editors could not find it."""
    if path and not path.startswith("/"):
        raise UsageError(f"{path!r} must be an absolute path, which begins with /")
    if not path.isprintable():
        raise UsageError(f"{path!r} has characters that are not printable")
    return path
