"""Keys of the embedded SSH server: its host key, and the authorized keys.

The host key is generated once and kept in the state folder, so it stays the same after a restart. The authorized keys
are in a file in OpenSSH's format (sshd(8), AUTHORIZED_KEYS FILE FORMAT), which is read at each login. A line with an
option that this server cannot enforce is ignored: no restriction may be dropped.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import asyncssh

from tunnel.errors import UsageError
from tunnel.net.files import OWNED, PRIVATE, read_regular, text_of, without_mark
from tunnel.net.home import base_folder, expand_home, wanted_home
from tunnel.pki import storage

ALGORITHM = "ssh-ed25519"
HOST_KEY_NAME = "ssh_host_ed25519_key"
DEFAULT_AUTHORIZED_KEYS = "~/.ssh/authorized_keys"
_SIZE_LIMIT = 1 << 20  # bytes of a key file

_FEATURES = ("agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding")
_VALUED = ("command", "environment", "permitopen", "principals")
_ONCE = ("command", "principals")  # ambiguous if given twice
# Options that are enforced: by asyncssh, by `tunnel.ssh.server.login`, or because they forbid nothing that exists here.
_ENFORCED = frozenset(
    ("cert-authority", "restrict", "no-touch-required", *_VALUED, *_FEATURES, *(f"no-{name}" for name in _FEATURES))
)
# One option: a name and optionally a quoted value, in which \" is a quote and other backslashes are literal.
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:\\"|(?!\\")[^"])*)")?')
_VARIABLE = re.compile(r"[A-Za-z0-9_]+=")


def default_host_key() -> Path:
    """Return the default path of the host key: in the platform's folder for program state.

    Raises UsageError for a user without a home.
    """
    if sys.platform == "darwin":
        base = base_folder("", "Library", "Application Support")
    else:
        base = base_folder("XDG_STATE_HOME", ".local", "state")
    if base is None:
        base = wanted_home("a FILE is required", setting="host_key")
    return Path(base) / "wstunnel-py" / HOST_KEY_NAME


def load_host_key(given: str | None) -> asyncssh.SSHKey:
    """Return the host key in the file ``given`` (None: the default path), which is generated if it does not exist.

    Raises UsageError if it cannot be read or created, or if other users could read it.
    """
    path = default_host_key() if given is None else Path(expand_home(given, setting="host_key"))
    try:
        if not path.exists():
            _make_host_key(path)
        return asyncssh.import_private_key(without_mark(read_regular(str(path), _SIZE_LIMIT, guard=PRIVATE)[0]))
    except OSError as exc:
        raise _unusable("host_key", path, exc.strerror or str(exc)) from exc
    except asyncssh.KeyImportError as exc:
        raise _unusable("host_key", path, str(exc)) from exc


def new_host_key(path: str, comment: str) -> tuple[asyncssh.SSHKey, list[storage.NewFile]]:
    """Return a new key and the files for it, yet to be written: the key at ``path``, then its public half."""
    key = asyncssh.generate_private_key(ALGORITHM, comment=comment)
    private = storage.NewFile(path, key.export_private_key("openssh"), storage.SECRET)
    return key, [private, storage.NewFile(f"{path}.pub", key.export_public_key("openssh"), storage.PUBLIC)]


def _make_host_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    private, public = new_host_key(str(path), "wstunnel-py")[1]
    try:
        storage.write([private])
        storage.write([public], force=True)
    except UsageError as exc:
        if exc.code == "exists":
            return  # of two bridges that start at once, the second takes the first's
        exc.setting = "host_key"
        raise


def load_authorized_keys(given: str | None, warn: Callable[[str], None]) -> tuple[asyncssh.SSHAuthorizedKeys, int]:
    """Return the keys in the file ``given`` (None: ~/.ssh/authorized_keys), and their number.

    ``warn`` is called for each line that cannot be used. Raises UsageError if there is no usable key, if the file
    cannot be read, or if other users may write to it.
    """
    setting = "authorized_keys"
    path = Path(expand_home(given if given is not None else DEFAULT_AUTHORIZED_KEYS, setting=setting))
    try:
        # A comment may be in any encoding.
        text = text_of(read_regular(str(path), _SIZE_LIMIT, guard=OWNED)[0], "surrogateescape")
    except FileNotFoundError as exc:
        raise _no_keys(setting, path, exc.strerror or str(exc)) from exc
    except OSError as exc:
        raise _unusable(setting, path, exc.strerror or str(exc)) from exc
    except UnicodeDecodeError as exc:
        raise _unusable(setting, path, "it is not a text file") from exc
    usable = []
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            entry = _enforceable(entry)
            asyncssh.import_authorized_keys(entry)
        except ValueError as exc:
            warn(f"{path}, line {number} is ignored: {exc}")
        else:
            usable.append(entry)
    if not usable:
        raise _no_keys(setting, path, "it has no usable public key, so nobody could log in")
    return asyncssh.import_authorized_keys("\n".join(usable)), len(usable)


def _enforceable(entry: str) -> str:
    """Return a line of authorized_keys in asyncssh's format, with a separate option for each forbidden feature.

    Raises ValueError if it cannot be enforced.
    """
    if len(entry.splitlines()) > 1:
        raise ValueError("it contains a control character")  # asyncssh would start a new line there
    options, rest = _split(entry)
    for name, value in options:
        if name not in _ENFORCED:
            raise ValueError(f"the option {name} is not supported")
        if (value is not None) != (name in _VALUED):
            raise ValueError(f"the option {name} {'needs a' if name in _VALUED else 'takes no'} value")
    given = dict(options)
    for name in _ONCE:
        if [each for each, _ in options].count(name) > 1:
            raise ValueError(f"the option {name} is given twice")
    if not all(_VARIABLE.match(value or "") for name, value in options if name == "environment"):
        raise ValueError("the option environment needs NAME=value")
    if given.get("principals") is not None:
        _check_principals(given)
    switches = ("restrict", *_FEATURES, *(f"no-{feature}" for feature in _FEATURES))
    kept = [f"{name}{_quoted(value)}" for name, value in options if name not in switches]
    kept += [f"no-{feature}" for feature in _forbidden(name for name, _ in options)]
    return f"{','.join(kept)} {rest}".strip()


def _forbidden(names: Iterable[str]) -> list[str]:
    """Return the features that a line's options disable; later options override earlier ones."""
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
    """Raise ValueError for principals that asyncssh would treat as patterns; sshd treats them as names."""
    if "cert-authority" not in options:
        raise ValueError("the option principals needs cert-authority")
    if not re.fullmatch(r"[^*?!\[\],]+(,[^*?!\[\],]+)*", options["principals"] or ""):
        raise ValueError("the option principals takes names, not patterns")


