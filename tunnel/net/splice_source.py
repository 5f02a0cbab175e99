"""A target's bytes to the wire with splice(2): on Linux a bridge need not copy what a client downloads.

    target's socket ──splice──▶ pipe ──splice──▶ wire's socket
                                 └───tee───▶ another pipe, with what a session may have to send again

The kernel passes on references to its pages; this process only writes the headers of frames, and counts. So what a
target has sent from a file by sendfile(2) changes if the file is overwritten (docs/reliability.md).

`stop` may be called at any time: it brings all bytes into this process, as if they had been copied.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import time

from tunnel.protocol.outbox import PASSED, InKernel

if sys.platform == "linux":
    import fcntl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from tunnel.net.pump import Pump
    from tunnel.protocol.frames import Buffer

KEPT = 1 << 20  # size of the pipe for unacknowledged bytes: the most that a user may have without privileges
_NONBLOCK = 2  # SPLICE_F_NONBLOCK, which is also for tee(2)
# What kernels and sandboxes answer that do not allow splice(2), tee(2), or this kind of socket.
_REFUSALS = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOMEM)

_TEE = None  # tee(2) of the C library, as Python has none
if sys.platform == "linux" and hasattr(os, "splice"):
    with contextlib.suppress(ImportError, OSError, AttributeError):  # some builds of Python have no ctypes
        import ctypes

        _TEE = ctypes.CDLL(None, use_errno=True).tee
        _TEE.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)


def may_splice(pump: Pump) -> bool:
    """Return whether a `SourceSplice` of ``pump`` could read now."""
    return _TEE is not None and not pump.wire.is_encrypted and bool(pump.stream.may_pass_source())


class SourceSplice:
    """Reads the source of ``pump``, a socket, and writes to its wire. Raises OSError if that is not possible."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self.read_at = time.monotonic()  # when the source was read last
        self.is_over = False
        self.is_refused = False  # whether the system does not allow it
        self.came_short = False  # whether the bytes come in too small pieces, so that few of them fit into a pipe
        self._unsent = 0  # bytes in transit that the stream does not know
        with contextlib.ExitStack() as opened:
            self._transit = opened.enter_context(_Pipe(PASSED))
            self._kept = opened.enter_context(_KeptPipe(KEPT)) if pump.stream.keeps else None
            self._opened = opened.pop_all()

    def read_source(self, most: int = PASSED) -> int | None:
        """As `Pump.read_source`, at most ``most`` bytes; None if nothing may be read now.

        Sets ``is_over`` if the source must be copied.
        """
        pump = self._pump
        limit = pump.stream.may_pass_source()
        if limit == 0:
            pump.write_wire()  # the stream may owe an ack
            limit = pump.stream.may_pass_source()
            if limit == 0:
                return None
        if limit is None:
            self.is_over = True
            return None
        try:
            n = self._transit.take(pump.source.fileno(), min(limit, most))
        except BlockingIOError:
            return 0
        except OSError as exc:
            if exc.errno in _REFUSALS:
                self.is_over = self.is_refused = True
                return None
            pump.source_error = exc  # the kernel reports it only once
            pump.source_is_over = True
            return 0
        if not n:
            pump.source_is_over = True
            return 0
        if self._kept is not None:
            copied = _tee(self._transit, self._kept)
            if copied < n:
                self._unsent, self.is_over, self.is_refused = n, True, copied < 0
                self.came_short = copied >= 0
                return None
            self._kept.size += n
        self.read_at = time.monotonic()
        pump.to_wire += n
        pump.stream.source_passed(n, self._kept, self.read_at)
        pump.write_wire()
        return n

    def send(self, pieces: Sequence[Buffer | InKernel]) -> int:
        """As `Channel.send`, for pieces some of which may be `InKernel`. Sets ``is_over`` if they must be copied."""
        wire = self._pump.wire.sock
        sent = 0
        try:
            for at, piece in enumerate(pieces, 1):
                if isinstance(piece, InKernel):
                    n = self._give(wire.fileno(), piece.size)
                else:  # a header waits for the payload, so that it is no packet of its own
                    n = wire.send(piece, socket.MSG_MORE if at < len(pieces) else 0)
                sent += n
                if n < len(piece):
                    break
        except (BlockingIOError, InterruptedError):
            pass
        return sent

    def _give(self, wire: int, most: int) -> int:
        try:
            return self._transit.give(wire, most)
        except OSError as exc:
            if exc.errno not in _REFUSALS:
                raise
            self.is_over = self.is_refused = True
            return 0

    def stop(self) -> None:
        """Give the stream all bytes that are in a pipe, and close the pipes."""
        try:
            self._pump.to_wire += self._unsent
            self._pump.stream.take_back(self._transit.receive_into, self._unsent)
        finally:
            self.close()

    def close(self) -> None:
        """Close the pipes; what is in them is lost."""
        self._opened.close()


class _Pipe:
    """A pipe that holds ``size`` bytes. Raises OSError if there can be none for ``capacity`` bytes.

    A page of the capacity may be a reference to 32 KiB, so more bytes fit if they were written many at a time.
    """

    def __init__(self, capacity: int) -> None:
        self.size = 0
        self.reader, self.writer = os.pipe()
        try:
            os.set_blocking(self.reader, False)
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, capacity)
        except OSError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)

    def take(self, source: int, most: int) -> int:
        """Move at most ``most`` bytes from a socket to the pipe; return how many, 0 at the end."""
        n = os.splice(source, self.writer, most, flags=os.SPLICE_F_NONBLOCK)
        self.size += n
        return n

    def give(self, sink: int, most: int) -> int:
        """Move at most ``most`` bytes from the pipe to ``sink``; return how many."""
        n = os.splice(self.reader, sink, most, flags=os.SPLICE_F_NONBLOCK)
        self.size -= n
        return n

    def receive_into(self, space: memoryview) -> int:
        """Move the first bytes to ``space``; return how many."""
        n = os.readv(self.reader, [space[: self.size]])
        self.size -= n
        return n


class _KeptPipe(_Pipe):
    """The bytes of a session that are not acknowledged; see `tunnel.protocol.replay.Kept`."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        try:
            self._nowhere = os.open(os.devnull, os.O_WRONLY)
        except OSError:
            super().close()
            raise

    def close(self) -> None:
        os.close(self._nowhere)
        super().close()

    def drop(self, n: int) -> None:
        """Drop the first ``n`` bytes."""
        while n:
            n -= self.give(self._nowhere, n)


def _tee(source: _Pipe, sink: _Pipe) -> int:
    """Copy all bytes of a pipe to the end of another; return how many, or -1 if the system refuses.

    If these are not all, the other pipe is full, and its last bytes must not be used.
    """
    if _TEE is None:
        return -1
    n = int(_TEE(source.reader, sink.writer, source.size, _NONBLOCK))
    return 0 if n < 0 and ctypes.get_errno() == errno.EAGAIN else n
