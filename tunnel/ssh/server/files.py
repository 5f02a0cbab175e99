"""Files of the embedded SSH server, for SFTP and legacy scp, as the user of the process.

asyncssh does nearly all of the work. Relative paths start at the process's working directory, which is the user's home.
Like OpenSSH, this ignores bytes after the last field of a message: rclone in Debian 12 sends some.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from typing import Any

import asyncssh
import asyncssh.sftp
from asyncssh.packet import SSHPacket


class _Packet(SSHPacket):
    def check_end(self) -> None:
        """Accept further bytes."""


class _Handler(asyncssh.sftp.SFTPServerHandler):
    async def recv_packet(self) -> SSHPacket:
        """Return the next message."""
        return _Packet((await super().recv_packet()).get_full_payload())


# asyncssh has no option for this class. This process has no other SFTP server.
setattr(asyncssh.sftp, "SFTPServerHandler", _Handler)  # noqa: B010 - the type checker takes it for a constant

_LAST_TIME = 0xFFFFFFFF  # the latest time in version 3 of the protocol, in seconds since 1970


class Files(asyncssh.SFTPServer):
    """The files of one session. With ``follows_links`` the listing of a folder describes the targets of its links."""

    follows_links = False

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """Yield the entries of a folder. Like OpenSSH, leave out those that disappear meanwhile."""
        folder = self.map_path(path)
        with os.scandir(folder) as entries:
            for name in (b".", b".."):
                yield asyncssh.SFTPName(name, attrs=_attributes(os.lstat(os.path.join(folder, name))))
            for entry in entries:
                try:
                    info = entry.stat(follow_symlinks=self.follows_links)
                except OSError:
                    try:
                        info = entry.stat(follow_symlinks=False)  # a dangling link
                    except OSError:
                        continue
                yield asyncssh.SFTPName(entry.name, attrs=_attributes(info))

    def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """Return the attributes of a file, whatever its times are."""
        return _attributes(os.stat(self.map_path(path)))

    def lstat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """Return the attributes of a file or link, without following it."""
        return _attributes(os.lstat(self.map_path(path)))

    def fstat(self, file_obj: Any) -> asyncssh.SFTPAttrs:
        """Return the attributes of an open file."""
        return _attributes(os.fstat(file_obj.fileno()))

    def rename(self, oldpath: bytes, newpath: bytes) -> Any:
        """Rename a file; like asyncssh, but do not overwrite a dangling link either."""
        if os.path.lexists(self.map_path(newpath)):
            raise asyncssh.SFTPFileAlreadyExists("File already exists")
        return super().rename(oldpath, newpath)

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        """Open a file, but refuse a FIFO: waiting for its other end would block the whole connection."""
        self._refuse_fifo(path)
        return super().open(path, pflags, attrs)

    def open56(self, path: bytes, desired_access: int, flags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        """Open a file in versions 5 and 6 of the protocol, like `open`."""
        self._refuse_fifo(path)
        return super().open56(path, desired_access, flags, attrs)

    def exit(self) -> None:
        """End the session with status 0: for OpenSSH's scp a missing status is a failure."""
        self.channel.exit(0)

    def _refuse_fifo(self, path: bytes) -> None:
        try:
            is_fifo = stat.S_ISFIFO(os.stat(self.map_path(path)).st_mode)
        except OSError:
            return  # opening it will fail with the right error
        if is_fifo:
            raise asyncssh.SFTPFailure(f"{path.decode(errors='replace')} is a FIFO")


def _attributes(info: os.stat_result) -> asyncssh.SFTPAttrs:
    """Return the attributes of a file; times before 1970 or after 2106 are replaced by the nearest possible one."""
    attrs = asyncssh.SFTPAttrs.from_local(info)
    for name in ("atime", "mtime"):
        setattr(attrs, name, min(max(getattr(attrs, name), 0), _LAST_TIME))
    return attrs
