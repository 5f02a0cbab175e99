"""Users that children run as: their ids, environment and folders."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass

from tunnel.children.child import Credentials
from tunnel.net.home import home_folder

# Variables of the service's environment that are not passed on: they describe the service, its user or its terminal.
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
    """A user of this machine, as in the user database."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def switches(self) -> bool:
        """Whether this user is another than the service's own."""
        return self.uid != os.geteuid()

    @property
    def credentials(self) -> Credentials | None:
        """The credentials to run as this user; None if it is the service's own."""
        return Credentials(self.uid, self.gid, self.groups) if self.switches else None


def find_user(name: str) -> User | None:
    """Return the user with that name, None if there is none."""
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):  # ValueError: a NUL, a lone surrogate
        return None
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    home = entry.pw_dir if os.path.isabs(entry.pw_dir) else "/"
    shell = entry.pw_shell or "/bin/sh"
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, home, shell)


def own_user() -> User:
    """Return the user of this process, who may have no entry in the user database of a container."""
    try:
        found = find_user(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:
        found = None
    if found is not None and not found.switches:
        return found
    home, shell = home_folder() or "/", os.environ.get("SHELL", "/bin/sh")
    return User(str(os.geteuid()), os.geteuid(), os.getegid(), tuple(os.getgroups()), home, shell)


def environment(user: User, given: Mapping[str, str], *, terminal: bool) -> dict[str, str]:
    """Return the environment of a process: the service's, the user's, and those ``given`` by the client."""
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
    """Return ``path`` as an absolute path; relative paths and ``~`` start at the user's home."""
    if path == "~" or path.startswith("~/"):
        path = path[1:].lstrip("/")  # "~//a" is not an absolute path
    return os.path.normpath(os.path.join(user.home, path))
