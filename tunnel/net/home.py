"""The user's home, and its folders according to the XDG base directory specification.

There may be no home, as in containers that run under any uid, without HOME or an account. A relative path does not
count: it would be below the working directory, which may belong to another user.
"""

from __future__ import annotations

import os
import sys

from tunnel.errors import UsageError


def home_folder() -> str | None:
    """Return the absolute path of the user's home: HOME, or that of the account; None if there is neither."""
    if sys.platform == "win32":
        folder = os.path.expanduser("~")
    else:
        folder = os.environ.get("HOME", "")
        if not os.path.isabs(folder):
            folder = _home_of_account()
    return folder if os.path.isabs(folder) else None


def wanted_home(what: str, *, setting: str | None = None, origin: str | None = None) -> str:
    """Return the user's home, which is needed for ``what``. Raises UsageError if there is none.

    ``setting`` and ``origin`` are as for UsageError.
    """
    home = home_folder()
    if home is None:
        variable = "USERPROFILE" if sys.platform == "win32" else "HOME"
        value = os.environ.get(variable)
        why = f"{variable} is not set" if value is None else f"{variable}={value} is not an absolute path"
        who = f", and user {os.getuid()} has no account" if hasattr(os, "getuid") else ""
        raise UsageError(f"{what}: there is no home folder: {why}{who}", setting=setting, origin=origin)
    return home


def expand_home(path: str, *, setting: str | None = None, origin: str | None = None) -> str:
    """Return ``path`` with ``~`` or ``~user`` at its start replaced, as by shells.

    Raises UsageError, with ``setting`` and ``origin``, if that home is not known.
    """
    if not path.startswith("~"):
        return path
    user, slash, rest = path.partition("/")
    if user == "~":
        home = wanted_home(path, setting=setting, origin=origin)
        return os.path.join(home, rest) if slash else home
    expanded = os.path.expanduser(path)
    if not os.path.isabs(expanded):
        problem = f"{path}: there is no user {user[1:]} with a home; for a file with that name write ./{path}"
        raise UsageError(problem, setting=setting, origin=origin)
    return expanded


def base_folder(variable: str, *default: str) -> str | None:
    """Return the folder that ``variable`` (XDG_CONFIG_HOME, …) names, else ``default`` in the user's home.

    None if there is no home. A relative path is ignored, as required by the XDG specification.
    """
    folder = os.environ.get(variable)
    if folder and os.path.isabs(folder):
        return folder
    home = home_folder()
    return None if home is None else os.path.join(home, *default)


def _home_of_account() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""
