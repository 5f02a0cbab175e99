"""The file with the process ID of a service, for scripts that signal it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tunnel.errors import UsageError, spelled
from tunnel.net.files import read_regular, write_whole
from tunnel.server.log import event

_LIMIT = 64  # bytes of such a file


@contextmanager
def pidfile(path: str | None) -> Iterator[None]:
    """Keep the process ID in the file ``path`` (None: nowhere) during the block.

    It is written in one step, and removed at the end unless it has another number by then. Raises UsageError.
    """
    if path is None:
        yield
        return
    own = f"{os.getpid()}\n".encode()
    if _content(path) != own:  # otherwise it was written before a restart in place
        _write(path, own)
    try:
        yield
    finally:
        if _content(path) == own:
            try:
                os.unlink(path)
            except OSError as exc:  # the disk has become read-only, for example
                line = f"{spelled('pidfile')}: cannot remove {path}: {exc.strerror or exc}"
                event(logging.WARNING, "warning", message=line)


def _content(path: str) -> bytes | None:
    try:
        return read_regular(path, _LIMIT)[0]
    except OSError:
        return None


def _write(path: str, content: bytes) -> None:
    try:
        if os.path.lexists(path) and not os.path.isfile(path):
            raise UsageError(code="file", setting="pidfile", path=path, reason="it is not a regular file")
        write_whole(path, content, 0o644)
    except OSError as exc:
        raise UsageError(code="file", setting="pidfile", path=path, reason=exc.strerror or str(exc)) from exc
