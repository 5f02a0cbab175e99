"""Wire 2: one byte stream in each direction that outlives the WebSocket connections which carry it, Sans-I/O.

A `ByteStream` that can be *detached* from a connection that died and *attached* to a new one, and that knows when the
session is *over*. Everything that affects its state is here:

    state       session offered?  connection?   what moves
    new         no                yes           the bridge sends the session line; the client sends nothing before it,
                                                or is a plain stream as yet (`adopt`; see `tunnel.protocol.beginning`)
    attached    yes               yes           data, fin, ack, ping both ways
    detached    yes               no            nothing; the sender keeps what is not acknowledged
    over        –                 –             nothing: `end` or `error` went or came, or the state is lost

    event               new         attached                      detached
    session line        attached    violation                     –
    data, ack, fin …    (is plain)  see `_receive_control`        –
    Close, EOF, dead,
      no frames         (dial anew) detached, perhaps with a      –
                                    lower limit for messages
    attach(received)    –           –                             attached: sends again from `received`, the bridge
                                                                  an ack first
    end (at the bridge) –           over, target gets the rest    –
    error               over        over                          –

Numbers count the bytes of one direction from 0; a fin takes the number behind the last byte. *Delivered* is what the
sink took, and the fin once the sink is half-closed. Only that is acknowledged, so what a dying connection takes with it
comes again. `tunnel.protocol.sender` and `tunnel.protocol.receiver` have one direction each.

The bridge's first message on a resumed connection is its ack, which is the offset to go on from. Where an edge drops
the header that says the same, the client waits for that ack before it attaches.
"""

from __future__ import annotations

from tunnel.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError, TunnelError
from tunnel.protocol.control import (
    Ack,
    AckRequest,
    ControlReader,
    End,
    Fin,
    SessionError,
    SessionOffer,
    error_line,
    parse_control,
    session_failure,
)
from tunnel.protocol.frame_budget import FRAMES_PER_TURN, FrameBudget
from tunnel.protocol.frames import (
    BINARY,
    NORMAL,
    PING,
    POLICY,
    TARGET_LOST,
    TARGET_REFUSED_DATA,
    TEXT,
    TOO_BIG,
    Close,
    FrameParser,
    Payload,
    Ping,
    Pong,
)
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT
from tunnel.protocol.liveness import Liveness
from tunnel.protocol.message_size import LARGEST_MESSAGE
from tunnel.protocol.outbox import Outbox
from tunnel.protocol.receiver import Receiver
from tunnel.protocol.sender import Sender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunnel.protocol.frames import Buffer
    from tunnel.protocol.message_size import MessageSize
    from tunnel.protocol.read_buffers import ReadBuffers
    from tunnel.protocol.replay import ReplayBuffer

WINDOW = 16 << 20  # bytes that may be on their way, by default


