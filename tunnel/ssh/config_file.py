"""The two files of ``config-ssh``: its own file, and ssh's config file, which gets a line that includes it.

Changes are planned from the current bytes, so that they can be shown instead of made. Each file is replaced atomically.
Text by the user or another program is kept byte for byte. `config` makes the lines.
"""

from __future__ import annotations

import difflib
import itertools
import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from tunnel.errors import UsageError
from tunnel.net.files import read_regular
from tunnel.net.home import home_folder, wanted_home
from tunnel.ssh.quoting import quoted

OWN_NAME = "wstunnel-py.conf"
SIZE_LIMIT = 1 << 20  # bytes; no real ssh_config is larger
MARKER = b"# Written by wstunnel-py config-ssh --write, which replaces all of it; --remove deletes it."
CREATED = b"# ssh's config file was made for it, and goes with it if nothing else has come into it."
MADE_BY = b"# Made by: "
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SSH_FOLDER = ".ssh"


@dataclass(frozen=True)
class Change:
    """A planned change of one file; bytes of ``None`` mean that the file does not exist.

    ``path`` is the user's name for it, ``target`` the file itself after resolving links.
    """

    path: str
    target: str
    before: bytes | None
    after: bytes | None

    @property
    def is_one(self) -> bool:
        return self.before != self.after


def default_path() -> str:
    """Return the path of ssh's config file in HOME. Raises UsageError for a user without a home."""
    return os.path.join(wanted_home("ssh's config file"), SSH_FOLDER, "config")


def folder_of_ssh() -> str | None:
    """Return the folder that ssh itself uses: on POSIX that of the user's account, whatever HOME is.

    None for a user without an account and a home.
    """
    home: str | None
    try:
        import pwd

        home = pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):  # Windows, or a user without an account, as in some containers
        home = home_folder()
    return None if home is None else os.path.join(home, SSH_FOLDER)


def own_path(ssh_config: str) -> str:
    """Return the path of our own file, in the folder of ``ssh_config``."""
    folder, name = os.path.split(os.path.abspath(ssh_config))
    if name == OWN_NAME:
        raise UsageError(code="file", setting="ssh_config", path=ssh_config, reason="it cannot include itself")
    return os.path.join(folder, OWN_NAME)


def include_line(ssh_config: str) -> bytes:
    """Return the Include line for our own file, without its line end. Raises UsageError for an impossible path.

    In ssh's own folder it has only the file's name, which all parsers read in the same way, and which stays valid if
    the folder is moved.
    """
    own = own_path(ssh_config)
    folder = folder_of_ssh()
    # Windows' paths may differ in case, and be the same.
    if folder is not None and os.path.normcase(os.path.dirname(own)) == os.path.normcase(os.path.abspath(folder)):
        return b"Include " + OWN_NAME.encode()
    if any(c in own for c in "*?[]"):
        raise UsageError(f"{own}: an Include cannot name this file, as * ? [ ] are wildcards there")
    return b"Include " + quoted(own, percent=False).encode()


def plan_write(ssh_config: str, blocks: str, made_by: str) -> list[Change]:
    """Return the changes that write ``blocks`` into our own file and the Include into ``ssh_config``.

    ``made_by`` is stored in a comment. Raises UsageError.
    """
    own, config = read_file(own_path(ssh_config)), read_file(ssh_config)
    _check_owner(own)
    created = config.before is None or CREATED in _comments(own)
    head = [MARKER, *([CREATED] if created else []), MADE_BY + made_by.encode()]
    after = b"\n".join([*head, b"", blocks.encode()])
    return [changed(own, after), changed(config, _with_line(config.before or b"", include_line(ssh_config)))]


def plan_remove(ssh_config: str) -> list[Change]:
    """Return the changes that remove our line from ``ssh_config`` and delete our own file. Raises UsageError."""
    own, config = read_file(own_path(ssh_config)), read_file(ssh_config)
    _check_owner(own)
    after = None if config.before is None else _without_line(config.before, include_line(ssh_config))
    if after == b"" and CREATED in _comments(own):
        after = None
    return [changed(config, after), changed(own, None)]


