"""The files of a service that hold secrets, and a note of those that others can read.

What others can write is refused where it is read (`tunnel.net.files`). That they can read it may be how a platform
mounts its secrets, so it is only told.
"""

from __future__ import annotations

from tunnel.errors import spelled
from tunnel.net.files import check_regular, exposure_warning
from tunnel.server.settings import ServeSettings


def exposed_secrets(settings: ServeSettings) -> list[str]:
    """Return a line for each file with a secret that more can read than must."""
    key = settings.tls_key if settings.tls_key is not None else settings.tls_cert
    files = [("token_file", path) for path in settings.token_file]
    files += [("pty_token_file", path) for path in settings.pty_token_file]
    files += [("tls_key" if settings.tls_key is not None else "tls_cert", key)] if key is not None else []
    return [f"{spelled(setting)}: {line}" for setting, path in files for line in _warning(path)]


def _warning(path: str) -> list[str]:
    try:
        return exposure_warning(path, check_regular(path))
    except OSError:
        return []  # replaced since it was read; the next reload will tell
