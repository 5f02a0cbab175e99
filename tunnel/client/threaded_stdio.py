"""Standard input and output where no selector can wait for them: a thread for each, behind a socket pair.

This is for Windows, whose `select` takes only sockets. Backpressure works in both directions: a thread waits while its
pair is full or its pipe is not read. Its reads and writes cannot be interrupted, so the end of the process does not
wait for the threads.
"""

from __future__ import annotations

import _thread
import errno
import os
import socket
import time

from tunnel.net.channel import Channel, set_nodelay
from tunnel.net.standard_streams import is_closed_by_reader
from tunnel.net.waiter import READ, Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tunnel.protocol.frames import Buffer

PIECE = 64 * 1024  # bytes of a read or a write; pipes on Windows are rarely larger
_LONGEST = float("inf")


class ThreadedInput:
    """The source of a ProxyCommand: descriptor 0, or any other. ``read`` is as `os.read`."""

    waitable = True

    def __init__(self, fd: int = 0, read: Callable[[int, int], bytes] = os.read) -> None:
        self._channel, theirs = _pair()
        self._error: OSError | None = None
        _thread.start_new_thread(self._feed, (fd, theirs, read))

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._channel.fileno()

    def receive_into(self, space: memoryview) -> int | None:
        """Read into ``space``; as `Channel.receive_into`."""
        n = self._channel.receive_into(space)
        if n == 0 and self._error is not None:
            raise self._error
        return n

    def close(self) -> None:
        """Close our end of the pair; the thread ends at its next write."""
        self._channel.close()

    def _feed(self, fd: int, pair: socket.socket, read: Callable[[int, int], bytes]) -> None:
        with pair:
            try:
                while data := read(fd, PIECE):
                    try:
                        pair.sendall(data)
                    except OSError:
                        return  # the tunnel is over and has closed the pair
            except OSError as exc:
                self._error = exc


class ThreadedOutput:
    """The sink of a ProxyCommand: descriptor 1, or any other. Call `finish`, as sent data may not be written yet.

    ``write`` is as `os.write`.
    """

    is_pipe = True  # its end of the pair becomes readable when the reader is gone

    def __init__(self, fd: int = 1, write: Callable[[int, memoryview], int] = os.write) -> None:
        self._channel, theirs = _pair()
        self._error: OSError | None = None
        _thread.start_new_thread(self._drain, (fd, theirs, write))

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._channel.fileno()

    def send(self, pieces: Sequence[Buffer]) -> int:
        """Send as much as possible without waiting; as `Channel.send`."""
        try:
            return self._channel.send(pieces)
        except OSError as exc:
            raise self._failure() from exc

    def end_stream(self) -> bool:
        """As `tunnel.client.stdio.StandardOutput.end_stream`."""
        return False

    def finish(self, limit: float = _LONGEST) -> int:
        """Wait at most ``limit`` seconds until everything is written. Raises OSError if it cannot be written.

        A signal also ends the wait: its exit code is returned, else 0.
        """
        from tunnel.client.signals import SignalPipe

        end = time.monotonic() + limit
        waiter, space = Waiter(), memoryview(bytearray(1))
        with SignalPipe() as signals:
            try:
                self._channel.end_writing()
                while (left := end - time.monotonic()) > 0:
                    ready = waiter.wait({self.fileno(): READ, signals.fileno(): READ}, left)
                    if signals.fileno() in ready:
                        return signals.caught()
                    if self.fileno() in ready and self._channel.receive_into(space) == 0:
                        break
            except OSError as exc:
                raise self._failure() from exc
        if self._error is not None:
            raise self._failure()
        return 0

    def close(self) -> None:
        """Close our end of the pair; the thread ends when it has written everything."""
        self._channel.close()

    def _failure(self) -> OSError:
        """Return the error of the writing thread."""
        if self._error is None or is_closed_by_reader(self._error):
            return BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return self._error

    def _drain(self, fd: int, pair: socket.socket, write: Callable[[int, memoryview], int]) -> None:
        buffer = bytearray(PIECE)
        space = memoryview(buffer)
        with pair:
            try:
                while n := pair.recv_into(buffer):
                    written = 0
                    while written < n:
                        written += write(fd, space[written:n])
            except OSError as exc:
                self._error = exc


def _pair() -> tuple[Channel, socket.socket]:
    ours, theirs = socket.socketpair()
    # On Windows this is a TCP connection.
    set_nodelay(theirs)
    return Channel(ours, is_wire=False), theirs
