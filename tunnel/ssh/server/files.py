"""SFTP and legacy scp of the embedded SSH server, as the user of the process.

asyncssh does nearly all of the work. Relative paths start at the process's working directory, which is the user's home.
Like OpenSSH, this ignores bytes after the last field of a message: rclone in Debian 12 sends some.
"""

from __future__ import annotations

import os
import stat
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


class Files(asyncssh.SFTPServer):
    """The files of one session."""

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
