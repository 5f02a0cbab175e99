"""A connected socket as a non-blocking stream of bytes.

A channel never waits: who drives it (a selector at the client, asyncio at the bridge) waits for ``fileno()`` instead.
`tunnel.net.tls` has the same face over TLS.
"""

from __future__ import annotations

import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.protocol.frames import Buffer

HELD_PIECE = 64 * 1024  # bytes that one read takes, at most, of those that were put back

# Bytes that the kernel takes though it cannot send them yet. What is on its way is not bounded by that, so a long line
# stays as fast; but where the line is slow, what a user types overtakes no more than this: by itself, the kernel takes
# some megabytes.
UNSENT_LIMIT = 128 * 1024
# The kernel takes at most IOV_MAX (1024) pieces in one call; fewer are as fast.
MAX_PIECES = 512
_HAS_SENDMSG = hasattr(socket.socket, "sendmsg")


class Channel:
    """A non-blocking byte stream over a connected TCP or Unix socket, which it owns from now on.

    ``prefetched`` are bytes that were read from the socket before (behind an HTTP head); they are received first.
    ``is_wire``: the line to the peer may be slow, so little may wait for it.
    """

    __slots__ = ("_held", "_held_at", "sock")

    def __init__(self, sock: socket.socket, prefetched: bytes = b"", *, is_wire: bool = True) -> None:
        self.sock = sock
        self._held = memoryview(prefetched)  # what was read from the socket, and is to be received …
        self._held_at = 0  # … from here on
        sock.setblocking(False)
        set_nodelay(sock)
        if is_wire:
            limit_unsent(sock)

    def put_back(self, data: memoryview) -> None:
        """Take back the last bytes of what the last `receive_into` gave; they are received again, first."""
        if self._held:
            self._held_at -= len(data)
        else:
            self._hold(bytes(data))

    def _hold(self, data: bytes) -> None:
        self._held = memoryview(data)
        self._held_at = 0

    def fileno(self) -> int:
        """Return the descriptor to wait for, -1 once closed."""
        return self.sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether bytes wait inside the channel, for which the descriptor will not become readable."""
        return bool(self._held)

    def receive_into(self, space: memoryview) -> int | None:
        """Receive into ``space`` (not empty); return the number of bytes, 0 at the end, None if it would block.

        Raises OSError when the connection is broken.
        """
        if self._held:
            return self._receive_held(space)
        try:
            return self.sock.recv_into(space)
        except (BlockingIOError, InterruptedError):
            return None

    def _receive_held(self, space: memoryview) -> int:
        at = self._held_at
        n = min(len(space), len(self._held) - at, HELD_PIECE)
        space[:n] = self._held[at : at + n]
        if at + n == len(self._held):
            self._hold(b"")  # at once, as what follows may be long in coming
        else:
            self._held_at = at + n
        return n

    def send(self, pieces: Sequence[Buffer]) -> int:
        """Send as much of ``pieces``, in order, as goes without waiting; return that number of bytes (0: would block).

        Raises OSError when the connection is broken.
        """
        try:
            if len(pieces) == 1:
                return self.sock.send(pieces[0])
            if _HAS_SENDMSG:
                return self.sock.sendmsg(pieces[:MAX_PIECES])
            return self.sock.send(b"".join(pieces[:MAX_PIECES]))
        except (BlockingIOError, InterruptedError):
            return 0

    def end_writing(self) -> None:
        """Half-close: the peer reads end of file behind what was sent. Raises OSError when the connection is broken."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close; what was sent is still delivered by the kernel."""
        self.sock.close()

    def abort(self) -> None:
        """Close with a reset, so that the peer cannot mistake this for a clean end; what is unsent is discarded."""
        reset(self.sock)


def reset(sock: socket.socket) -> None:
    """Close ``sock`` with a reset, which its peer cannot mistake for a clean end, if it is one of TCP."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # not a TCP socket, or broken already: closing is all that is left to do
    sock.close()


def set_nodelay(sock: socket.socket) -> None:
    """Switch off Nagle's algorithm on a TCP socket: a keystroke must not wait for the last one's acknowledgement."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def limit_unsent(sock: socket.socket) -> None:
    """Let the kernel take no more for a TCP socket than `UNSENT_LIMIT` that it cannot send yet; not all kernels can."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, option, UNSENT_LIMIT)
        except OSError:
            pass  # the connection is broken already, or this kernel does not know the option
