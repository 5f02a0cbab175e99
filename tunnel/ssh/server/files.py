"""Files of the embedded SSH server: SFTP and legacy scp, as the user whom the process runs as.

asyncssh does nearly all of it. Relative paths start at the process's working directory, which is the user's home.
Bytes behind the last field of a message are ignored, as OpenSSH does: Debian 12's rclone sends some.
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
        """Do not mind what follows."""


class _Handler(asyncssh.sftp.SFTPServerHandler):
    async def recv_packet(self) -> SSHPacket:
        """Return the next message."""
        return _Packet((await super().recv_packet()).get_full_payload())


# asyncssh has no option for the class; nobody else uses its server in this process.
setattr(asyncssh.sftp, "SFTPServerHandler", _Handler)  # noqa: B010 - the type checker takes it for a constant


class Files(asyncssh.SFTPServer):
    """The files of one session."""

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
