"""Files for secrets and certificates: written whole or not at all, replaced only on request, secrets with mode 0600.

The umask can only remove permissions. Errors are UsageErrors, as the user has named the file.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tunnel.errors import UsageError
from tunnel.net.files import exposure_warning, read_regular, without_mark

SECRET = 0o600
PUBLIC = 0o644
PRIVATE_FOLDER = 0o700
SIZE_LIMIT = 1 << 20  # bytes of a file that is read here
_BINARY = getattr(os, "O_BINARY", 0)  # otherwise Windows writes \r\n for \n


@dataclass(frozen=True, slots=True)
class NewFile:
    """The content of a new file ``path``, with the permissions ``mode``."""

    path: str
    data: bytes
    mode: int


def read(path: str) -> bytes:
    """Return the content of a file, without a byte order mark.

    Raises UsageError if it cannot be read, or is longer than `SIZE_LIMIT` bytes.
    """
    try:
        return without_mark(read_regular(path, SIZE_LIMIT)[0])
    except OSError as exc:
        raise unusable(path, exc.strerror or str(exc)) from exc


def make_folder(path: str) -> None:
    """Make a private folder, unless it exists. Raises UsageError."""
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, PRIVATE_FOLDER)
        if not os.path.isdir(path):
            raise NotADirectoryError(None, "it is not a folder")
    except OSError as exc:
        raise unusable(path, exc.strerror or str(exc)) from exc


def write(files: Sequence[NewFile], *, force: bool = False) -> None:
    """Write all of ``files``, or none. Raises UsageError; without ``force`` also (code ``exists``) if one exists.

    Each file appears at once and complete. A file that is replaced keeps its owner if possible.
    """
    waiting: list[str] = []  # complete files with temporary names
    placed: list[str] = []
    try:
        for each in files:
            if force and os.path.lexists(each.path):
                _refuse_link(each.path)
            waiting.append(_write_beside(each))
        for each, name in zip(files, tuple(waiting), strict=True):
            if force:
                _keep_owner(each.path, name)
                os.replace(name, each.path)
            else:
                _place(name, each)
                placed.append(each.path)
            waiting.remove(name)
        placed.clear()
    except OSError as exc:
        raise UsageError(f"cannot write {files[0].path}: {exc.strerror or exc}") from exc
    finally:
        for leftover in (*waiting, *placed):
            with suppress(OSError):
                os.unlink(leftover)


def _place(name: str, new: NewFile) -> None:
    """Rename a complete file to its final name, unless that exists already."""
    try:
        try:
            os.link(name, new.path)
        except (AttributeError, OSError) as exc:
            if isinstance(exc, FileExistsError) or not os.path.exists(name):
                raise
            # A file system without links: O_EXCL reserves the name, and a rename fills it.
            os.close(_open(new.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, new.mode))
            os.replace(name, new.path)
        else:
            os.unlink(name)
    except FileExistsError as exc:
        raise UsageError(code="exists", path=new.path) from exc


def replace(path: str, data: bytes) -> None:
    """Replace the file ``path`` by ``data`` in one step; owner and permissions stay. Raises UsageError."""
    _refuse_link(path)
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        name = _write_beside(NewFile(path, data, SECRET))
        try:
            _keep_owner(path, name)
            os.chmod(name, mode)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror or exc}") from exc


def append_line(path: str, line: str) -> None:
    """Add a line to a text file, which is created (mode 0600) if it does not exist. Raises UsageError."""
    try:
        descriptor = _open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, SECRET)
        with open(descriptor, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
            data = (b"" if not size or file.read(1) == b"\n" else b"\n") + line.encode() + b"\n"
            if file.write(data) != len(data):
                file.truncate(size)
                raise OSError(None, "no space is left for it")
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror or exc}") from exc


def exposure(path: str) -> list[str]:
    """Return one line if other users can read or change the secret file at ``path``, else none."""
    return exposure_warning(path, os.stat(path))


def unusable(path: str, reason: str) -> UsageError:
    """Return the error for a file that cannot be used, with the reason."""
    return UsageError(code="file", path=path, reason=reason)


def _write_beside(new: NewFile) -> str:
    """Write a new file in the same folder, so that a rename can put it into place in one step; return its path."""
    folder, name = os.path.split(new.path)
    path = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}")
    descriptor = _open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, new.mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(new.data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise
    return path


def _open(path: str, flags: int, mode: int) -> int:
    return os.open(path, flags | _BINARY | getattr(os, "O_CLOEXEC", 0), mode)


def _refuse_link(path: str) -> None:
    # A rename would replace the link, and not the file that it points to.
    if os.path.islink(path):
        raise UsageError(f"{path} is a link: name the file itself")


def _keep_owner(old: str, new: str) -> None:
    if os.name == "posix":
        with suppress(OSError):  # only root can change the owner; there may have been no file before
            info = os.stat(old)
            os.chown(new, info.st_uid, info.st_gid)