def written(ssh_config: str) -> tuple[str, list[str]] | None:
    """Return the command that wrote our own file, and its hosts; None unless ``ssh_config`` includes such a file.

    Raises UsageError for a file that cannot be read.
    """
    own, config = read_file(own_path(ssh_config)), read_file(ssh_config)
    if own.before is None or config.before is None or not _is_ours(own):
        return None
    lines = _lines(own.before)
    made_by = next((line for line in lines if line.startswith(MADE_BY)), None)
    included = any(line.rstrip(b"\r\n") == include_line(ssh_config) for line in _lines(config.before))
    if made_by is None or not included:
        return None
    return made_by.removeprefix(MADE_BY).decode(errors="replace").rstrip("\r\n"), hosts_in(own.before)


def diff(changes: Sequence[Change]) -> bytes:
    """Return the changes as a unified diff."""
    lines: list[bytes] = []
    for change in changes:
        old, new = (
            b"/dev/null" if data is None else os.fsencode(change.path) for data in (change.before, change.after)
        )
        before, after = (_lines(data or b"") for data in (change.before, change.after))
        lines += difflib.diff_bytes(difflib.unified_diff, before, after, old, new)
    return b"".join(line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in lines)


def report(changes: Sequence[Change]) -> list[str]:
    """Return lines for the user that describe the changes."""
    if not any(change.is_one for change in changes):
        return [f"nothing to change: {' and '.join(change.path for change in changes)}"]
    lines = []
    for change in changes:
        if not change.is_one:
            continue
        if os.path.basename(change.path) != OWN_NAME:
            lines.append(_report_include(change))
        elif change.after is None:
            lines.append(f"deleted {change.path}")
        else:
            before, after = hosts_in(change.before or b""), hosts_in(change.after)
            gone = [host for host in before if host not in after]
            lines.append(f"wrote {change.path}: {' '.join(after)}" + (f"; removed: {' '.join(gone)}" if gone else ""))
    return lines


def _report_include(change: Change) -> str:
    if change.after is None:
        return f"deleted {change.path}, which contained only the Include"
    before, after = (len(data or b"") for data in (change.before, change.after))
    return (
        f"put the Include at the top of {change.path}" if after >= before else f"removed the Include from {change.path}"
    )


def hosts_in(data: bytes) -> list[str]:
    """Return the hosts and patterns of an ssh_config, in order."""
    return [line[5:].strip().decode(errors="replace") for line in _lines(data) if line.startswith(b"Host ")]


def apply(changes: Sequence[Change]) -> None:
    """Make the changes in order, each completely or not at all.

    Raises UsageError if a file cannot be written, or has changed since the change was planned.
    """
    for change in changes:
        if not change.is_one:
            continue
        try:
            if change.after is None:
                _check_unchanged(change)
                os.unlink(change.target)
            else:
                _replace(change, change.after)
        except OSError as exc:
            raise _unusable(change.path, exc.strerror or str(exc)) from exc


def _replace(change: Change, data: bytes) -> None:
    folder = os.path.dirname(change.target)
    _make_folder(folder)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{OWN_NAME}.", dir=folder)  # with mode 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if change.before is not None:
                _take_over(change.target, temporary)
            os.fsync(file.fileno())
        _check_unchanged(change)
        os.replace(temporary, change.target)
    except BaseException:
        os.unlink(temporary)
        raise
    if hasattr(os, "O_DIRECTORY"):  # sync the folder, too, so that the new name is on the disk
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _make_folder(path: str) -> None:
    """Make a folder for ssh's files, unless it exists."""
    if os.name == "posix":
        os.makedirs(path, mode=0o700, exist_ok=True)
    else:
        # It inherits the permissions of the user's profile. For 0o700, Python since 3.12.4 would set an entry (OWNER
        # RIGHTS) for which OpenSSH refuses every file in the folder: https://github.com/python/cpython/issues/128038
        os.makedirs(path, exist_ok=True)


