"""The secret files of a service, with a note about those that other users can read.

A file that other users can write is refused where it is read (`tunnel.net.files`). One that they can read only causes a
note, as this may be how a platform mounts its secrets.
"""

from __future__ import annotations

from tunnel.errors import spelled
from tunnel.net.files import check_regular, exposure_warning
from tunnel.server.settings import ServeSettings


def exposed_secrets(settings: ServeSettings) -> list[str]:
    """Return a line for each secret file that other users can read."""
    key = settings.tls_key if settings.tls_key is not None else settings.tls_cert
    files = [("token_file", path) for path in settings.token_file]
    files += [("pty_token_file", path) for path in settings.pty_token_file]
    files += [("tls_key" if settings.tls_key is not None else "tls_cert", key)] if key is not None else []
    return [f"{spelled(setting)}: {line}" for setting, path in files for line in _warning(path)]


def _warning(path: str) -> list[str]:
    try:
        return exposure_warning(path, check_regular(path))
    except OSError:
        return []  # replaced since it was read; the next reload reports errors
