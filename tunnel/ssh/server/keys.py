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
from collections.abc import Callable, Iterable
from pathlib import Path

import asyncssh

from tunnel.errors import UsageError
from tunnel.net.files import OWNED, read_regular, text_of, without_mark
from tunnel.net.home import base_folder, expand_home, wanted_home

HOST_KEY_NAME = "ssh_host_ed25519_key"
DEFAULT_AUTHORIZED_KEYS = "~/.ssh/authorized_keys"
_SIZE_LIMIT = 1 << 20  # bytes of a file of keys

_FEATURES = ("agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding")
_VALUED = ("command", "environment", "permitopen", "principals")
_ONCE = ("command", "principals")  # given twice, it is not clear which one counts
# Options that are enforced: by asyncssh, by `tunnel.ssh.server.login`, or because there is nothing that they forbid.
_ENFORCED = frozenset(
    ("cert-authority", "restrict", "no-touch-required", *_VALUED, *_FEATURES, *(f"no-{name}" for name in _FEATURES))
)
# One option: a name, and perhaps a quoted value, in which \" is a quote and any other backslash is one.
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:\\"|(?!\\")[^"])*)")?')
_VARIABLE = re.compile(r"[A-Za-z0-9_]+=")


def default_host_key() -> Path:
    """Return where the host key is kept when nobody says: in the platform's folder for a program's state.

    Raises UsageError for a user without a home.
    """
    if sys.platform == "darwin":
        base = base_folder("", "Library", "Application Support")
    else:
        base = base_folder("XDG_STATE_HOME", ".local", "state")
    if base is None:
        base = wanted_home("--host-key FILE is needed")
    return Path(base) / "wstunnel-py" / HOST_KEY_NAME


def load_host_key(given: str | None) -> asyncssh.SSHKey:
    """Return the host key in the file ``given`` (None: the default place), which is made if it does not exist.

    Raises UsageError when it cannot be read or made, or when others could read it.
    """
    path = default_host_key() if given is None else Path(expand_home(given, "--host-key"))
    try:
        if not path.exists():
            _make_host_key(path)
        data, info = read_regular(str(path), _SIZE_LIMIT)
        mode = info.st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise _unusable(
                "--host-key", path, f"its mode is {stat.S_IMODE(mode):04o}, so others may read it: chmod 600"
            )
        return asyncssh.import_private_key(without_mark(data))
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


def load_authorized_keys(given: str | None, warn: Callable[[str], None]) -> tuple[asyncssh.SSHAuthorizedKeys, int]:
    """Return the keys in the file ``given`` (None: ~/.ssh/authorized_keys), and how many there are.

    Lines that cannot be used are told to ``warn``. Raises UsageError when there is no usable key, the file cannot be
    read, or others may write to it.
    """
    option = "--authorized-keys"
    path = Path(expand_home(given if given is not None else DEFAULT_AUTHORIZED_KEYS, option))
    try:
        # A comment may be in any encoding.
        text = text_of(read_regular(str(path), _SIZE_LIMIT, guard=OWNED)[0], "surrogateescape")
    except OSError as exc:
        raise _unusable(option, path, exc.strerror or str(exc)) from exc
    except UnicodeDecodeError as exc:
        raise _unusable(option, path, "it is no text") from exc
    usable = []
    for number, line in enumerate(text.split("\n"), 1):
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
    return asyncssh.import_authorized_keys("\n".join(usable)), len(usable)


def _enforceable(entry: str) -> str:
    """Return a line of authorized_keys in the form that asyncssh reads, with what is forbidden spelt out.

    Raises ValueError when it cannot be enforced.
    """
    if len(entry.splitlines()) > 1:
        raise ValueError("there is a control character in it")  # where asyncssh would begin a new line
    options, rest = _split(entry)
    for name, value in options:
        if name not in _ENFORCED:
            raise ValueError(f"the option {name} is not supported here")
        if (value is not None) != (name in _VALUED):
            raise ValueError(f"the option {name} {'needs a' if name in _VALUED else 'takes no'} value")
    given = dict(options)
    for name in _ONCE:
        if [each for each, _ in options].count(name) > 1:
            raise ValueError(f"the option {name} stands there twice")
    if not all(_VARIABLE.match(value or "") for name, value in options if name == "environment"):
        raise ValueError("the option environment needs NAME=value")
    if given.get("principals") is not None:
        _check_principals(given)
    switches = ("restrict", *_FEATURES, *(f"no-{feature}" for feature in _FEATURES))
    kept = [f"{name}{_quoted(value)}" for name, value in options if name not in switches]
    kept += [f"no-{feature}" for feature in _forbidden(name for name, _ in options)]
    return f"{','.join(kept)} {rest}".strip()


def _forbidden(names: Iterable[str]) -> list[str]:
    """Return the features that a line's options switch off, in the order in which they stand."""
    allowed = dict.fromkeys(_FEATURES, True)
    for name in names:
        if name == "restrict":
            allowed = dict.fromkeys(_FEATURES, False)
        elif name in _FEATURES:
            allowed[name] = True
        elif name.removeprefix("no-") in _FEATURES:
            allowed[name.removeprefix("no-")] = False
    return [name for name in _FEATURES if not allowed[name]]


def _check_principals(options: dict[str, str | None]) -> None:
    """Raise ValueError unless asyncssh, which takes principals for patterns, would read them as sshd does: as names."""
    if "cert-authority" not in options:
        raise ValueError("the option principals is for a cert-authority")
    if not re.fullmatch(r"[^*?!\[\],]+(,[^*?!\[\],]+)*", options["principals"] or ""):
        raise ValueError("the option principals takes names, with no patterns among them")


def _quoted(value: str | None) -> str:
    """Return an option's value as asyncssh reads it, to which each backslash is an escape."""
    if value is None:
        return ""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'="{escaped}"'


def _split(entry: str) -> tuple[list[tuple[str, str | None]], str]:
    """Split a line into its options (name, value or None), none if it begins with a key's type, and the key."""
    first = entry.split(None, 1)[0]
    if first in _key_types():
        return [], entry
    options: list[tuple[str, str | None]] = []
    position = 0
    while True:
        match = _OPTION.match(entry, position)
        if match is None:
            raise ValueError("it is no public key")
        # sshd does not mind capital letters; asyncssh would let them through as options that it does not know.
        value = None if match[2] is None else match[2].replace('\\"', '"')
        options.append((match[1].lower(), value))
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