def _take_over(target: str, temporary: str) -> None:
    """Give the new file the mode and the owner of the one that it replaces."""
    if os.name != "posix":
        return  # read-only, the only mode of Windows, would keep us from removing the new file if it is not needed
    old, new = os.stat(target), os.stat(temporary)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.chown(temporary, old.st_uid, old.st_gid)
    os.chmod(temporary, stat.S_IMODE(old.st_mode))


def _check_unchanged(change: Change) -> None:
    """Raise UsageError if the file has changed. Another program could still change it in the next microseconds."""
    if read_file(change.path) != Change(change.path, change.target, change.before, change.before):
        raise UsageError(code="file-changed", path=change.path)


def read_file(path: str) -> Change:
    """Return the current file at ``path`` as a change that does nothing. Raises UsageError."""
    target = os.path.realpath(path)
    try:
        if not stat.S_ISREG(os.stat(target).st_mode):
            raise _unusable(path, "it is not a regular file")
        data = read_regular(target, SIZE_LIMIT, too_long="it is larger than {limit} bytes")[0]
    except FileNotFoundError:
        return Change(path, target, None, None)
    except OSError as exc:
        raise _unusable(path, exc.strerror or str(exc)) from exc
    return Change(path, target, data, data)


def _unusable(path: str, reason: str) -> UsageError:
    return UsageError(code="file", path=path, reason=reason)


def changed(change: Change, after: bytes | None) -> Change:
    """Return the change of the same file to ``after``."""
    return Change(change.path, change.target, change.before, after)


def _check_owner(own: Change) -> None:
    if own.before is not None and not _is_ours(own):
        raise _unusable(own.path, "it was not written by config-ssh: move it away")


def _is_ours(own: Change) -> bool:
    return _comments(own)[:1] == [MARKER]


def _comments(own: Change) -> list[bytes]:
    """Return our comments at the top of our own file; an editor on Windows may have changed the line ends."""
    lines = (line.rstrip(b"\r\n") for line in _lines(own.before or b""))
    return list(itertools.takewhile(lambda line: line.startswith(b"#"), lines))


def _lines(data: bytes) -> list[bytes]:
    """Return the lines of ``data`` with their ends, split as by ssh: only at line feeds."""
    *whole, rest = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


def _with_line(data: bytes, include: bytes) -> bytes:
    """Return ``data`` with ``include`` as exactly one line before the first block, so that it is for all hosts."""
    lines = _lines(data.removeprefix(BYTE_ORDER_MARK))
    ours = [at for at, line in enumerate(lines) if line.rstrip(b"\r\n") == include]
    block = next((at for at, line in enumerate(lines) if _opens_block(line)), len(lines))
    if len(ours) == 1 and ours[0] < block:
        return data
    mark = data[: len(BYTE_ORDER_MARK)] if data.startswith(BYTE_ORDER_MARK) else b""
    rest = _without_line(data, include).removeprefix(BYTE_ORDER_MARK)
    end = b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"
    return mark + include + end + rest


def _without_line(data: bytes, include: bytes) -> bytes:
    """Return ``data`` without the ``include`` lines."""
    mark = BYTE_ORDER_MARK if data.startswith(BYTE_ORDER_MARK) else b""
    lines = _lines(data.removeprefix(mark))
    return mark + b"".join(line for line in lines if line.rstrip(b"\r\n") != include)


def _opens_block(line: bytes) -> bool:
    """Whether a line begins a block for some hosts only (``Host``, ``Match``)."""
    words = line.replace(b"=", b" ").split(maxsplit=1)
    return bool(words) and words[0].strip(b'"').lower() in (b"host", b"match")
