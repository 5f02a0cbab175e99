"""Files for secrets and certificates: written whole or not at all, never over another unless asked, secrets mode 0600.

The umask can only take permissions away from what is asked for here. Errors are UsageErrors, as it is the user who
named the file.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tunnel.errors import UsageError
from tunnel.net.files import read_regular, without_mark

SECRET = 0o600
PUBLIC = 0o644
PRIVATE_FOLDER = 0o700
SIZE_LIMIT = 1 << 20  # bytes of a file that is read here
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write \r\n for \n


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is to be written to ``path``, with the permissions ``mode``."""

    path: str
    data: bytes
    mode: int


def read(path: str) -> bytes:
    """Return what is in a file, without a byte order mark.

    Raises UsageError when that cannot be read, or is more than `SIZE_LIMIT` bytes.
    """
    try:
        return without_mark(read_regular(path, SIZE_LIMIT)[0])
    except OSError as exc:
        raise unusable(path, exc.strerror or str(exc)) from exc


def make_folder(path: str) -> None:
    """Make a folder that nobody else can look into, unless it is there. Raises UsageError."""
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, PRIVATE_FOLDER)
        if not os.path.isdir(path):
            raise NotADirectoryError(None, "it is no folder")
    except OSError as exc:
        raise unusable(path, exc.strerror or str(exc)) from exc


def write(files: Sequence[NewFile], *, force: bool = False) -> None:
    """Write all of ``files``, or none. Raises UsageError, also when one is there already, unless ``force``.

    A file that is replaced keeps its owner if it can.
    """
    waiting: list[str] = []  # complete files under other names, to be renamed
    claimed: list[str] = []
    try:
        for each in files:
            if force and os.path.lexists(each.path):
                _refuse_link(each.path)
            waiting.append(_write_beside(each))
        if not force:
            # A rename would replace what is there; that nothing is, and that it is ours, is settled by O_EXCL.
            for each in files:
                os.close(_open(each.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, each.mode))
                claimed.append(each.path)
        for each, name in zip(files, tuple(waiting), strict=True):
            _keep_owner(each.path, name)
            os.replace(name, each.path)
            waiting.remove(name)
            if each.path in claimed:
                claimed.remove(each.path)
    except FileExistsError as exc:
        raise UsageError(f"{exc.filename} is there already; --force replaces it") from exc
    except OSError as exc:
        raise UsageError(f"cannot write {files[0].path}: {exc.strerror or exc}") from exc
    finally:
        for leftover in (*waiting, *claimed):
            with suppress(OSError):
                os.unlink(leftover)


def replace(path: str, data: bytes) -> None:
    """Put ``data`` into the place of the file ``path`` in one step; owner and permissions stay. Raises UsageError."""
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
    """Add a line to a text file, which is made (mode 0600) if there is none. Raises UsageError."""
    try:
        descriptor = _open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, SECRET)
        with open(descriptor, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
            data = (b"" if not size or file.read(1) == b"\n" else b"\n") + line.encode() + b"\n"
            if file.write(data) != len(data):
                file.truncate(size)
                raise OSError(None, "there is no room for it")
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror or exc}") from exc


def permission_warning(path: str) -> str | None:
    """Return what is to be told of a secret that others than its owner can read or change; None if all is well."""
    if os.name != "posix":
        return None
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o022:
        return f"others can change {path}: chmod 600 it"
    if mode & 0o004:
        return f"everybody can read {path}: chmod 600 it"
    return f"its group can read {path}: chmod 600 it" if mode & 0o040 else None


def unusable(path: str, reason: str) -> UsageError:
    """Return the error that tells why a file cannot be used."""
    return UsageError(f"cannot use {path}: {reason}")


def _write_beside(new: NewFile) -> str:
    """Write a new file in the same folder, from where a rename puts it into its place in one step; return its path."""
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
    # A rename would replace the link, and what it leads to would stay as it was.
    if os.path.islink(path):
        raise UsageError(f"{path} is a link: name the file itself")


def _keep_owner(old: str, new: str) -> None:
    if os.name == "posix":
        with suppress(OSError):  # only root can give files away; without a file before there is no owner to keep
            info = os.stat(old)
            os.chown(new, info.st_uid, info.st_gid)
