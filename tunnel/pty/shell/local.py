"""The terminal at this end: its size, raw mode, and giving it back as it was found."""

from __future__ import annotations

import os
import sys
from typing import Any

from tunnel.errors import UsageError
from tunnel.pty.client.model import PtySize

if sys.platform == "win32":
    raise UsageError("shell needs a POSIX system; from Python, tunnel.Sandbox works here too")

import termios
import tty


class LocalTerminal:
    """Standard input, if it is a terminal, and its modes."""

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self.present = os.isatty(fd)
        self._found: list[Any] | None = None

    def size(self) -> PtySize | None:
        """Return the size of the terminal that the user looks at, None if there is none or it does not know."""
        for fd in (self._fd, 1, 2):
            try:
                cols, rows = os.get_terminal_size(fd)
            except OSError:
                continue
            if cols > 0 and rows > 0:
                return PtySize(rows=rows, cols=cols)
        return None

    def enter_raw(self) -> None:
        """Pass on every key as it is typed, and print what comes as it is. `restore` must follow."""
        if self.present and self._found is None:
            self._found = termios.tcgetattr(self._fd)
            tty.setraw(self._fd, termios.TCSADRAIN)

    def restore(self) -> None:
        """Give the terminal its modes back; harmless if they were not changed, and if the terminal is gone."""
        found, self._found = self._found, None
        if found is None:
            return
        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, found)
        except termios.error:
            pass  # the terminal was hung up: there is nothing left to restore
