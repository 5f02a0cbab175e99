"""Files that somebody names as configuration or as a secret: opened without waiting, and only if they are files.

A named pipe would hold up whoever opens it, a device like /dev/zero never ends, and what others may write is not the
word of the user. Everything that is refused is an OSError whose ``strerror`` is the reason, so that it is told as
"No such file or directory" is.
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
# O_NONBLOCK so that a pipe which takes the file's place at the last moment is opened, and seen, at once.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
# Whether modes and owners say who may read and write.
_HAS_MODES = hasattr(os, "geteuid")

# How much others than the owner may be able to write: anything; nothing; nothing unless their group is the owner's own;
# nothing, and the owner is root or ourselves. Else it does not matter whose a file is: what is mounted into a container
# often belongs to somebody of its host.
ANY, STRICT, LENIENT, OWNED = "any", "strict", "lenient", "owned"


def open_regular(path: str, *, guard: str = ANY) -> tuple[int, os.stat_result]:
    """Return a descriptor to read the regular file at ``path``, and what the system knows of the file.

    ``guard`` is one of `ANY`, `STRICT`, `LENIENT` and `OWNED`. Raises OSError.
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
    """Return what is in the regular file at ``path``, ``limit`` bytes at most, and what the system knows of the file.

    As `open_regular`; raises OSError for a longer file, too, which says ``too_long``.
    """
    descriptor, info = open_regular(path, guard=guard)
    with open(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, too_long.format(limit=limit), path)
    return data, info


def text_of(data: bytes, errors: str = "strict") -> str:
    """Return the text of a file: UTF-8, or UTF-16 if it begins with the mark of that. Raises UnicodeDecodeError.

    Editors of Windows put a byte order mark before UTF-8, too, and PowerShell's ``>`` writes UTF-16; no mark is text.
    ``errors`` is as for `bytes.decode`, and of UTF-8 only.
    """
    if is_utf16(data):
        return data.decode("utf-16")
    return without_mark(data).decode(errors=errors)


def without_mark(data: bytes) -> bytes:
    """Return what is in a file without the byte order mark of UTF-8, for what reads it in bytes."""
    return data.removeprefix(b"\xef\xbb\xbf")


def is_utf16(data: bytes) -> bool:
    """Return whether a file begins with a byte order mark of UTF-16, and has something behind it."""
    return len(data) > 2 and data.startswith((b"\xff\xfe", b"\xfe\xff"))


def check_regular(path: str, *, guard: str = ANY) -> os.stat_result:
    """Raise what `open_regular` raises, for a file that a library will open by itself."""
    descriptor, info = open_regular(path, guard=guard)
    os.close(descriptor)
    return info


def is_exposed(info: os.stat_result) -> bool:
    """Return whether a file can be read by more than those who must.

    The group of a file that is not ours is not counted: it may be the only way in which we can read it, as it is for a
    secret that Kubernetes mounts.
    """
    if not _HAS_MODES:
        return False
    return bool(info.st_mode & 0o004 or (info.st_mode & 0o040 and info.st_uid == os.geteuid()))


def _check_kind(info: os.stat_result, path: str) -> None:
    for is_kind, number, reason in _KINDS:
        if is_kind(info.st_mode):
            raise OSError(number, reason, path)
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", path)


def _check_guarded(info: os.stat_result, path: str, guard: str) -> None:
    """Raise OSError when somebody else could have written the file, or could do so now."""
    if not _HAS_MODES:
        return
    if guard == OWNED and info.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, "it belongs to another user", path)
    others = info.st_mode & 0o002 or (
        info.st_mode & 0o020 and not (guard == LENIENT and _is_own_group(info.st_uid, info.st_gid))
    )
    if others:
        reason = f"its mode is {stat.S_IMODE(info.st_mode):04o}, so others may write to it: chmod 600"
        raise OSError(errno.EPERM, reason, path)


def _is_own_group(user: int, group: int) -> bool:
    """Return whether ``group`` is that user's alone, as many systems make one for each, whose umask is then 002."""
    if user == 0:
        return False
    import grp
    import pwd

    try:
        owner, entry = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return entry.gr_name == owner and not set(entry.gr_mem) - {owner}
