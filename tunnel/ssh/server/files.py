"""Files of the embedded SSH server for SFTP and legacy scp, as the user whom the process runs as.

asyncssh does nearly all of it. Relative paths start at the process's working directory, which is the user's home.
Bytes behind the last field of a message are ignored, as OpenSSH does: Debian 12's rclone sends some.
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
        """Do not mind what follows."""


class _Handler(asyncssh.sftp.SFTPServerHandler):
    async def recv_packet(self) -> SSHPacket:
        """Return the next message."""
        return _Packet((await super().recv_packet()).get_full_payload())


# asyncssh has no option for the class; nobody else uses its server in this process.
setattr(asyncssh.sftp, "SFTPServerHandler", _Handler)  # noqa: B010 - the type checker takes it for a constant

_LAST_TIME = 0xFFFFFFFF  # seconds since 1970 that version 3 of the protocol can tell


class Files(asyncssh.SFTPServer):
    """The files of one session. ``follows_links`` is whether a folder's listing tells of what its links lead to."""

    follows_links = False

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """Yield what is in a folder; what is gone before it is looked at is left out, as OpenSSH does."""
        folder = self.map_path(path)
        with os.scandir(folder) as entries:
            for name in (b".", b".."):
                yield asyncssh.SFTPName(name, attrs=_attributes(os.lstat(os.path.join(folder, name))))
            for entry in entries:
                try:
                    info = entry.stat(follow_symlinks=self.follows_links)
                except OSError:
                    try:
                        info = entry.stat(follow_symlinks=False)  # a link that leads nowhere
                    except OSError:
                        continue
                yield asyncssh.SFTPName(entry.name, attrs=_attributes(info))

    def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """As asyncssh, but any time can be told."""
        return _attributes(os.stat(self.map_path(path)))

    def lstat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """As `stat`, of a link itself."""
        return _attributes(os.lstat(self.map_path(path)))

    def fstat(self, file_obj: Any) -> asyncssh.SFTPAttrs:
        """As `stat`, of an open file."""
        return _attributes(os.fstat(file_obj.fileno()))

    def rename(self, oldpath: bytes, newpath: bytes) -> Any:
        """As asyncssh; a link that leads nowhere is not overwritten either."""
        if os.path.lexists(self.map_path(newpath)):
            raise asyncssh.SFTPFileAlreadyExists("File already exists")
        return super().rename(oldpath, newpath)

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        """As asyncssh; refuses a FIFO, as waiting for its other end would hold up the whole connection."""
        self._refuse_fifo(path)
        return super().open(path, pflags, attrs)

    def open56(self, path: bytes, desired_access: int, flags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        """As `open`, in the later versions of the protocol."""
        self._refuse_fifo(path)
        return super().open56(path, desired_access, flags, attrs)

    def exit(self) -> None:
        """End the session with a status: OpenSSH's scp takes a missing one for a failure."""
        self.channel.exit(0)

    def _refuse_fifo(self, path: bytes) -> None:
        try:
            is_fifo = stat.S_ISFIFO(os.stat(self.map_path(path)).st_mode)
        except OSError:
            return  # opening it will tell
        if is_fifo:
            raise asyncssh.SFTPFailure(f"{path.decode(errors='replace')} is a FIFO")


def _attributes(info: os.stat_result) -> asyncssh.SFTPAttrs:
    """Return what is told of a file. A time before 1970 or after 2106 is the nearest that there is a number for."""
    attrs = asyncssh.SFTPAttrs.from_local(info)
    for name in ("atime", "mtime"):
        setattr(attrs, name, min(max(getattr(attrs, name), 0), _LAST_TIME))
    return attrs
