"""Standard input and output as the local end of a tunnel, whatever they are: pipes, sockets, files or a terminal.

All that depends on the platform is in this file. Where a descriptor can be waited for it is used as it is; where it
cannot (pipes on Windows) a thread feeds standard input into a socket pair.
"""

from __future__ import annotations

import os
import socket
import stat
import sys

from tunnel.net.channel import MAX_PIECES, Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.protocol.frames import Buffer

PIPE_SIZE = 1 << 20  # bytes; Linux's default of 64 KiB costs a system call and a switch for every 64 KiB
# A terminal is shared with the shell, so it stays blocking; a write this small does not wait once it is writable.
_TERMINAL_WRITE = 1024
_THREAD_READ = 64 * 1024


class StandardInput:
    """The source of a ProxyCommand: descriptor 0, or any other."""

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._restore = _prepare(fd)

    @property
    def waitable(self) -> bool:
        """Whether a selector can tell when to read; a regular file never blocks and need not be waited for."""
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


class ThreadedInput:
    """The source where no selector can watch descriptor 0: a thread reads it and feeds a socket pair.

    Backpressure holds: the thread blocks while the pair is full. It is a daemon, as nothing can interrupt its read.
    """

    waitable = True

    def __init__(self, fd: int = 0) -> None:
        import threading

        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        threading.Thread(target=_feed, args=(fd, theirs), name="stdin", daemon=True).start()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._channel.fileno()

    def receive_into(self, space: memoryview) -> int | None:
        """Read into ``space``; as `Channel.receive_into`."""
        return self._channel.receive_into(space)

    def close(self) -> None:
        """Close our end of the pair; the thread stops at its next write."""
        self._channel.close()


def _feed(fd: int, pair: socket.socket) -> None:
    with pair:
        try:
            while data := os.read(fd, _THREAD_READ):
                pair.sendall(data)
        except OSError:
            return  # input that breaks is input that ends; or the tunnel is over and has closed the pair


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
        """Write what goes without waiting; as `Channel.send`."""
        try:
            if self._terminal:
                return os.write(self._fd, pieces[0][:_TERMINAL_WRITE])
            if len(pieces) == 1 or not hasattr(os, "writev"):
                return os.write(self._fd, pieces[0])
            return os.writev(self._fd, pieces[:MAX_PIECES])
        except (BlockingIOError, InterruptedError):
            return 0

    def end_stream(self) -> bool:
        """Return False: our exit tells whoever reads this, and behind the peer's end nothing we send has a reader."""
        return False

    def close(self) -> None:
        """Give the descriptor back as it was."""
        if self._restore:
            os.set_blocking(self._fd, True)


def open_input(*, threaded: bool = False) -> StandardInput | ThreadedInput:
    """Return standard input as a source; ``threaded`` forces the way of platforms that cannot wait for a pipe."""
    if threaded or sys.platform == "win32":
        return ThreadedInput()
    return StandardInput()


def discard_standard_output() -> None:
    """Point descriptor 1 to the null device, so that the interpreter's last flush cannot fail on a closed pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _prepare(fd: int) -> bool:
    """Make a pipe or socket non-blocking, and a pipe roomy; return whether its mode must be given back at the end.

    Terminals, devices and files stay as they are: their mode is shared with whoever else has them open.
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
            pass  # the user's limit for pipes is reached: the default size is slower, not wrong
    blocking = os.get_blocking(fd)
    os.set_blocking(fd, False)
    return blocking
