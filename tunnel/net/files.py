"""Files with configuration or secrets: opened without waiting, and only if they are regular files.

Opening a named pipe would block, a device such as /dev/zero never ends, and a file that other users may write cannot be
trusted. A refusal is an OSError whose ``strerror`` is the reason, so that callers report it like "No such file or
directory".
"""

from __future__ import annotations

import errno
import os
import stat

_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, "Is a directory"),
    (stat.S_ISFIFO, errno.EINVAL, "it is a pipe, not a regular file"),
    (stat.S_ISSOCK, errno.EINVAL, "it is a socket, not a regular file"),
    (stat.S_ISCHR, errno.EINVAL, "it is a device, not a regular file"),
    (stat.S_ISBLK, errno.EINVAL, "it is a device, not a regular file"),
)
# O_NONBLOCK, so that the open does not block if a pipe replaces the file at the last moment.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
# Whether modes and owners decide who may read and write.
_HAS_MODES = hasattr(os, "geteuid")

# What users other than the owner may do with a file. ANY: anything. STRICT: not write it. LENIENT: not write it, except
# for the owner's own group. OWNED: not write it, and the owner must be root or this user. PRIVATE: neither read nor
# write it. Only OWNED checks the owner, as files that are mounted into a container often belong to a user of its host.
ANY, STRICT, LENIENT, OWNED, PRIVATE = "any", "strict", "lenient", "owned", "private"


def open_regular(path: str, *, guard: str = ANY) -> tuple[int, os.stat_result]:
    """Return a descriptor to read the regular file at ``path``, and the file's status.

    ``guard`` is one of `ANY`, `STRICT`, `LENIENT`, `OWNED` and `PRIVATE`. Raises OSError.
    """
    _check_kind(os.stat(path), path)
    descriptor = os.open(path, _FLAGS)
    try:
        info = os.fstat(descriptor)
        _check_kind(info, path)
        if guard != ANY:
            _check_guarded(info, path, guard)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, info


def read_regular(
    path: str, limit: int, *, guard: str = ANY, too_long: str = "it is longer than {limit} bytes"
) -> tuple[bytes, os.stat_result]:
    """Return the content of the regular file at ``path``, at most ``limit`` bytes, and the file's status.

    As `open_regular`; also raises OSError, with the text ``too_long``, for a longer file.
    """
    descriptor, info = open_regular(path, guard=guard)
    with open(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, too_long.format(limit=limit), path)
    return data, info


def write_whole(path: str, data: bytes, mode: int) -> None:
    """Write a file in one step: readers find either all of ``data`` or all of the old content.

    This does not wait until the data is on the disk. If it raises OSError, nothing has changed.
    """
    beside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def text_of(data: bytes, errors: str = "strict") -> str:
    """Return the text of a file: UTF-8, or UTF-16 if it begins with that byte order mark. Raises UnicodeDecodeError.

    Byte order marks are removed: editors on Windows put one before UTF-8, too, and PowerShell's ``>`` writes UTF-16.
    ``errors`` is as for `bytes.decode`, and applies to UTF-8 only.
    """
    if is_utf16(data):
        return data.decode("utf-16")
    return without_mark(data).decode(errors=errors)


def without_mark(data: bytes) -> bytes:
    """Return the content of a file without the byte order mark of UTF-8, for parsers of bytes."""
    return data.removeprefix(b"\xef\xbb\xbf")


def is_utf16(data: bytes) -> bool:
    """Return whether a file begins with a byte order mark of UTF-16, and is not empty after that."""
    return len(data) > 2 and data.startswith((b"\xff\xfe", b"\xfe\xff"))


def check_regular(path: str, *, guard: str = ANY) -> os.stat_result:
    """Check a file that a library will open: raise as `open_regular`, and return the file's status."""
    descriptor, info = open_regular(path, guard=guard)
    os.close(descriptor)
    return info


def exposure_warning(path: str, info: os.stat_result, what: str = "") -> list[str]:
    """Return one line if other users can read or change the secret file at ``path``, else none.

    ``what`` is put before the path ("the key in "). The group of a file that is not ours does not count: we may be able
    to read the file only through it, as for a secret that Kubernetes mounts.
    """
    if not _HAS_MODES:
        return []
    counted = info.st_mode & (0o066 if info.st_uid == os.geteuid() else 0o006)
    if not counted:
        return []
    return [f"other users can {'change' if counted & 0o022 else 'read'} {what}{path}: chmod 600 it"]


def _check_kind(info: os.stat_result, path: str) -> None:
    for is_kind, number, reason in _KINDS:
        if is_kind(info.st_mode):
            raise OSError(number, reason, path)
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)


def _check_guarded(info: os.stat_result, path: str, guard: str) -> None:
    """Raise OSError if another user could have written the file, or could do so now."""
    if not _HAS_MODES:
        return
    if guard == OWNED and info.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, "it belongs to another user", path)
    others = info.st_mode & 0o002 or (
        info.st_mode & 0o020 and not (guard == LENIENT and _is_own_group(info.st_uid, info.st_gid))
    )
    can = "write to" if others else "read" if guard == PRIVATE and info.st_mode & 0o077 else ""
    if can:
        reason = f"its mode is {stat.S_IMODE(info.st_mode):04o}, so other users may {can} it: chmod 600"
        raise OSError(errno.EPERM, reason, path)


def _is_own_group(user: int, group: int) -> bool:
    """Return whether ``group`` is the user's own: many systems make one for each user, and then use the umask 002."""
    if user == 0:
        return False
    import grp
    import pwd

    try:
        owner, entry = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return entry.gr_name == owner and not set(entry.gr_mem) - {owner}
