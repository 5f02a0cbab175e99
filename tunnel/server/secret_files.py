"""The files of a service that hold secrets, and a note of those that others can read.

What others can write is refused where it is read (`tunnel.net.files`). That they can read it may be how a platform
mounts its secrets, so it is only told.
"""

from __future__ import annotations

from tunnel.net.files import check_regular, is_exposed
from tunnel.server.settings import ServeSettings


def exposed_secrets(settings: ServeSettings) -> list[str]:
    """Return a line for each file with a secret that more can read than must."""
    key = settings.tls_key if settings.tls_key is not None else settings.tls_cert
    files = [("--token-file", path) for path in settings.token_file]
    files += [("--pty-token-file", path) for path in settings.pty_token_file]
    files += [("--tls-key" if settings.tls_key is not None else "--tls-cert", key)] if key is not None else []
    return [f"{option}: others can read {path}: chmod 600 it" for option, path in files if _is_exposed(path)]


def _is_exposed(path: str) -> bool:
    try:
        return is_exposed(check_regular(path))
    except OSError:
        return False  # replaced since it was read; the next reload will tell
