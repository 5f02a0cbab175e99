"""The receiving direction of a session: received data, what of it is delivered to the sink, and when to acknowledge.

Numbers count the bytes of the peer's stream from 0; its fin has the number after the last byte. *Delivered* are the
bytes that the sink accepted, and the fin once the sink is half-closed. Only these survive the loss of a connection, and
only these are acknowledged. `resumable_stream` checks the order of messages.
"""

from __future__ import annotations

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.frames import MAX_CLOSE
from tunnel.protocol.outbox import consume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.protocol.frames import Buffer

# Delivered bytes after which an ack is due at once, if the window is not smaller. The data that the peer keeps for us
# should fit into its processor's cache, as each byte that it sends passes through that memory …
ACK_BYTES = 512 << 10
ACK_DELAY = 0.1  # … and seconds after which one is due in any case
_SMALL_PIECE = 16 * 1024  # bytes; pieces with a smaller average size are joined when they have to wait


class Receiver:
    """Data from the peer that waits for the sink, as ``pieces``.

    ``window`` is the most bytes that may wait. ``now`` is the driver's monotonic clock, in seconds.
    """

    __slots__ = (
        "_acked", "_before", "_delivered_bytes", "_discarding", "_fin_at", "_held", "_received", "_settled", "ack_at",
        "ack_due", "fin_delivered", "pieces", "undelivered", "window",
    )  # fmt: skip

    def __init__(self, window: int) -> None:
        self.window = window
        self.undelivered = 0  # bytes that the sink did not accept
        self.fin_delivered = False  # whether the sink is half-closed at the end of the peer's stream
        self._delivered_bytes = 0
        self._discarding = False
        self.begin_connection()

    def begin_connection(self) -> None:
        """Begin a new connection, on which everything that was not delivered is received again."""
        self.drop()
        self._acked = self.delivered  # the offset in the resume is an ack
        self.ack_due = False
        self.ack_at: float | None = None  # when one is due at the latest

    def drop(self) -> None:
        """Drop what was not delivered: the peer will send it again."""
        self.pieces: list[Buffer] = []
        self._held = b""
        self._settled = 0  # pieces that `settle` has handled
        self._received = self._delivered_bytes
        self._fin_at = self._delivered_bytes if self.fin_delivered else None

    @property
    def delivered(self) -> int:
        """Numbers of the peer's stream that are delivered: the offset of a resume, and of every ack."""
        return self._delivered_bytes + self.fin_delivered

    def begin_chunk(self) -> None:
        """Begin a chunk of the wire: calls of `data_came` follow, and then `hold_back`."""
        self._before = len(self.pieces)  # pieces from before the current chunk
        if self._held:
            self.release()

    def release(self) -> None:
        """Release to the sink what `hold_back` has kept."""
        if self._held:
            self.pieces.append(self._held)
            self._held = b""

    def hold_back(self) -> None:
        """Hold back the last received bytes of an incomplete frame until more arrives.

        An edge that ends the connection with its own Close (Caddy, when it is reloaded) does not wait for the end of a
        frame: then its bytes are in the place of payload. As they are the last bytes, they are never delivered.
        """
        while len(self.pieces) > self._before and len(self._held) < MAX_CLOSE:
            piece = self.pieces.pop()
            kept = max(0, len(piece) - (MAX_CLOSE - len(self._held)))
            self._held = bytes(piece[kept:]) + self._held
            if kept:
                self.pieces.append(memoryview(piece)[:kept])  # a slice of bytes would be a copy

    def data_came(self, data: Buffer, now: float) -> None:
        """Take ``data`` (at least 1 byte). Raises RemoteProtocolError if the peer must not have sent it."""
        if self._fin_at is not None:
            raise RemoteProtocolError("the peer sent data after its fin")
        size = len(data)
        self._received += size
        if self._received - self._delivered_bytes > self.window:
            raise RemoteProtocolError("the peer sent more than the window allows")
        if self._discarding:
            self.undelivered += size
            self._deliver(size, now)
        else:
            self.pieces.append(data)

    def may_pass(self, n: int) -> bool:
        """Return whether the next ``n`` bytes may go directly to the sink, after those that are released."""
        if self.pieces or self._discarding or self._fin_at is not None:
            return False
        return self._received - self._delivered_bytes + n <= self.window

    def passed(self, n: int, now: float) -> None:
        """Note that ``n`` bytes went directly to the sink."""
        self._received += n
        self._deliver(n, now)

    def fin_came(self, count: int) -> bool:
        """Note the end of the peer's stream after ``count`` bytes; return whether that is new.

        Raises RemoteProtocolError if that is not possible.
        """
        if count != self._received or (self._fin_at is not None and self._fin_at != count):
            raise RemoteProtocolError(f"the peer's fin at {count} is not where its data ended")
        is_new = self._fin_at is None
        self._fin_at = count
        return is_new

    def sink_took(self, n: int, now: float) -> None:
        """Note that the sink accepted the first ``n`` bytes of ``pieces``."""
        whole = consume(self.pieces, n)
        if self._settled:
            self._settled = max(0, self._settled - whole)
        self._deliver(n, now)

    def sink_failed(self, now: float) -> None:
        """Note that the sink cannot be written any more; waiting and further bytes count as delivered."""
        self._discarding = True
        waiting = sum(map(len, self.pieces)) + len(self._held)
        self.undelivered += waiting
        self.pieces = []
        self._held = b""
        self._deliver(waiting, now)

    def _deliver(self, n: int, now: float) -> None:
        self._delivered_bytes += n
        new = self.delivered - self._acked
        if new >= ACK_BYTES or new >= self.window // 4:
            self.ack_due = True
        elif new > 0 and self.ack_at is None:
            self.ack_at = now + ACK_DELAY

    @property
    def has_ended(self) -> bool:
        """Whether the sink has received everything."""
        return self._delivered_bytes == self._fin_at

    def sink_half_closed(self) -> None:
        """Note that the sink is half-closed: the fin is delivered, and acknowledged at once."""
        if self.has_ended and not self.fin_delivered:
            self.fin_delivered = True
            self.ack_due = True

    def take_ack(self) -> int:
        """Return the number to acknowledge; the ack is then not due any more."""
        self._acked = self.delivered
        self.ack_due = False
        self.ack_at = None
        return self._acked

    def tick(self, now: float) -> None:
        """Check the clock: make an ack due that has waited too long, or soon will have: that saves another check."""
        if self.ack_at is not None and now > self.ack_at - ACK_DELAY / 2:
            self.ack_due = True
            self.ack_at = None

    def settle(self, space: memoryview) -> None:
        """Copy data that is still in ``space``, the read buffer of the wire."""
        pieces, start = self.pieces, self._settled
        fresh = pieces[start:]
        if not fresh:
            return
        size = sum(map(len, fresh))
        owned = not any(_is_view_of(piece, space) for piece in fresh)
        if not (owned and size >= _SMALL_PIECE * len(fresh)):
            # Joined into one piece, as a window full of one-byte frames must not become millions of objects.
            if start and len(pieces[start - 1]) < _SMALL_PIECE:
                start -= 1
            pieces[start:] = [b"".join(pieces[start:])]
        self._settled = len(pieces)


def _is_view_of(piece: Buffer, space: memoryview) -> bool:
    return isinstance(piece, memoryview) and piece.obj is space.obj
