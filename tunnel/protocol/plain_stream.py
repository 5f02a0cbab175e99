"""Wire 1: a byte stream in each direction over one WebSocket connection, Sans-I/O, for both roles.

Each direction has these states, independent of the other:

    source → wire   open ──source_ended() or close()──▶ closing ──Close frame sent──▶ close_sent
    wire → sink     open ──Close frame or wire_ended()──▶ closing ──all delivered──▶ sink_ended

Frame boundaries have no meaning, unless the codec gives them one. Data frames are never empty, because websocat takes
an empty one as EOF.
"""

from __future__ import annotations

from tunnel.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError, TunnelError
from tunnel.protocol.codec import BINARY_CODEC
from tunnel.protocol.frame_budget import FRAMES_PER_TURN, FrameBudget
from tunnel.protocol.frames import (
    BINARY,
    MAX_HEADER,
    NO_CODE,
    NORMAL,
    PING,
    POLICY,
    PROTOCOL_ERROR,
    SILENT_PEER,
    TEXT,
    Close,
    FrameParser,
    Payload,
    Ping,
)
from tunnel.protocol.keepalive import STALL_LIMIT, Keepalive
from tunnel.protocol.outbox import LEAST_PASSED, PASSED, Outbox, consume
from tunnel.protocol.read_buffers import FRAME_LIMIT, ReadBuffers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from tunnel.protocol.beginning import Beginning
    from tunnel.protocol.codec import Codec
    from tunnel.protocol.frames import Buffer
    from tunnel.protocol.replay import Kept

    T = TypeVar("T")

CLOSE_LIMIT = 60.0  # seconds of silence after which this end stops waiting for a Close


