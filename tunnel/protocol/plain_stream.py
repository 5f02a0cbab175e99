"""Wire 1: one byte stream over the messages of one WebSocket connection, Sans-I/O, for either role.

Each direction runs through these states, independently of the other one:

    source → wire   open ──source_ended() or close()──▶ closing ──Close frame sent──▶ close_sent
    wire → sink     open ──Close frame or wire_ended()──▶ closing ──all delivered──▶ sink_ended

Frame boundaries carry no meaning, unless the codec gives them one. Data frames are never empty, because websocat takes
an empty one for the end of file.
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
from tunnel.protocol.outbox import Outbox, consume
from tunnel.protocol.read_buffers import FRAME_LIMIT, ReadBuffers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.protocol.beginning import Beginning
    from tunnel.protocol.codec import Codec
    from tunnel.protocol.frames import Buffer

CLOSE_LIMIT = 60.0  # seconds of silence after which a Close is no longer waited for


class PlainStream:
    """One end of a plain tunnel: a `ByteStream`, and how its directions end.

    ``client`` is True at the end that dialled, which masks what it sends. ``sink_limit``: for how many seconds the sink
    may take nothing of what waits for it (None: for ever). ``preamble`` goes out before the first frame: the bridge's
    101. ``max_message``: bytes of payload of a message that we send, at most. ``codec``: what messages look like.
    ``beginning`` is given where we have offered to resume: the bridge may have agreed, with its answer lost on the way.

    What ended the stream is in ``failure``.
    """

    __slots__ = (
        "_budget", "_buffers", "_codec", "_decode", "_discarding", "_encode", "_is_client", "_outbox", "_parser",
        "_sending", "_sink", "_sink_at", "_sink_limit", "_source_at", "beginning", "close_code", "close_reason",
        "close_received", "failure", "keepalive", "max_message", "undelivered", "wire_is_over",
    )  # fmt: skip

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
        self._sink: list[Buffer] = []  # payload on its way to the sink
        self._discarding = False
        self._sink_limit = sink_limit
        self._sink_at: float | None = None  # when the sink, with bytes waiting for it, made progress last
        self._source_at = keepalive.heard_at  # when the source, or the peer's Close, came last
        self.close_received = False
        self.close_code = NO_CODE  # the peer's, once close_received
        self.close_reason = ""
        self.wire_is_over = False  # nothing can come any more
        self.undelivered = 0  # payload bytes that the sink refused
        self.failure: TunnelError | None = None
        self.beginning = beginning
        if codec.sent_all:
            self._stop_sending()
        if codec.received_all:
            self._stop_receiving()

    # ---- source → wire

    @property
    def wants_source(self) -> bool:
        """Whether the source should be read: everything read before has gone."""
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

    def send_first(self, data: bytes) -> None:
        """Queue ``data`` in front of all that the source will give."""
        for at in range(0, len(data), self.max_message):
            self._outbox.add(BINARY, data[at : at + self.max_message])

    def source_ended(self) -> None:
        """Note the source's end of file: a Close follows what was read before."""
        if self._sending:
            if not self._outbox.close_queued:
                self._codec.flush(self._outbox)
            self._stop_sending()
        elif self.close_received:
            self._answer_close()

    def _stop_sending(self) -> None:
        """Send no further message: the Close follows, if there is to be one."""
        self._sending = False
        if self._codec.closes or self.close_received:
            self._answer_close()
        self._end_if_unsaid()

    def _answer_close(self) -> None:
        self.close(self.close_code if self.close_received else NORMAL)

    def close(self, code: int, reason: str = "") -> None:
        """Queue a Close frame behind what was read before; only the first call counts."""
        if self._outbox.close_queued:
            return
        codec = self._codec
        if code != NORMAL:
            self._outbox.add_close(code, reason)
        elif codec.closes or self._parser.closed:
            self._outbox.add_close(codec.close_code, reason or codec.close_reason)
        else:
            self._outbox.close_queued = True  # and nothing is said

    @property
    def wants_wire_write(self) -> bool:
        return bool(self._outbox.pieces)

    def wire_output(self) -> Sequence[Buffer]:
        return self._outbox.pieces

    def wire_sent(self, n: int, now: float) -> None:
        self._outbox.sent(n)
        self.keepalive.wrote(now)

    def wire_write_failed(self) -> None:
        """Note that the wire takes nothing any more; what still waits is discarded."""
        self._outbox.clear()
        self._outbox.close_queued = True

    @property
    def close_sent(self) -> bool:
        """Whether our Close, and so everything, is with the wire."""
        return self._outbox.close_queued and not self._outbox.pieces

    # ---- wire → sink

    @property
    def wants_wire_read(self) -> bool:
        """Whether the wire should be read: everything that came before is delivered."""
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
            # What follows a session line is not for this stream.
            limit = FRAMES_PER_TURN if self.beginning is None else 0 if parser.in_frame else 1
            for event in parser.feed(self._buffers.wire[:n], limit):
                if isinstance(event, Payload):
                    # The empty end of a fragmented message is how some libraries write every message.
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

    def _receive_close(self, event: Close, now: float) -> None:
        self.close_received = True
        self._source_at = now
        self.close_code = event.code
        self.close_reason = event.reason
        if self._outbox.close_queued and event.code == self._codec.close_code:
            self.close_code = NORMAL  # our own code comes back, as RFC 6455 section 5.5.1 wants it

    def _receive_beginning(self, event: Payload, beginning: Beginning) -> None:
        """Take in what may begin a session. Raises RemoteProtocolError for one that must not begin any more."""
        data = beginning.take(event)
        if data is not None:
            self.beginning = None
            self._decode(data, self._sink)

    def _stop_receiving(self) -> None:
        """Deliver no further message. A client's sink knows no half-close: what still comes is discarded."""
        if not self._is_client:
            self._assume_close()
        elif self._codec.ends_together and self._sending:
            self._stop_sending()
        self._end_if_unsaid()

    def _end_if_unsaid(self) -> None:
        """End at once when neither direction goes on, and no Close was sent that the peer might answer."""
        if not self._sending and not self._codec.closes and self._codec.received_all:
            self._assume_close()
            self.close(NORMAL)

    def _assume_close(self) -> None:
        """Go on as if the peer's Close had come."""
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
        """Note that the sink takes nothing any more; the rest of this direction is read, counted and discarded."""
        self._discarding = True
        self._discard()

    def _discard(self) -> None:
        self.undelivered += sum(map(len, self._sink))
        self._sink.clear()

    @property
    def sink_ended(self) -> bool:
        """Whether the sink has all that will ever come: time to half-close it."""
        return (self.close_received or self.wire_is_over) and not self._sink

    # ---- a session instead

    @property
    def may_get_session(self) -> bool:
        """Whether this may become a session yet, so that the source's end must wait."""
        return self.beginning is not None and self.beginning.open and not self.close_received and not self.wire_is_over

    @property
    def has_session(self) -> bool:
        """Whether it has turned out to be a session, which another kind of stream has to take over."""
        return self.beginning is not None and self.beginning.decided

    def take_outbox(self) -> Outbox:
        """Return what is still to be sent, for the stream that takes over."""
        return self._outbox

    def leave_session(self) -> None:
        """End the session that we cannot use, with our Close behind."""
        if not self._outbox.close_queued:
            self._outbox.add(TEXT, b"end")
            self.close(NORMAL)

    # ---- both directions

    @property
    def complete(self) -> bool:
        """Whether both directions have ended, or can never go on."""
        return self.sink_ended and (self.close_sent or self.wire_is_over)

    def settle(self) -> None:
        if self._outbox.pieces:
            self._outbox.pieces = [_owned(piece) for piece in self._outbox.pieces]
        if self._sink:
            self._sink = [_owned(piece) for piece in self._sink]

    def fail(self, error: TunnelError, code: int) -> None:
        """End both directions because of ``error``: Close with ``code``, then nothing is read any more."""
        self.failure = self.failure or error
        self.wire_is_over = True
        self.close(code, str(error) if code in (PROTOCOL_ERROR, POLICY) else "")

    def next_tick(self, now: float) -> float:
        limit = min(self.keepalive.tick, self._codec.tick_limit)
        if self.beginning is not None and self.beginning.open:
            return min(limit, max(0.0, self.beginning.deadline - now))
        return limit

    def tick(self, now: float) -> None:
        """Check the clock: ping, or set ``failure`` when a limit is over."""
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
            # Only our tail may follow; the peer has ended its stream and owes us nothing, not even pongs.
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


def _owned(piece: Buffer) -> Buffer:
    """Return ``piece``, or a copy if it is a view of a read buffer (those are the only bytearrays)."""
    if isinstance(piece, memoryview) and isinstance(piece.obj, bytearray):
        return bytes(piece)
    return piece
