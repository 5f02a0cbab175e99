"""How editors are started on a host that ssh's configuration knows: the words behind their programs."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass

from tunnel.errors import UsageError


@dataclass(frozen=True)
class Editor:
    """An editor: what to do if its ``program`` is missing, and the words for a host and a path, which may be empty."""

    program: str
    remedy: str
    words: Callable[[str, str], list[str]]


def _vs_code(host: str, path: str) -> list[str]:
    # It takes a path with a dot in its last part for a file, unless a slash is behind it.
    return ["--remote", f"ssh-remote+{host}", *([path] if path else [])]


def _zed(host: str, path: str) -> list[str]:
    return [f"ssh://{host}{urllib.parse.quote(path) if path else '/~/'}"]


def _shell_command(name: str) -> str:
    return f"run \"Shell Command: Install '{name}' command in PATH\" in its command palette, or install the editor"


EDITORS = {
    "code": Editor("code", _shell_command("code"), _vs_code),
    "cursor": Editor("cursor", _shell_command("cursor"), _vs_code),
    "windsurf": Editor("windsurf", _shell_command("windsurf"), _vs_code),
    "zed": Editor("zed", 'run "cli: install" in its command palette, or install the editor', _zed),
}


def check_path(path: str) -> str:
    """Return a path on the host as it is. Raises UsageError for one that editors would not find."""
    if path and not path.startswith("/"):
        raise UsageError(f"{path!r} must begin with /: editors know no other folder to begin at")
    if not path.isprintable():
        raise UsageError(f"{path!r} has characters that are not printable")
    return path
