"""Keys of the embedded SSH server: its own host key, and the public keys that may log in.

The host key is made once and kept in the state folder, so that clients meet the same one after a restart. Who may log
in stands in a file of OpenSSH's form (sshd(8), AUTHORIZED_KEYS FILE FORMAT), which is read again at each login. A line
with an option that this server cannot enforce admits nobody: a restriction must not get lost.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import asyncssh

from tunnel.net.files import STRICT, read_regular
from tunnel.protocol.errors import UsageError

HOST_KEY_NAME = "ssh_host_ed25519_key"
DEFAULT_AUTHORIZED_KEYS = "~/.ssh/authorized_keys"
_SIZE_LIMIT = 1 << 20  # bytes of a file of keys

_FEATURES = ("agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding")
_VALUED = ("command", "environment", "permitopen", "principals")
# Options that are enforced: by asyncssh, by `tunnel.ssh.server.login`, or because there is nothing that they forbid.
_ENFORCED = frozenset(
    ("cert-authority", "restrict", "no-touch-required", *_VALUED, *_FEATURES, *(f"no-{name}" for name in _FEATURES))
)
# One option: a name, and perhaps a quoted value in which \" is a quote.
_OPTION = re.compile(r'([A-Za-z0-9-]+)(="(?:[^"\\]|\\.)*")?')


def default_host_key() -> Path:
    """Return where the host key is kept when nobody says: in the platform's folder for a program's state."""
    if sys.platform == "darwin":
        base = Path("~/Library/Application Support").expanduser()
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    return base / "wstunnel-py" / HOST_KEY_NAME


def load_host_key(given: str | None) -> asyncssh.SSHKey:
    """Return the host key in the file ``given`` (None: the default place), which is made if it does not exist.

    Raises UsageError when it cannot be read or made, or when others could read it.
    """
    path = default_host_key() if given is None else Path(given).expanduser()
    try:
        if not path.exists():
            _make_host_key(path)
        data, info = read_regular(str(path), _SIZE_LIMIT)
        mode = info.st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise _unusable(
                "--host-key", path, f"its mode is {stat.S_IMODE(mode):04o}, so others may read it: chmod 600"
            )
        return asyncssh.import_private_key(data)
    except OSError as exc:
        raise _unusable("--host-key", path, exc.strerror or str(exc)) from exc
    except asyncssh.KeyImportError as exc:
        raise _unusable("--host-key", path, str(exc)) from exc


def _make_host_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = asyncssh.generate_private_key("ssh-ed25519", comment="wstunnel-py")
    # Written whole under another name, then linked: of two bridges that start at once, the second takes the first's.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.export_private_key())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return
    finally:
        os.unlink(name)
    path.with_name(path.name + ".pub").write_bytes(key.export_public_key())


class AuthorizedKeys(asyncssh.SSHAuthorizedKeys):
    """Keys that may log in. ``last`` is the fingerprint of the one that a client has shown last."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.last = ""

    def validate(self, key: asyncssh.SSHKey, *arguments: Any, **options: Any) -> Any:
        """As asyncssh asks it: return the options of ``key``, or None when it may not log in."""
        found = super().validate(key, *arguments, **options)
        if found is not None:
            self.last = key.get_fingerprint()
        return found


def load_authorized_keys(given: str | None, warn: Callable[[str], None]) -> tuple[AuthorizedKeys, int]:
    """Return the keys in the file ``given`` (None: ~/.ssh/authorized_keys), and how many there are.

    Lines that cannot be used are told to ``warn``. Raises UsageError when there is no usable key, the file cannot be
    read, or others may write to it.
    """
    path = Path(given if given is not None else DEFAULT_AUTHORIZED_KEYS).expanduser()
    option = "--authorized-keys"
    try:
        text = read_regular(str(path), _SIZE_LIMIT, guard=STRICT)[0]
    except OSError as exc:
        raise _unusable(option, path, exc.strerror or str(exc)) from exc
    usable = []
    for number, line in enumerate(text.decode("utf-8", "surrogateescape").splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            entry = _enforceable(entry)
            asyncssh.import_authorized_keys(entry)
        except ValueError as exc:
            warn(f"{path}, line {number}, admits nobody: {exc}")
        else:
            usable.append(entry)
    if not usable:
        raise _unusable(option, path, "there is no usable public key in it, so nobody could log in")
    return AuthorizedKeys(usable), len(usable)


def _enforceable(entry: str) -> str:
    """Return a line of authorized_keys with ``restrict`` spelt out; raises ValueError when it cannot be enforced."""
    options, rest = _split(entry)
    for name, value in options:
        if name not in _ENFORCED:
            raise ValueError(f"the option {name} is not supported here")
        if bool(value) != (name in _VALUED):
            raise ValueError(f"the option {name} {'needs a' if name in _VALUED else 'takes no'} value")
    names = {name for name, _ in options}
    if "restrict" in names:
        options = [(name, value) for name, value in options if name not in ("restrict", *_FEATURES)]
        options += [(f"no-{feature}", "") for feature in _FEATURES if feature not in names]
    return f"{','.join(name + value for name, value in options)} {rest}".strip()


def _split(entry: str) -> tuple[list[tuple[str, str]], str]:
    """Split a line into its options (name, ``="value"``), none if it begins with a key's type, and the key."""
    first = entry.split(None, 1)[0]
    if first in _key_types():
        return [], entry
    options = []
    position = 0
    while True:
        match = _OPTION.match(entry, position)
        if match is None:
            raise ValueError("it is no public key")
        # sshd does not mind capital letters; asyncssh would let them through as options that it does not know.
        options.append((match[1].lower(), match[2] or ""))
        position = match.end()
        if entry[position : position + 1] == ",":
            position += 1
        elif entry[position : position + 1].isspace():
            rest = entry[position:].strip()
            if not rest or rest.split(None, 1)[0] not in _key_types():
                raise ValueError("it is no public key")
            return options, rest
        else:
            raise ValueError("it is no public key")


def _key_types() -> list[str]:
    return [algorithm.decode() for algorithm in asyncssh.public_key.get_public_key_algs()]


def _unusable(option: str, path: Path, reason: str) -> UsageError:
    return UsageError("", cause="file", option=option, path=path, reason=reason)
