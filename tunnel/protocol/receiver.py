"""The receiving direction of a resumable stream: what has come, what the sink took of it, and when to acknowledge.

Numbers count the bytes of the peer's stream from 0; its fin takes the number behind the last byte. *Delivered* is what
the sink took, and the fin once the sink is half-closed: only that survives a connection, and only that is acknowledged.
Which messages may come when is decided in `resumable_stream`.
"""

from __future__ import annotations

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.frames import MAX_CLOSE
from tunnel.protocol.outbox import consume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.protocol.frames import Buffer

# Delivered bytes after which an ack is due at once, if the window is not smaller. What the peer keeps for us should fit
# into its processor's cache, as each byte that it sends passes through that memory …
ACK_BYTES = 512 << 10
ACK_DELAY = 0.1  # … and seconds after which one is due in any case
_SMALL_PIECE = 16 * 1024  # bytes; pieces that are smaller on the average are joined when they have to wait


class Receiver:
    """What has come from the peer and waits for the sink, as ``pieces``.

    ``window`` is how many bytes may wait, at most. ``now`` is the driver's monotonic clock, in seconds.
    """

    __slots__ = (
        "_acked", "_before", "_delivered_bytes", "_discarding", "_fin_at", "_held", "_received", "_settled", "ack_at",
        "ack_due", "fin_delivered", "pieces", "undelivered", "window",
    )  # fmt: skip

    def __init__(self, window: int) -> None:
        self.window = window
        self.pieces: list[Buffer] = []
        self.undelivered = 0  # bytes that the sink did not take any more
        self.fin_delivered = False  # whether the sink knows that the peer's stream has ended
        self._settled = 0  # pieces that `settle` has seen
        self._delivered_bytes = 0
        self._discarding = False
        self.begin_connection()

    def begin_connection(self) -> None:
        """Begin to count for a new connection, on which all that was not delivered comes again."""
        self.drop()
        self._acked = self.delivered  # the resume's own offset is an ack
        self.ack_due = False
        self.ack_at: float | None = None  # when one is due at the latest

    def drop(self) -> None:
        """Forget what was not delivered: it came on a connection that no longer counts."""
        self.pieces = []
        self._before = 0  # pieces that were there before the chunk that is being parsed
        self._held = b""
        self._settled = 0
        self._received = self._delivered_bytes
        self._fin_at = self._delivered_bytes if self.fin_delivered else None

    @property
    def delivered(self) -> int:
        """Numbers of the peer's stream that are delivered: the offset of a resume, and of every ack."""
        return self._delivered_bytes + self.fin_delivered

    def begin_chunk(self) -> None:
        """Note that more came of the wire, whose data goes to `data_came` now and `hold_back` will end."""
        self._before = len(self.pieces)
        if self._held:
            self.pieces.append(self._held)
            self._held = b""

    def hold_back(self) -> None:
        """Keep the last bytes that came from the sink until more comes, because they are inside a frame.

        A hop that ends the connection with a Close of its own (Caddy, when it is reloaded) does not wait for the end of
        a frame: its bytes then stand where payload should. They are the last that come, so they are never delivered.
        """
        while len(self.pieces) > self._before and len(self._held) < MAX_CLOSE:
            piece = self.pieces.pop()
            kept = max(0, len(piece) - (MAX_CLOSE - len(self._held)))
            self._held = bytes(piece[kept:]) + self._held
            if kept:
                self.pieces.append(memoryview(piece)[:kept])  # bytes would be copied

    def data_came(self, data: Buffer, now: float) -> None:
        """Take ``data`` (at least 1 byte) in. Raises RemoteProtocolError when it must not have come."""
        if self._fin_at is not None:
            raise RemoteProtocolError("the peer sent data behind its fin")
        self._received += len(data)
        if self._received - self._delivered_bytes > self.window:
            raise RemoteProtocolError("the peer sent more than the window allows")
        if self._discarding:
            self.undelivered += len(data)
            self._deliver(len(data), now)
        else:
            self.pieces.append(data)

    def fin_came(self, count: int) -> bool:
        """Note the end of the peer's stream after ``count`` bytes; return whether that is new.

        Raises RemoteProtocolError if that cannot be.
        """
        if count != self._received or (self._fin_at is not None and self._fin_at != count):
            raise RemoteProtocolError(f"the peer's fin at {count} is not where its data ended")
        is_new = self._fin_at is None
        self._fin_at = count
        return is_new

    def sink_took(self, n: int, now: float) -> None:
        """Note that the sink took the first ``n`` bytes of ``pieces``."""
        before = len(self.pieces)
        consume(self.pieces, n)
        self._settled = max(0, self._settled - (before - len(self.pieces)))
        self._deliver(n, now)

    def sink_failed(self, now: float) -> None:
        """Note that the sink takes nothing any more; what waits, and all that follows, counts as delivered."""
        self._discarding = True
        waiting = sum(map(len, self.pieces)) + len(self._held)
        self.undelivered += waiting
        self.pieces = []
        self._held = b""
        self._settled = 0
        self._deliver(waiting, now)

    def _deliver(self, n: int, now: float) -> None:
        self._delivered_bytes += n
        if self.delivered - self._acked >= min(self.window // 4, ACK_BYTES):
            self.ack_due = True
        elif self.delivered > self._acked and self.ack_at is None:
            self.ack_at = now + ACK_DELAY

    @property
    def has_ended(self) -> bool:
        """Whether the sink has all that will ever come."""
        return self._fin_at is not None and not self.pieces and self._delivered_bytes == self._fin_at

    def sink_half_closed(self) -> None:
        """Note that the sink knows of the end: the fin is delivered, and acknowledged at once."""
        if self.has_ended and not self.fin_delivered:
            self.fin_delivered = True
            self.ack_due = True

    def take_ack(self) -> int:
        """Return what to acknowledge, which is not due any more then."""
        self._acked = self.delivered
        self.ack_due = False
        self.ack_at = None
        return self._acked

    def tick(self, now: float) -> None:
        """Check the clock: what was delivered must not wait for its ack for too long."""
        if self.ack_at is not None and now >= self.ack_at:
            self.ack_due = True
            self.ack_at = None

    def settle(self, space: memoryview) -> None:
        """Move what is still in ``space``, the read buffer of the wire, to memory of its own."""
        pieces, start = self.pieces, self._settled
        fresh = pieces[start:]
        if not fresh:
            return
        size = sum(map(len, fresh))
        owned = not any(_is_view_of(piece, space) for piece in fresh)
        if not (owned and size >= _SMALL_PIECE * len(fresh)):
            # One piece for all: a window full of one-byte frames must not become millions of objects.
            if start and len(pieces[start - 1]) < _SMALL_PIECE:
                start -= 1
            pieces[start:] = [b"".join(pieces[start:])]
        self._settled = len(pieces)


def _is_view_of(piece: Buffer, space: memoryview) -> bool:
    return isinstance(piece, memoryview) and piece.obj is space.obj