class PlainStream:
    """One end of a plain tunnel: a `ByteStream`, and how its directions end.

    ``client`` is True at the end that dialled, which masks its frames. ``sink_limit``: seconds that the sink may accept
    nothing (None: no limit). ``preamble`` (the bridge's 101) is sent before the first frame. ``max_message``: most
    bytes of payload in a message that we send. ``codec``: the form of messages. ``beginning`` is given if this client
    has offered sessions, as an edge may hide that the bridge has accepted.

    ``failure`` is the error that ended the stream.
    """

    __slots__ = (
        "_budget", "_buffers", "_codec", "_decode", "_discarding", "_encode", "_is_client", "_outbox", "_parser",
        "_sending", "_sink", "_sink_at", "_sink_limit", "_source_at", "beginning", "close_code", "close_reason",
        "close_received", "failure", "keepalive", "max_message", "undelivered", "wire_is_over",
    )  # fmt: skip

    keeps = False

    def __init__(
        self,
        *,
        client: bool,
        buffers: ReadBuffers,
        keepalive: Keepalive,
        sink_limit: float | None = STALL_LIMIT,
        preamble: bytes = b"",
        max_message: int = FRAME_LIMIT,
        codec: Codec = BINARY_CODEC,
        beginning: Beginning | None = None,
    ) -> None:
        self._is_client = client
        self._outbox = Outbox(masks=client, preamble=preamble)
        self._buffers = buffers
        self._codec = codec
        self._encode, self._decode = codec.encode, codec.decode
        self._parser = FrameParser(masked=not client)
        self._budget = FrameBudget()
        self.keepalive = keepalive
        self.max_message = min(max_message, codec.read_limit)
        self._sending = True  # whether messages may still follow
        self._sink: list[Buffer] = []  # payload that waits for the sink
        self._discarding = False
        self._sink_limit = sink_limit
        self._sink_at: float | None = None  # when the sink made progress last, while bytes wait for it
        self._source_at = keepalive.heard_at  # when data of the source, or the peer's Close, was received last
        self.close_received = False
        self.close_code = NO_CODE  # the peer's, once close_received
        self.close_reason = ""
        self.wire_is_over = False  # whether nothing more can be received
        self.undelivered = 0  # payload bytes that the sink did not accept
        self.failure: TunnelError | None = None
        self.beginning = beginning
        if codec.sent_all:
            self._stop_sending()
        if codec.received_all:
            self._stop_receiving()

    # ---- source → wire

    @property
    def wants_source(self) -> bool:
        """Whether to read the source: everything read before is sent."""
        outbox = self._outbox
        return (
            not outbox.pieces
            and not outbox.close_queued
            and self._sending
            and (self.beginning is None or self.beginning.room > 0)
        )

    def source_space(self) -> memoryview:
        if not self.wants_source:
            raise LocalProtocolError("the source was read while the wire is blocked or closing")
        size = self.max_message if self.beginning is None else min(self.max_message, self.beginning.room)
        return self._buffers.source[MAX_HEADER : MAX_HEADER + size]

    def source_received(self, n: int, now: float) -> None:
        self._source_at = now
        if self.beginning is not None:
            self.beginning.sending(self._buffers.source[MAX_HEADER : MAX_HEADER + n], now)
        if not self._encode(self._buffers.source, MAX_HEADER, MAX_HEADER + n, self._outbox):
            self._stop_sending()

    def may_pass_source(self) -> int | None:
        if self._outbox.pieces:
            return 0
        may = self._codec is BINARY_CODEC and self.max_message >= LEAST_PASSED and self.wants_source
        return PASSED if may and not self._is_client else None

    def source_passed(self, n: int, kept: Kept | None, now: float) -> None:
        self._source_at = now
        self._outbox.add_in_kernel(n, self.max_message)

    def take_back(self, receive_into: Callable[[memoryview], int], unsent: int) -> None:
        if unsent:
            raise LocalProtocolError("a plain stream sends all that was passed")
        self._outbox.take_back(receive_into)

    def send_first(self, data: bytes) -> None:
        """Queue ``data`` before anything from the source."""
        for at in range(0, len(data), self.max_message):
            self._outbox.add(BINARY, data[at : at + self.max_message])

    def source_ended(self) -> None:
        """Note EOF of the source: a Close follows what was read before."""
        if self._sending:
            if not self._outbox.close_queued:
                self._codec.flush(self._outbox)
            self._stop_sending()
        elif self.close_received:
            self._answer_close()

    def _stop_sending(self) -> None:
        """Send no further message; the Close follows, if the codec has one."""
        self._sending = False
        if self._codec.closes or self.close_received:
            self._answer_close()
        self._end_if_unsaid()

    def _answer_close(self) -> None:
        self.close(self.close_code if self.close_received else NORMAL)

    def close(self, code: int, reason: str = "") -> None:
        """Queue a Close frame after what was read before; only the first call counts."""
        if self._outbox.close_queued:
            return
        codec = self._codec
        if code != NORMAL:
            self._outbox.add_close(code, reason)
        elif codec.closes or self._parser.closed:
            self._outbox.add_close(codec.close_code, reason or codec.close_reason)
        else:
            self._outbox.close_queued = True  # but no Close is sent

    @property
    def wants_wire_write(self) -> bool:
        return bool(self._outbox.pieces)

    def wire_output(self) -> Sequence[Buffer]:
        return self._outbox.pieces

    def wire_sent(self, n: int, now: float) -> None:
        self._outbox.sent(n)
        self.keepalive.wrote(now)

    def wire_write_failed(self) -> None:
        """Note that the wire cannot be written any more; queued bytes are discarded."""
        self._outbox.clear()
        self._outbox.close_queued = True

    @property
    def close_sent(self) -> bool:
        """Whether everything including our Close is written."""
        return self._outbox.close_queued and not self._outbox.pieces

    # ---- wire → sink

    @property
    def wants_wire_read(self) -> bool:
        """Whether to read the wire: everything received before is delivered."""
        return (
            not self._sink
            and not self.close_received
            and not self.wire_is_over
            and (self.beginning is None or not self.beginning.decided)
        )

    def wire_space(self) -> memoryview:
        if not self.wants_wire_read:
            raise LocalProtocolError("the wire was read while the sink is blocked, or after its end")
        return self._buffers.wire

    def wire_received(self, n: int, now: float) -> int:
        self.keepalive.heard(now)
        parser = self._parser
        try:
            # Everything after a session line is for another stream.
            limit = FRAMES_PER_TURN if self.beginning is None else 0 if parser.in_frame else 1
            for event in parser.feed(self._buffers.wire[:n], limit):
                if isinstance(event, Payload):
                    # Some libraries end every message with an empty fragment.
                    if not event.data and not (event.final and parser.in_continuation):
                        self._budget.spend(now)
                    if self.beginning is None:
                        self._decode(event, self._sink)
                    else:
                        self._receive_beginning(event, self.beginning)
                elif isinstance(event, Close):
                    self._receive_close(event, now)
                else:
                    self._budget.spend(now)
                    if isinstance(event, Ping):
                        self._outbox.ping_came(event.data)
        except RemoteProtocolError as exc:
            self.fail(exc, exc.close_code)
        if self._discarding:
            self._discard()
        if self._codec.received_all:
            self._stop_receiving()
        self._outbox.answer_ping()
        return parser.used

    @property
    def parser(self) -> FrameParser:
        return self._parser

    def may_pass(self, n: int) -> bool:
        return self._codec is BINARY_CODEC and self.beginning is None and not self._sink and not self._discarding

    def release(self) -> None:
        """Do nothing: nothing is held back."""

    def passed(self, n: int, now: float) -> None:
        self._parser.passed(n)
        self.keepalive.heard(now)

    def _receive_close(self, event: Close, now: float) -> None:
        self.close_received = True
        self._source_at = now
        self.close_code = event.code
        self.close_reason = event.reason
        if self._outbox.close_queued and event.code == self._codec.close_code:
            self.close_code = NORMAL  # the peer echoes our own code (RFC 6455 section 5.5.1)

    def _receive_beginning(self, event: Payload, beginning: Beginning) -> None:
        """Take a piece that may begin a session. Raises RemoteProtocolError for a session that begins too late."""
        data = beginning.take(event)
        if data is not None:
            self.beginning = None
            self._decode(data, self._sink)

    def _stop_receiving(self) -> None:
        """Deliver no further message. A client's sink has no half-close: further payload is discarded."""
        if not self._is_client:
            self._assume_close()
        elif self._codec.ends_together and self._sending:
            self._stop_sending()
        self._end_if_unsaid()

    def _end_if_unsaid(self) -> None:
        """End at once if both directions have ended and no Close was sent that the peer might answer."""
        if not self._sending and not self._codec.closes and self._codec.received_all:
            self._assume_close()
            self.close(NORMAL)

    def _assume_close(self) -> None:
        """Continue as after the peer's Close."""
        if not self.close_received:
            self.close_received = True
            self.close_code = NORMAL
            self._source_at = max(self._source_at, self.keepalive.heard_at)

    def wire_ended(self) -> None:
        self.wire_is_over = True

    @property
    def wants_sink_write(self) -> bool:
        return bool(self._sink)

    def sink_output(self) -> Sequence[Buffer]:
        return self._sink

    def sink_sent(self, n: int, now: float) -> None:
        consume(self._sink, n)
        self._sink_at = now

    def sink_failed(self, now: float) -> None:
        """Note that the sink cannot be written any more; the rest of this direction is counted and discarded."""
        self._discarding = True
        self._discard()

    def _discard(self) -> None:
        self.undelivered += sum(map(len, self._sink))
        self._sink.clear()

    @property
    def sink_ended(self) -> bool:
        """Whether the sink has received everything, so that it can be half-closed."""
        return (self.close_received or self.wire_is_over) and not self._sink

    # ---- a session instead

    @property
    def may_get_session(self) -> bool:
        """Whether this may still become a session, so that the source's end must wait."""
        return self.beginning is not None and self.beginning.open and not self.close_received and not self.wire_is_over

    @property
    def has_session(self) -> bool:
        """Whether this has turned out to be a session, which another kind of stream must take over."""
        return self.beginning is not None and self.beginning.decided

    def take_outbox(self) -> Outbox:
        """Return the outbox, with what is still to be sent, for the stream that takes over."""
        return self._outbox

    def leave_session(self) -> None:
        """End a session that we cannot use, followed by our Close."""
        if not self._outbox.close_queued:
            self._outbox.add(TEXT, b"end")
            self.close(NORMAL)

    # ---- both directions

    @property
    def complete(self) -> bool:
        """Whether both directions have ended, or cannot continue."""
        return self.sink_ended and (self.close_sent or self.wire_is_over)

    def settle(self) -> None:
        if self._outbox.pieces:
            self._outbox.pieces = [_owned(piece) for piece in self._outbox.pieces]
        if self._sink:
            self._sink = [_owned(piece) for piece in self._sink]

    def fail(self, error: TunnelError, code: int) -> None:
        """End both directions because of ``error``: send a Close with ``code``, and read nothing more."""
        self.failure = self.failure or error
        self.wire_is_over = True
        self.close(code, str(error) if code in (PROTOCOL_ERROR, POLICY) else "")

    def next_tick(self, now: float) -> float:
        limit = min(self.keepalive.tick, self._codec.tick_limit)
        if self.beginning is not None and self.beginning.open:
            return min(limit, max(0.0, self.beginning.deadline - now))
        return limit

    def tick(self, now: float) -> None:
        """Check the clock: ping, or set ``failure`` if a limit is over."""
        if not self._sink and not self._outbox.pieces and self._waited_long_enough(now):
            self._stop_sending()
            self.close(NORMAL)
            self._assume_close()
        try:
            self._check_limits(now)
        except TunnelError as exc:
            self.fail(exc, SILENT_PEER)

    def _waited_long_enough(self, now: float) -> bool:
        return self._codec.is_overdue(
            now,
            sending=self._sending,
            closed=self.close_received,
            source_at=self._source_at,
            heard_at=self.keepalive.heard_at,
        )

    def _check_limits(self, now: float) -> None:
        if self.beginning is not None:
            self.beginning.tick(now)
        if self._outbox.pieces:
            self.keepalive.check_write(now)
        else:
            self.keepalive.wrote(now)
        if not self._sink:
            self._sink_at = None
        elif self._sink_at is None:
            self._sink_at = now
        elif self._sink_limit is not None and now - self._sink_at >= self._sink_limit:
            self.sink_failed(now)
            raise ConnectionLost("sink-stalled", seconds=self._sink_limit)
        if self.close_received or self.wire_is_over:
            # The peer has ended its stream, and need not send anything more, not even pongs.
            if not self._outbox.close_queued and now - self._source_at >= STALL_LIMIT:
                raise ConnectionLost("no-tail", seconds=STALL_LIMIT)
            self._ping_if_due(now, reading=False)
        elif self._outbox.close_queued:
            if self._sink:
                self.keepalive.heard(now)
            self.keepalive.check_silence(now, CLOSE_LIMIT)
        else:
            self._ping_if_due(now, reading=not self._sink and not self._outbox.pieces)

    def _ping_if_due(self, now: float, *, reading: bool) -> None:
        if self.keepalive.ping_due(now, reading=reading) and not self._outbox.pieces and not self._outbox.close_queued:
            self._outbox.add(PING, b"")


def _owned(piece: T) -> T | bytes:
    """Return ``piece``, or a copy if it is a view of a read buffer (only these are bytearrays)."""
    if isinstance(piece, memoryview) and isinstance(piece.obj, bytearray):
        return bytes(piece)
    return piece
