"""The local terminal, or pipes: size, modes, source and sink. On Windows `console` implements them."""

from __future__ import annotations

import os
import sys
from typing import Any

from tunnel.client.stdio import StandardOutput
from tunnel.pty.client.model import PtySize

if sys.platform != "win32":
    import termios
    import tty


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from tunnel.net.pump import Sink, Source

    class LocalSink(Sink, Protocol):
        """What writes standard output; `tunnel.client.stdio.StandardOutput` describes these methods."""

        def finish(self, limit: float = ...) -> int: ...
        def close(self) -> None: ...

    class LocalTerminal(Protocol):
        """Standard input and output. ``present`` and ``shown``: whether the input, and the output, is a terminal."""

        @property
        def present(self) -> bool: ...
        @property
        def shown(self) -> bool: ...

        def open_source(self) -> Source:
            """Return the source for standard input; a selector can wait for it."""

        def open_sink(self) -> LocalSink:
            """Return the sink for standard output."""

        def enter_raw(self) -> None:
            """Switch to raw mode, if it is a terminal: keys and output pass unchanged. Call `restore` afterwards.

            Raises UsageError if the terminal has no such mode.
            """

        def restore(self) -> None:
            """Restore the modes; does nothing if they were not changed or the terminal is gone."""

        def restore_output(self) -> None:
            """Restore the modes of the output, if the terminal has such; call this when all of it is written."""


def local_terminal() -> LocalTerminal:
    """Return the terminal or pipes of this process."""
    if sys.platform == "win32":
        from tunnel.pty.shell.console import ConsoleTerminal

        return ConsoleTerminal()
    return PosixTerminal()


def terminal_size() -> PtySize | None:
    """Return the size of the local terminal, None if there is none or it has no size."""
    for fd in (0, 1, 2):
        try:
            cols, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        if cols > 0 and rows > 0:
            return PtySize(rows=rows, cols=cols)
    return None


class PosixTerminal:
    """See `LocalTerminal`."""

    def __init__(self) -> None:
        self.present = os.isatty(0)
        self.shown = os.isatty(1)
        self._found: list[Any] | None = None

    def open_source(self) -> Source:
        return _Input()

    def open_sink(self) -> LocalSink:
        return StandardOutput()

    def enter_raw(self) -> None:
        if self.present and self._found is None:
            self._found = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)

    def restore(self) -> None:
        found, self._found = self._found, None
        if found is None:
            return
        try:
            termios.tcsetattr(0, termios.TCSADRAIN, found)
        except termios.error:
            pass  # the terminal was closed: there is nothing to restore

    def restore_output(self) -> None:
        pass  # `restore` has done it


class _Input:
    """Standard input with its mode unchanged, as other processes may read it, too."""

    def fileno(self) -> int:
        return 0

    def receive_into(self, space: memoryview) -> int | None:
        try:
            return os.readv(0, [space])
        except (BlockingIOError, InterruptedError):
            return None
