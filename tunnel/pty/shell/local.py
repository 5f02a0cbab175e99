"""The local terminal: its size, raw mode, and restoring its modes."""

from __future__ import annotations

import os
import sys
from typing import Any

from tunnel.errors import UsageError
from tunnel.pty.client.model import PtySize

if sys.platform == "win32":
    raise UsageError("shell needs a POSIX system; tunnel.Sandbox works on this one, too")

import termios
import tty


class LocalTerminal:
    """Standard input, if it is a terminal (``present``), and its modes."""

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self.present = os.isatty(fd)
        self._found: list[Any] | None = None

    def size(self) -> PtySize | None:
        """Return the size of the local terminal, None if there is none or it has no size."""
        for fd in (self._fd, 1, 2):
            try:
                cols, rows = os.get_terminal_size(fd)
            except OSError:
                continue
            if cols > 0 and rows > 0:
                return PtySize(rows=rows, cols=cols)
        return None

    def enter_raw(self) -> None:
        """Switch to raw mode: keys and output pass unchanged. Call `restore` afterwards."""
        if self.present and self._found is None:
            self._found = termios.tcgetattr(self._fd)
            tty.setraw(self._fd, termios.TCSADRAIN)

    def restore(self) -> None:
        """Restore the modes; does nothing if they were not changed or the terminal is gone."""
        found, self._found = self._found, None
        if found is None:
            return
        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, found)
        except termios.error:
            pass  # the terminal was closed: there is nothing to restore
