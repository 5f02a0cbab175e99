"""A connected socket as a non-blocking stream of bytes.

A channel never waits: its driver (a selector at the client, asyncio at the bridge) waits for ``fileno()``.
`tunnel.net.tls` has the same interface over TLS.
"""

from __future__ import annotations

import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.protocol.frames import Buffer

HELD_PIECE = 64 * 1024  # most bytes that one read takes from those that were put back

# Bytes that the kernel accepts although it cannot send them yet; its default is some megabytes. On a slow connection, a
# keystroke waits behind no more than this. Data in flight does not count, so long-distance connections stay as fast.
UNSENT_LIMIT = 128 * 1024
# The kernel accepts at most IOV_MAX (1024) pieces in one call; fewer are as fast.
MAX_PIECES = 512
NOTHING = memoryview(b"")  # shared, as each takes 300 bytes
_HAS_SENDMSG = hasattr(socket.socket, "sendmsg")


class Channel:
    """A non-blocking byte stream over a connected TCP or Unix socket, which it takes over.

    ``prefetched`` are bytes that were read from the socket before (after an HTTP head); they are received first.
    ``is_wire``: the connection may be slow, so only little data may wait in the kernel.
    """

    __slots__ = ("_held", "_held_at", "sock")

    is_encrypted = False  # whether the bytes on the socket differ from those sent and received here

    def __init__(self, sock: socket.socket, prefetched: bytes = b"", *, is_wire: bool = True) -> None:
        self.sock = sock
        self._hold(prefetched)
        sock.setblocking(False)
        set_nodelay(sock)
        if is_wire:
            limit_unsent(sock)

    @property
    def held(self) -> memoryview:
        """The bytes that were read from the socket before, and are received first."""
        return self._held[self._held_at :]

    def put_back(self, data: memoryview) -> None:
        """Put back the last bytes of the latest `receive_into`; the next one returns them first."""
        if self._held:
            self._held_at -= len(data)
        else:
            self._hold(bytes(data))

    def _hold(self, data: bytes) -> None:
        """Make ``data``, which was read from the socket, the next bytes to be received."""
        self._held = memoryview(data) if data else NOTHING
        self._held_at = 0  # the offset of the next byte in it

    def fileno(self) -> int:
        """Return the descriptor to wait for, -1 once closed."""
        return self.sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether the channel holds bytes for which the descriptor will not become readable."""
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
            self._hold(b"")  # release the memory, as the next bytes may arrive much later
        else:
            self._held_at = at + n
        return n

    def send(self, pieces: Sequence[Buffer]) -> int:
        """Send as much of ``pieces``, in order, as possible without waiting; return the number of bytes (may be 0).

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
        """Half-close: the peer reads EOF after the data. Raises OSError when the connection is broken."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close; the kernel still delivers what was sent."""
        self.sock.close()

    def abort(self) -> None:
        """Close with a reset, so that the peer does not read EOF; unsent data is discarded."""
        reset(self.sock)


def reset(sock: socket.socket) -> None:
    """Close ``sock``, with a reset if it is a TCP socket, so that the peer does not read EOF."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # not a TCP socket, or broken already
    sock.close()


def set_nodelay(sock: socket.socket) -> None:
    """Disable Nagle's algorithm on a TCP socket: a keystroke must not wait for the ack of the one before."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass  # macOS refuses it once the peer has closed; what was received before can still be read


def limit_unsent(sock: socket.socket) -> None:
    """Limit the unsent data that the kernel accepts for a TCP socket to `UNSENT_LIMIT`, if the kernel supports that."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, option, UNSENT_LIMIT)
        except OSError:
            pass  # the connection is broken already, or this kernel does not know the option
