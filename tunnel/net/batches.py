"""Fewer and larger reads of a busy socket: a read costs its driver a turn, regardless of its size.

A socket is busy after some large reads in a row. The kernel then reports it as readable only when a whole batch has
arrived (SO_RCVLOWAT). So that no data waits longer than `PAUSE`, its driver also reads it that long after the last
read. The first small read ends this.
"""

from __future__ import annotations

import socket
import sys
import time

from tunnel.net.pump import LARGE_READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.net.channel import Channel

IN_A_ROW = 8  # large reads that make a socket busy
BATCH = 256 * 1024  # bytes
PAUSE = 0.001  # seconds


class Batches:
    """The reads of ``channel``, each of which is reported to `came`. ``is_on``: the channel is busy."""

    __slots__ = ("_in_a_row", "channel", "is_on", "read_by")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.is_on = False
        self.read_by = 0.0  # when the channel must be read in any case (`time.monotonic`), while it is busy
        self._in_a_row = 0

    def came(self, n: int) -> None:
        """Note that the last read gave ``n`` bytes."""
        if n < LARGE_READ:
            if self._in_a_row:
                self.stop()
        elif not self.is_on:
            self._in_a_row += 1
            if self._in_a_row == IN_A_ROW:
                self.is_on = True
                self._report_at(BATCH)
        if self.is_on:
            self.read_by = time.monotonic() + PAUSE

    def stop(self) -> None:
        """Let the kernel report the channel as readable as soon as anything arrives."""
        self._in_a_row = 0
        if self.is_on:
            self.is_on = False
            self._report_at(1)

    def _report_at(self, size: int) -> None:
        # Encrypted data comes in records, which the TLS library reads one by one. Not tried on other systems.
        if sys.platform == "linux" and not self.channel.is_encrypted:
            try:
                self.channel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            except OSError:
                pass  # it is closed, or does not support this: then it is reported for each byte
