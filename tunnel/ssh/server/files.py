"""Files of the embedded SSH server: SFTP and legacy scp, as the user whom the process runs as.

asyncssh does nearly all of it. Relative paths start at the process's working directory, which is the user's home.
"""

from __future__ import annotations

import os
import stat
from typing import Any

import asyncssh


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
