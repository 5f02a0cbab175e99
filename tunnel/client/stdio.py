"""Standard input and output as the local end of a tunnel, whatever they are: pipes, sockets, files or a terminal.

This module makes all choices that depend on the platform. A descriptor that a selector can wait for is used directly;
for others (pipes on Windows) there is `tunnel.client.threaded_stdio`.
"""

from __future__ import annotations

import os
import stat
import sys

from tunnel.net.channel import MAX_PIECES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.client.threaded_stdio import ThreadedInput, ThreadedOutput
    from tunnel.protocol.frames import Buffer

PIPE_SIZE = 1 << 20  # bytes; Linux's default costs a system call and a context switch for every 64 KiB
# A terminal is shared with the shell, so it stays blocking; a write of this size does not wait once it is writable.
_TERMINAL_WRITE = 1024


class StandardInput:
    """The source of a ProxyCommand: descriptor 0, or any other."""

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._restore = _prepare(fd)

    @property
    def waitable(self) -> bool:
        """Whether a selector can wait for it; a regular file never blocks."""
        return not stat.S_ISREG(os.fstat(self._fd).st_mode)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._fd

    def receive_into(self, space: memoryview) -> int | None:
        """Read into ``space``; as `Channel.receive_into`."""
        try:
            return os.readv(self._fd, [space])
        except (BlockingIOError, InterruptedError):
            return None

    def close(self) -> None:
        """Give the descriptor back as it was."""
        if self._restore:
            os.set_blocking(self._fd, True)


class StandardOutput:
    """The sink of a ProxyCommand: descriptor 1, or any other."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._restore = _prepare(fd)
        mode = os.fstat(fd).st_mode
        self._terminal = stat.S_ISCHR(mode)
        self.is_pipe = stat.S_ISFIFO(mode)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._fd

    def send(self, pieces: Sequence[Buffer]) -> int:
        """Write as much as possible without waiting; as `Channel.send`."""
        try:
            if self._terminal:
                return os.write(self._fd, pieces[0][:_TERMINAL_WRITE])
            if len(pieces) == 1 or not hasattr(os, "writev"):
                return os.write(self._fd, pieces[0])
            return os.writev(self._fd, pieces[:MAX_PIECES])
        except (BlockingIOError, InterruptedError):
            return 0

    def end_stream(self) -> bool:
        """Return False: our exit closes the descriptor, and after the peer's end nobody reads what we send."""
        return False

    def finish(self, limit: float = 0.0) -> int:
        """Return 0: what was sent is written. See `tunnel.client.threaded_stdio.ThreadedOutput.finish`."""
        return 0

    def close(self) -> None:
        """Give the descriptor back as it was."""
        if self._restore:
            os.set_blocking(self._fd, True)


def open_input(*, threaded: bool = False) -> StandardInput | ThreadedInput:
    """Return standard input as a source; ``threaded`` forces the implementation for Windows. Raises OSError."""
    if threaded or sys.platform == "win32":
        from tunnel.client.threaded_stdio import ThreadedInput

        return ThreadedInput()
    return StandardInput()


def open_output(*, threaded: bool = False) -> StandardOutput | ThreadedOutput:
    """Return standard output as a sink; ``threaded`` forces the implementation for Windows. Raises OSError."""
    if threaded or sys.platform == "win32":
        from tunnel.client.threaded_stdio import ThreadedOutput

        return ThreadedOutput()
    return StandardOutput()


def discard_standard_output() -> None:
    """Point descriptor 1 to the null device, so that the interpreter's last flush cannot fail on a closed pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _prepare(fd: int) -> bool:
    """Make a pipe or socket non-blocking, and enlarge a pipe; return whether its mode must be restored at the end.

    Terminals, devices and files stay unchanged, as other processes that have them open share their mode.
    """
    if sys.platform == "win32":
        return False
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return False
    if sys.platform == "linux" and stat.S_ISFIFO(mode):
        import fcntl

        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            pass  # the user's limit for pipes is reached; the default size is only slower
    blocking = os.get_blocking(fd)
    os.set_blocking(fd, False)
    return blocking