def _quoted(value: str | None) -> str:
    """Return an option's value for asyncssh, which treats every backslash as an escape."""
    if value is None:
        return ""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'="{escaped}"'


def _split(entry: str) -> tuple[list[tuple[str, str | None]], str]:
    """Split a line into its options (name and value or None) and the key."""
    first = entry.split(None, 1)[0]
    if first in _key_types():
        return [], entry
    options: list[tuple[str, str | None]] = []
    position = 0
    while True:
        match = _OPTION.match(entry, position)
        if match is None:
            raise ValueError("it is not a public key")
        # sshd ignores case in names; asyncssh would treat capitalised names as unknown options.
        value = None if match[2] is None else match[2].replace('\\"', '"')
        options.append((match[1].lower(), value))
        position = match.end()
        if entry[position : position + 1] == ",":
            position += 1
        elif entry[position : position + 1].isspace():
            rest = entry[position:].strip()
            if not rest or rest.split(None, 1)[0] not in _key_types():
                raise ValueError("it is not a public key")
            return options, rest
        else:
            raise ValueError("it is not a public key")


def _key_types() -> list[str]:
    return [algorithm.decode() for algorithm in asyncssh.public_key.get_public_key_algs()]


def _unusable(setting: str, path: Path, reason: str) -> UsageError:
    return UsageError(code="file", setting=setting, path=path, reason=reason)


def _no_keys(setting: str, path: Path, reason: str) -> UsageError:
    return UsageError(f"cannot use {path}: {reason}", code="no-keys", setting=setting)
