"""Users and working directories of processes, as far as clients may choose them."""

from __future__ import annotations

import binascii
import os

from tunnel.children.users import User, expand, find_user, own_user
from tunnel.errors import UsageError, spelled
from tunnel.pty.protocol.framing import ConnectError


class Users:
    """Chooses the user of a process: ``default`` (None: the service's own user), or the user that a client asks for.

    Only with ``may_switch`` may that be another one. Raises UsageError if the default cannot be used.
    """

    def __init__(self, default: str | None, *, may_switch: bool) -> None:
        self._may_switch = may_switch
        if default is None:
            self.default = own_user()
            return
        entry = find_user(default)
        if entry is None:
            raise UsageError(f"there is no user {default!r}", setting="pty_user")
        self.default = entry
        if entry.switches and os.geteuid() != 0:
            problem = f"only a service that runs as root can run terminals as {default}"
            raise UsageError(problem, setting="pty_user")

    def choose(self, name: str | None) -> User:
        """Return the user that a client asks for by ``name`` (None: the default).

        Raises ConnectError: ``unauthenticated`` for an unknown user, ``permission_denied`` for one that is not allowed.
        """
        if not name:
            return self.default
        user = self.default if name == self.default.name else find_user(name)
        if user is None:
            raise ConnectError("unauthenticated", f"invalid username: '{name}'")
        if user.uid == self.default.uid:
            return user
        if not self._may_switch:
            raise ConnectError(
                "permission_denied",
                f"running as {name!r} is only allowed if the service requires a token ({spelled('pty_token_file')})",
            )
        if user.switches and os.geteuid() != 0:
            raise ConnectError("permission_denied", f"running as {name!r} is only possible if the service runs as root")
        return user


def asked_user(authorization: str | None) -> str | None:
    """Return the user that an Authorization header names; E2B's clients send ``Basic base64(user:)``.

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
        raise ConnectError("unauthenticated", "Authorization must name a user: Basic base64(user:)") from exc


def working_directory(user: User, cwd: str | None) -> str:
    """Return the folder to start in; raises ConnectError (``invalid_argument``) if it does not exist."""
    if cwd is None:
        return user.home if os.path.isdir(user.home) else "/"
    path = expand(user, cwd)
    if not os.path.isdir(path):
        raise ConnectError("invalid_argument", f"cwd '{path}' does not exist")
    return path
