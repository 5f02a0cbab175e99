"""Payload from the wire's socket into a pipe with splice(2): on Linux it need not be copied through this process.

Only the rest of a frame is spliced, and only once all of it has arrived, as an edge may send its own Close instead
of missing bytes (see `Receiver.hold_back`). The pump reads everything else as usual: headers, control frames, small
frames, incomplete frames, and anything that does not fit into the pipe.
"""

from __future__ import annotations

import os
import sys

if sys.platform == "linux":
    import fcntl
    import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.net.pump import Pump

LEAST = 64 * 1024  # bytes of payload; for fewer, one more system call costs as much as copying them
LARGE_HEADER = 10  # bytes of a server's frame header for 64 KiB or more (RFC 6455 section 5.2)
FRAMES = 4  # most frames that are spliced in one turn


class Splice:
    """Reads the wire of ``pump``, whose sink is a pipe."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._works = sys.platform == "linux" and hasattr(os, "splice")

    def read_wire(self) -> int:
        """As `Pump.read_wire`, but reads several large frames. Return the number of bytes read."""
        pump = self._pump
        total = 0
        for _ in range(FRAMES):
            if not self._may_splice:
                return total + pump.read_wire()
            n, is_whole = self._read_frame()
            total += n
            # Data that waits for the sink may still be where the next read would put its bytes.
            if not is_whole or pump.wants_sink or not pump.wants_wire_read:
                break
        return total

    @property
    def _may_splice(self) -> bool:
        pump = self._pump
        # The next frame is assumed to be as large as the last one.
        if not self._works or pump.stream.parser.size < LEAST:
            return False
        return not (pump.wants_sink or pump.wire.pending or pump.wire.is_encrypted)

    def _read_frame(self) -> tuple[int, bool]:
        """Read the rest of a frame, or else a header and its payload.

        Return the number of bytes read, and whether the frame was complete.
        """
        pump = self._pump
        parser = pump.stream.parser
        head = 0
        if not parser.in_frame:
            head = pump.read_wire(LARGE_HEADER)
            if not head or pump.wants_sink or not pump.wants_wire_read:
                return head, False
        rest = parser.opaque
        if not rest:
            return head + pump.read_wire(), False
        if rest < LEAST or waiting(pump.wire.fileno()) < rest or not pump.stream.may_pass(rest):
            n = pump.read_wire(rest)  # not more, so that the next frame's payload stays in the socket
            return head + n, n == rest
        pump.stream.release()
        pump.write_sink()
        moved = 0 if pump.wants_sink or pump.sink_error else self._splice(rest)
        if moved:
            pump.passed(moved)
        if moved == rest:
            return head + rest, True
        # The pipe is full; with queued data the driver waits until it is not.
        return head + moved + pump.read_wire(), False

    def _splice(self, n: int) -> int:
        """Move at most ``n`` available bytes from the wire to the pipe, without waiting."""
        try:
            return os.splice(self._pump.wire.fileno(), self._pump.sink.fileno(), n, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return 0
        except OSError:
            self._works = False  # the pump's own reads and writes will find the error
            return 0


def waiting(fd: int) -> int:
    """Return how many bytes of a socket can be read at once."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)