class ResumableStream:
    """One end of a resumable tunnel; see the module's text.

    At the bridge ``offer`` is the session that it offers; the client gets its own from the wire. ``now`` is the
    driver's monotonic clock, in seconds, wherever it appears; so are ``ping_interval`` and ``ping_timeout``, as in
    `Liveness`. ``preamble`` goes out before the first frame: the bridge's 101. ``max_message``: bytes of payload of a
    message that we send, at most, until the session learns that it must be less. Nothing here raises, except `attach`,
    and when it is misused.
    """

    __slots__ = (
        "_budget", "_buffers", "_control", "_is_client", "_lines", "_outbox", "_parser", "_ping_limits", "_receiver",
        "_sender", "_source_failure", "_wire_is_deaf", "attached", "close", "confirmed", "failure",
        "heard_since_attach", "is_plain", "is_silent", "liveness", "offer", "over", "violation", "wire_is_over",
    )  # fmt: skip

    def __init__(
        self,
        *,
        client: bool,
        buffers: ReadBuffers,
        now: float,
        offer: SessionOffer | None = None,
        ping_interval: float = PING_INTERVAL,
        ping_timeout: float = PING_TIMEOUT,
        preamble: bytes = b"",
        max_message: int = LARGEST_MESSAGE,
    ) -> None:
        self._is_client = client
        self._ping_limits = (ping_interval, ping_timeout)
        self._buffers = buffers
        self._sender = Sender(max_message)
        self._receiver = Receiver(WINDOW)
        self._budget = FrameBudget()  # the session's, lest a flood goes on by resuming
        self._source_failure: tuple[str, str] | None = None
        self.offer: SessionOffer | None = None
        self.is_plain = False  # whether the peer has turned out not to speak of sessions at all
        self.confirmed = False  # whether the peer has spoken in this session: it knows of it
        self.failure: TunnelError | None = None
        self.over = False
        self._begin_connection(now, preamble)
        if offer is not None:
            self._take_offer(offer)
            self._outbox.add(TEXT, offer.line().encode("ascii"))  # goes out together with the preamble

    def _begin_connection(self, now: float, preamble: bytes) -> None:
        """Set what belongs to one connection."""
        self.attached = True
        self.wire_is_over = False
        self.close: Close | None = None  # the peer's, or a hop's
        self._wire_is_deaf = False  # it takes nothing any more
        self.heard_since_attach = False  # whether anything came on this connection
        self.is_silent = False  # whether it is over because nothing came for too long
        self.violation: RemoteProtocolError | None = None  # or because what came were no frames
        self._parser = FrameParser(masked=not self._is_client)
        self._outbox = Outbox(masks=self._is_client, preamble=preamble)
        self._control: list[str] = []
        self._lines = ControlReader()
        self._receiver.begin_connection()
        self.liveness = Liveness(now, *self._ping_limits)

    # ---- connections

    @property
    def established(self) -> bool:
        """Whether the session exists: until then a lost connection is simply dialled anew."""
        return self.offer is not None

    @property
    def delivered(self) -> int:
        """Numbers of the peer's stream that are delivered: the offset of a resume, and of every ack."""
        return self._receiver.delivered

    @property
    def unacknowledged(self) -> int:
        """Bytes that are kept for sending again."""
        return self._sender.unacknowledged

    @property
    def progress(self) -> bool:
        """Whether the peer has acknowledged anything new on this connection, or the last one."""
        return self._sender.progress

    @property
    def message_size(self) -> MessageSize:
        """How large a message that we send may be. It is the session's, not the connection's."""
        return self._sender.message_size

    @property
    def replay(self) -> ReplayBuffer:
        """What is kept for sending again."""
        return self._sender.replay

    def detach(self) -> None:
        """Let go of the connection: from here on nothing that came on it counts, but what was delivered."""
        if self.attached:
            # Whoever drops a message that is too large hangs up; silence, and a client that comes anew, are signs of a
            # network that is away.
            self._sender.lost_connection(
                too_big=self.close is not None and self.close.code == TOO_BIG,
                blames_size=self.wire_is_over and not self.is_silent,
            )
        self.attached = False
        self.wire_ended()
        self._receiver.drop()

    def can_attach(self, received: int) -> bool:
        """Return whether the peer can have delivered ``received`` of our numbers."""
        return self._sender.can_be_acked(received)

    def attach(self, received: int, now: float, preamble: bytes = b"") -> None:
        """Go on over a new connection with a peer that has delivered ``received`` of our numbers.

        ``preamble`` is as in the constructor. Raises RemoteProtocolError when the peer cannot have delivered that.
        """
        if not self.can_attach(received):
            raise RemoteProtocolError(
                f"the peer resumes at {received}, which is not from {self._sender.acked} to {self._sender.ever_sent}"
            )
        self._begin_connection(now, preamble)
        self._ack_came(received)
        self._sender.begin_connection()
        if not self._is_client:
            self._receiver.ack_due = True

    def adopt(self, offer: SessionOffer, outbox: Outbox, sent: bytes) -> None:
        """Begin at the client with the session that the bridge has offered on a stream that was a plain one until then.

        That has ``sent`` these bytes, the last of which may still be in its ``outbox``.
        """
        self._take_offer(offer)
        # The first ack tells the bridge that its session line has arrived.
        self._receiver.ack_due = True
        self._outbox = outbox
        self._sender.adopt(sent)
        self.heard_since_attach = True

    def _take_offer(self, offer: SessionOffer) -> None:
        self.offer = offer
        self._receiver.window = offer.window
        self._sender.window = min(offer.window, WINDOW)  # we need not keep as many bytes as a peer would take

    # ---- source → wire

    @property
    def wants_source(self) -> bool:
        """Whether the source should be read: the window and the read-ahead have room."""
        return self.attached and not self.over and self._sender.has_room

    def source_space(self) -> memoryview:
        if not self.wants_source:
            raise LocalProtocolError("the source was read while the window is full, or without a connection")
        return self._sender.space()

    def source_received(self, n: int, now: float) -> None:
        self._sender.replay.extend(n)

    def source_ended(self) -> None:
        """Note the source's end of file: a fin follows what was read before."""
        self._sender.ended = self._sender.ended or self._source_failure is None

    def source_failed(self, code: int, reason: str) -> None:
        """Note that the source broke: an error ends the session once the peer has all that was read before."""
        if not self._sender.ended and self._source_failure is None:
            cause = {TARGET_LOST: "target-lost", TARGET_REFUSED_DATA: "undelivered"}.get(code, "input")
            self._source_failure = (cause, reason if cause == "input" else f": {reason}" if reason else "")
            self._report_source_failure()

    def _report_source_failure(self) -> None:
        if self._source_failure is not None and self._sender.is_acknowledged:
            cause, reason = self._source_failure
            self.fail(cause, ConnectionLost(cause, reason=reason), text=reason.removeprefix(": "))

    @property
    def fin_acknowledged(self) -> bool:
        """Whether the peer has delivered all of our stream, and its end."""
        return self._sender.fin_acked

    @property
    def wants_wire_write(self) -> bool:
        return not self._wire_is_deaf and (
            bool(self._outbox.pieces or self._control) or (self.attached and self._has_more)
        )

    @property
    def _has_more(self) -> bool:
        if self.offer is None or self.over or self.wire_is_over:
            return False
        return self._sender.has_more or self._receiver.ack_due

    def wire_output(self) -> Sequence[Buffer]:
        if not self._outbox.pieces:
            self._fill_outbox()
        return self._outbox.pieces

    def _fill_outbox(self) -> None:
        """Frame what is to go next: control lines first, then data, then the fin behind the last of the data."""
        lines, self._control = self._control, []
        if self._receiver.ack_due and self._has_more:
            lines.append(f"ack {self._receiver.take_ack()}")
        for line in lines:
            self._outbox.add(TEXT, line.encode("ascii"))
        if not self._has_more:
            return
        self._sender.send_segment(self._outbox)
        if fin := self._sender.take_fin():
            self._outbox.add(TEXT, fin.encode("ascii"))

    def wire_sent(self, n: int, now: float) -> None:
        self._outbox.sent(n)

    def wire_write_failed(self) -> None:
        """Note that the wire takes nothing any more. What the peer sent before it hung up is still to be read."""
        self._stop_writing()
        self._wire_is_deaf = True

    def _stop_writing(self) -> None:
        self._outbox.clear()
        self._control = []

    # ---- wire → sink

    @property
    def wants_wire_read(self) -> bool:
        """Whether the wire should be read. It always is: the window is the only brake."""
        return self.attached and not self.wire_is_over and not self.over

    def wire_space(self) -> memoryview:
        if not self.wants_wire_read:
            raise LocalProtocolError("the wire was read after its end")
        return self._buffers.wire

    def wire_received(self, n: int, now: float) -> int:
        self.heard_since_attach = True
        self.liveness.heard(now)
        self._receiver.begin_chunk()
        try:
            for event in self._frames(n):
                if isinstance(event, Payload):
                    if event.opcode == BINARY:
                        self._receive_data(event, now)
                    else:
                        self._receive_text(event, now)
                elif isinstance(event, Close):
                    self.close = event
                    self.wire_is_over = True
                else:
                    self._budget.spend(now)
                    if isinstance(event, Ping):
                        self._outbox.ping_came(event.data)
                if self.over or self.is_plain:
                    break
        except RemoteProtocolError as exc:
            if exc.close_code == POLICY:
                self.fail("policy", exc, close_code=POLICY)
            else:
                self.fail("protocol", exc)
        if self._parser.in_data:
            self._receiver.hold_back()
        self._outbox.answer_ping()
        return self._parser.used

    def _frames(self, n: int) -> Iterator[Payload | Ping | Pong | Close]:
        """Yield what the ``n`` bytes are. Those that are no frames are a hop's doing: it breaks the connection only."""
        try:
            yield from self._parser.feed(self._buffers.wire[:n], FRAMES_PER_TURN)
        except RemoteProtocolError as exc:
            if not self.established:
                raise
            self.violation = exc
            self.wire_is_over = True

    def _receive_data(self, event: Payload, now: float) -> None:
        data = event.data
        if not data:
            if not (event.final and self._parser.in_continuation):  # see `PlainStream.wire_received`
                self._budget.spend(now)
            return
        if self.offer is None:
            self._find_plain()
            return
        self.confirmed = True
        if self._is_client:
            self.liveness.data_came()  # the bridge need not know soon: it waits for its client anyway
        self._receiver.data_came(data, now)

    def _receive_text(self, event: Payload, now: float) -> None:
        line = self._lines.take(event, ends_frame=not self._parser.in_data)
        if not (event.data or event.final):
            self._budget.spend(now)
        if line is not None and not self._receive_control(line, now):
            self._budget.spend(now, self._lines.frames)

    def _receive_control(self, line: bytes, now: float) -> bool:
        """Do what ``line`` says; return whether that was anything new. Raises RemoteProtocolError."""
        control = parse_control(line)
        if isinstance(control, SessionOffer):
            if self.offer is not None:
                raise RemoteProtocolError("the peer offered a session inside a session")
            self._take_offer(control)
            self._receiver.ack_due = True  # which tells the bridge that its session line has arrived
        elif isinstance(control, SessionError):
            self.failure = self.failure or session_failure(control, "the bridge" if self._is_client else "the client")
            self.over = True
        elif self.offer is None:
            self._find_plain()
            return False
        elif isinstance(control, Ack):
            is_new = control.count > self._sender.acked or not self.confirmed
            self._ack_came(control.count)
            self.confirmed = True
            self.liveness.acknowledged(now)
            return is_new
        elif isinstance(control, Fin):
            return self._receiver.fin_came(control.count)
        elif isinstance(control, AckRequest):
            self._receiver.ack_due = True
            return False
        elif isinstance(control, End):
            if self._is_client:
                raise RemoteProtocolError("the bridge sent an end, which only clients may")
            self.over = True
        return control is not None

    def _find_plain(self) -> None:
        """Note that the peer does not begin with a session: an edge says that it would, but it knows nothing of it."""
        self.is_plain = True
        self.wire_is_over = True

    def _ack_came(self, count: int) -> None:
        self._sender.ack_came(count)
        self._report_source_failure()

    def wire_ended(self) -> None:
        """Note the end of file, or a broken connection, when reading the wire."""
        self.wire_is_over = True
        self._stop_writing()

    @property
    def wants_sink_write(self) -> bool:
        return bool(self._receiver.pieces)

    def sink_output(self) -> Sequence[Buffer]:
        return self._receiver.pieces

    def sink_sent(self, n: int, now: float) -> None:
        self._receiver.sink_took(n, now)

    def sink_failed(self, now: float) -> None:
        """Note that the sink takes nothing any more; the rest of this direction is acknowledged and discarded."""
        self._receiver.sink_failed(now)

    @property
    def undelivered(self) -> int:
        """Bytes that the sink did not take."""
        return self._receiver.undelivered

    @property
    def sink_ended(self) -> bool:
        """Whether the sink has all that will ever come: time to half-close it, and to call `sink_half_closed`."""
        return self._receiver.has_ended

    @property
    def fin_delivered(self) -> bool:
        """Whether the sink knows that the peer's stream has ended."""
        return self._receiver.fin_delivered

    def sink_half_closed(self) -> None:
        """Note that the sink knows of the end."""
        self._receiver.sink_half_closed()

    # ---- the end of the session

    @property
    def complete(self) -> bool:
        """Whether both streams are delivered whole, with their ends."""
        return self.fin_delivered and self.fin_acknowledged

    def end(self) -> None:
        """End the session from the client: what was read goes out, then the last ack, `end` and a Close."""
        if self.over:
            return
        while self.attached and self.offer is not None and self._sender.send_segment(self._outbox):
            pass
        self._finish([f"ack {self.delivered}", "end"] if self.offer is not None else [])

    def fail(self, code: str, error: TunnelError, *, text: str | None = None, close_code: int = NORMAL) -> None:
        """End the session with an ``error`` line and a Close; what was not delivered is lost."""
        if self.over:
            return
        self.failure = self.failure or error
        self._finish([error_line(code, str(error) if text is None else text)], close_code)

    def _finish(self, lines: list[str], close_code: int = NORMAL) -> None:
        if self.attached and not self.wire_is_over:
            for line in [*self._control, *lines]:
                self._outbox.add(TEXT, line.encode("ascii"))
            self._outbox.add_close(close_code)
        self._control = []
        self.over = True

    # ---- both

    def settle(self) -> None:
        self._receiver.settle(self._buffers.wire)

    def tick(self, now: float) -> None:
        """Check the clock: acknowledge, ping, or declare the connection dead (``wire_is_over``)."""
        if not self.attached or self.wire_is_over or self.over:
            return
        self._receiver.tick(now)
        if not self.unacknowledged:
            self.replay.trim()
        action = self.liveness.check(now, waiting=self._waits_for_peer)
        if action == "dead":
            self.is_silent = True
            self.wire_ended()
        elif action == "request-ack":
            self.request_ack()
        elif action == "ping" and not self._outbox.pieces:
            self._outbox.add(PING, b"")

    @property
    def _waits_for_peer(self) -> bool:
        """Whether the peer owes us something: an ack, or the session that it offers."""
        return self._sender.waits_for_ack or self.offer is None

    def next_tick(self, now: float) -> float:
        if not self.attached or self.wire_is_over or self.over:
            return float("inf")
        at = self.liveness.next_check(now, waiting=self._waits_for_peer)
        if self._receiver.ack_at is not None:
            at = min(at, self._receiver.ack_at)
        return max(0.0, at - now)

    def request_ack(self) -> None:
        """Ask the peer for its current ack, which is also a sign of life."""
        if self.attached and self.offer is not None and not self.wire_is_over and not self.over:
            self._control.append("ping")

    def probe(self, now: float) -> None:
        """Ask for a sign of life within 2 s, after a jump of the clock: call it when what is there has been read."""
        self.request_ack()
        self.liveness.probed(now)
