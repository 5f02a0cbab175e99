"""Whom processes run as: users of the machine, the switch to them, their environment and their working directory."""

from __future__ import annotations

import binascii
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass

from tunnel.children.child import Credentials
from tunnel.net.home import home_folder
from tunnel.protocol.errors import UsageError
from tunnel.pty.framing import ConnectError

# Of the service's own environment: what is about the service, its user, or the terminal that it was started in.
_PRIVATE_PREFIXES = ("WSTUNNEL_PY_", "LISTEN_", "SUDO_", "SSH_", "XDG_")
_PRIVATE = frozenset(
    (
        "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "TERM", "TERMCAP", "COLUMNS", "LINES",
        "PWD", "OLDPWD", "SHLVL", "_", "MAIL",
    )
)  # fmt: skip
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class User:
    """A user of the machine with everything that a login needs."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def switches(self) -> bool:
        """Whether running as this user is a change from the service's own."""
        return self.uid != os.geteuid()

    @property
    def credentials(self) -> Credentials | None:
        """What a child needs to run as this user; None: it is the service's own."""
        return Credentials(self.uid, self.gid, self.groups) if self.switches else None


class Users:
    """Decides whom a process runs as: ``default`` (None: the service's own user), or the user that a client asks for.

    Only with ``may_switch`` may that be another one. Raises UsageError when the default is unknown or out of reach.
    """

    def __init__(self, default: str | None, *, may_switch: bool) -> None:
        self._may_switch = may_switch
        if default is None:
            self.default = _own()
            return
        entry = _find(default)
        if entry is None:
            raise UsageError(f"--pty-user: there is no user {default!r}")
        self.default = entry
        if entry.switches and os.geteuid() != 0:
            raise UsageError(f"--pty-user: only root can run terminals as {default}")

    def choose(self, name: str | None) -> User:
        """Return the user that a client asks for by ``name`` (None: the default).

        Raises ConnectError: ``unauthenticated`` for an unknown one, ``permission_denied`` for one out of reach.
        """
        if not name:
            return self.default
        user = self.default if name == self.default.name else _find(name)
        if user is None:
            raise ConnectError("unauthenticated", f"invalid username: '{name}'")
        if user.uid == self.default.uid:
            return user
        if not self._may_switch:
            raise ConnectError("permission_denied", f"running as {name!r} needs a token: see --pty-token-file")
        if user.switches and os.geteuid() != 0:
            raise ConnectError("permission_denied", f"running as {name!r} needs a service that runs as root")
        return user


def asked_user(authorization: str | None) -> str | None:
    """Return the user that the Authorization header asks for: E2B sends ``Basic base64(user:)``.

    Raises ConnectError (``unauthenticated``) for any other header.
    """
    if authorization is None:
        return None
    scheme, _, credentials = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(scheme)
        return binascii.a2b_base64(credentials.strip(), strict_mode=True).decode().partition(":")[0]
    except ValueError as exc:
        raise ConnectError("unauthenticated", "Authorization tells a user, as Basic base64(user:)") from exc


def environment(user: User, given: Mapping[str, str], *, terminal: bool) -> dict[str, str]:
    """Return the environment of a process: the service's, made the user's own, and what the client has ``given``."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in _PRIVATE and not name.startswith(_PRIVATE_PREFIXES)
    }
    inherited.setdefault("PATH", _PATH)
    own = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name, "SHELL": user.shell}
    if terminal:
        own["TERM"] = "xterm-256color"
    return {**inherited, **own, **given}


def expand(user: User, path: str) -> str:
    """Return ``path`` as an absolute one: relative ones and ``~`` start at the user's home."""
    if path == "~" or path.startswith("~/"):
        path = path[1:].lstrip("/")  # "~//a" is no absolute path
    return os.path.normpath(os.path.join(user.home, path))


def working_directory(user: User, cwd: str | None) -> str:
    """Return the folder to start in; raises ConnectError (``invalid_argument``) when there is none of that name."""
    if cwd is None:
        return user.home if os.path.isdir(user.home) else "/"
    path = expand(user, cwd)
    if not os.path.isdir(path):
        raise ConnectError("invalid_argument", f"cwd '{path}' does not exist")
    return path


def _find(name: str) -> User | None:
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):  # ValueError: a NUL, a lone surrogate
        return None
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    home = entry.pw_dir if os.path.isabs(entry.pw_dir) else "/"
    shell = entry.pw_shell or "/bin/sh"
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, home, shell)


def _own() -> User:
    """The service's own user, who in a container may have no entry in the user database."""
    try:
        found = _find(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:
        found = None
    if found is not None and not found.switches:
        return found
    home, shell = home_folder() or "/", os.environ.get("SHELL", "/bin/sh")
    return User(str(os.geteuid()), os.geteuid(), os.getegid(), tuple(os.getgroups()), home, shell)
