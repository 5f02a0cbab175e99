"""Wire 2: one byte stream in each direction that outlives the WebSocket connections which carry it, Sans-I/O.

It has the face of `tunnel.protocol.stream.PlainStream`, and three things more: it can be *detached* from a connection
that died, *attached* to a new one, and it knows when the session is *over*. Everything that affects the state is here:

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
sink took, and the fin once the sink is half-closed; only that is acknowledged, so a connection that dies takes nothing
with it that would not come again.

The bridge's first message on a resumed connection is its ack, which is the offset to go on from: where an edge drops
the header that says the same, the client waits for that before it attaches. Edges have limits for the size of a
message, too: what is known of them (`tunnel.protocol.message_size`) is the session's, not the connection's.
"""

from __future__ import annotations

from tunnel.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError, TunnelError
from tunnel.protocol.control import (
    MESSAGE_LIMIT,
    Ack,
    AckRequest,
    End,
    Fin,
    SessionError,
    SessionOffer,
    error_line,
    parse_control,
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
from tunnel.protocol.inbox import Inbox
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT
from tunnel.protocol.liveness import Liveness
from tunnel.protocol.message_size import LARGEST_MESSAGE, MessageSize
from tunnel.protocol.outbox import Outbox
from tunnel.protocol.replay import ReplayBuffer
from tunnel.protocol.stream import ReadBuffers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunnel.protocol.frames import Buffer

WINDOW = 16 << 20  # bytes that may be on their way, by default
READ_AHEAD = 128 << 10  # bytes that may wait for the wire when more is read; on a slow line, what is typed waits, too


class ResumableStream:
    """The resumable tunnel as seen from one end; see the module's text.

    At the bridge ``offer`` is the session that it offers; the client gets its own from the wire. ``now`` is the
    driver's monotonic clock, in seconds, wherever it appears; so are ``ping_interval`` and ``ping_timeout``, as in
    `Liveness`. ``preamble`` goes out before the first frame: the bridge's 101. ``max_message`` is how many bytes of
    payload a message that we send has at most, until the session learns that it must be less. Nothing here raises but
    for misuse, and `attach`.
    """

    __slots__ = (
        "_acked_before", "_budget", "_buffers", "_control", "_ever_sent", "_fin_sent", "_has_heard_text",
        "_inbox", "_is_client", "_largest_sent", "_line", "_line_frames", "_outbox", "_parser", "_peer_acked",
        "_ping_limits", "_source_failure", "_source_fin", "_wire_is_deaf", "attached", "close", "confirmed", "failure",
        "heard_since_attach", "is_plain", "is_silent", "liveness", "message_size", "offer", "over", "replay",
        "violation", "wire_is_over",
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
        self.offer = offer
        self.replay = ReplayBuffer()
        self.message_size = MessageSize(max_message)
        self.is_plain = False  # whether the peer has turned out not to speak of sessions at all
        self._source_fin = False
        self._source_failure: tuple[str, str] | None = None
        self._ever_sent = 0  # numbers, on any connection
        self._peer_acked = 0  # numbers of ours that the peer has delivered
        self._inbox = Inbox(offer.window if offer is not None else WINDOW)
        self._budget = FrameBudget()  # the session's, lest a flood goes on by resuming
        self._has_heard_text = False  # of the peer, in this session
        self.confirmed = False  # whether the peer has spoken in this session: it knows of it
        self.failure: TunnelError | None = None
        self.over = False
        # What belongs to one connection; see `_reset_connection`.
        self._reset_connection(now, preamble)
        if offer is not None:
            self._outbox.add(TEXT, offer.line().encode("ascii"))  # goes out together with the preamble

    def _reset_connection(self, now: float, preamble: bytes) -> None:
        self.attached = True
        self.wire_is_over = False
        self.close: Close | None = None  # the peer's, or a hop's
        self._wire_is_deaf = False  # it takes nothing any more
        self._acked_before = self._peer_acked  # on other connections
        self._largest_sent = 0  # bytes of the largest message
        self.heard_since_attach = False  # whether anything came on this connection
        self.is_silent = False  # whether that is because nothing came for too long
        self.violation: RemoteProtocolError | None = None  # or because what came were no frames
        self._parser = FrameParser(masked=not self._is_client)
        self._outbox = Outbox(masks=self._is_client, preamble=preamble)
        self._control: list[str] = []
        self._line = b""
        self._line_frames = 0  # that brought the line so far
        self._fin_sent = False
        self._inbox.begin_connection()
        self.liveness = Liveness(now, *self._ping_limits)

    # ---- connections

    @property
    def established(self) -> bool:
        """Whether the session exists: until then a lost connection is simply dialled anew."""
        return self.offer is not None

    @property
    def delivered(self) -> int:
        """Numbers of the peer's stream that are delivered: the offset of a resume, and of every ack."""
        return self._inbox.delivered

    @property
    def unacknowledged(self) -> int:
        """Bytes that are kept for sending again."""
        return self.replay.end - self.replay.base

    def detach(self) -> None:
        """Let go of the connection: from here on nothing that came on it counts, but what was delivered."""
        if self.attached:
            close, was_taken = self.close, self.progress
            self.message_size.lost(
                too_big=close is not None and close.code == TOO_BIG,
                progress=was_taken,
                # Whoever drops a message that is too large hangs up; silence, and a client that comes anew, are signs
                # of a network that is away.
                largest=self._largest_sent if self.wire_is_over and not self.is_silent and self.unacknowledged else 0,
            )
        self.attached = False
        self.wire_ended()
        self._inbox.drop()

    @property
    def progress(self) -> bool:
        """Whether the peer has acknowledged anything new on this connection, or the last one."""
        return self._peer_acked > self._acked_before

    def can_attach(self, received: int) -> bool:
        """Return whether the peer can have delivered ``received`` of our numbers."""
        return self._peer_acked <= received <= self._ever_sent

    def attach(self, received: int, now: float, preamble: bytes = b"") -> None:
        """Go on over a new connection with a peer that has delivered ``received`` of our numbers.

        ``preamble`` is as in the constructor. Raises RemoteProtocolError when the peer cannot have delivered that.
        """
        if not self.can_attach(received):
            raise RemoteProtocolError(
                f"the peer resumes at {received}, which is not from {self._peer_acked} to {self._ever_sent}"
            )
        self._reset_connection(now, preamble)
        self._confirm(received)
        self._acked_before = self._peer_acked
        self.replay.rewind()
        self._fin_sent = self.fin_acknowledged
        if not self._is_client:
            self._inbox.ack_due = True

    def adopt(self, offer: SessionOffer, outbox: Outbox, sent: bytes) -> None:
        """Begin at the client with the session that the bridge has offered on a stream that was a plain one until then.

        That has ``sent`` these bytes, the last of which may still be in its ``outbox``.
        """
        self._begin(offer)
        self._outbox = outbox
        rest = memoryview(sent)
        while rest:
            space = self.replay.space(len(rest))
            n = len(space)
            space[:] = rest[:n]
            self.replay.extend(n)
            rest = rest[n:]
        while self.replay.take() is not None:
            pass
        self._ever_sent = len(sent)
        self.heard_since_attach = True

    def _begin(self, offer: SessionOffer) -> None:
        self.offer = offer
        self._inbox.window = offer.window
        # The first ack tells the bridge that its session line has arrived.
        self._inbox.ack_due = True

    # ---- source → wire

    @property
    def wants_source(self) -> bool:
        """Whether the source should be read: the window and the read-ahead have room."""
        replay = self.replay
        return (
            self.attached
            and self.offer is not None
            and not self._source_fin
            and not self.over
            and not replay.is_full
            and replay.end - replay.base < self._send_limit
            and replay.end - replay.next < READ_AHEAD
        )

    def source_space(self) -> memoryview:
        """Return the space to read the source into; valid until `source_received`."""
        if self.offer is None or not self.wants_source:
            raise LocalProtocolError("the source was read while the window is full, or without a connection")
        return self.replay.space(self._send_limit - self.unacknowledged)

    @property
    def _send_limit(self) -> int:
        """How many bytes may be unacknowledged: we need not keep as many as a peer would take."""
        return min(self.offer.window, WINDOW) if self.offer is not None else 0

    def source_received(self, n: int, now: float) -> None:
        """Note that ``n`` bytes (at least 1) of the source stand in `source_space`."""
        self.replay.extend(n)

    def source_ended(self) -> None:
        """Note the source's end of file: a fin follows what was read before."""
        self._source_fin = self._source_fin or self._source_failure is None

    def source_failed(self, code: int, reason: str) -> None:
        """Note that the source broke: an error ends the session once the peer has all that was read before."""
        if not self._source_fin and self._source_failure is None:
            cause = {TARGET_LOST: "target-lost", TARGET_REFUSED_DATA: "undelivered"}.get(code, "input")
            self._source_failure = (cause, reason if cause == "input" else f": {reason}" if reason else "")
            self._report_source_failure()

    def _report_source_failure(self) -> None:
        if self._source_failure is not None and self._peer_acked == self.replay.end:
            cause, reason = self._source_failure
            self.fail(cause, ConnectionLost(cause, reason=reason), text=reason.removeprefix(": "))

    @property
    def fin_acknowledged(self) -> bool:
        """Whether the peer has delivered all of our stream, and its end."""
        return self._source_fin and self._peer_acked == self.replay.end + 1

    @property
    def wants_wire_write(self) -> bool:
        """Whether bytes wait for the wire."""
        return not self._wire_is_deaf and (
            bool(self._outbox.pieces or self._control) or (self.attached and self._has_more())
        )

    def _has_more(self) -> bool:
        if self.offer is None or self.over or self.wire_is_over:
            return False
        return self.replay.next < self.replay.end or self._inbox.ack_due or (self._source_fin and not self._fin_sent)

    def wire_output(self) -> Sequence[Buffer]:
        """Return what to write to the wire next; empty when there is nothing."""
        if not self._outbox.pieces:
            self._fill_output()
        return self._outbox.pieces

    def _fill_output(self) -> None:
        """Frame what is to go next: control lines first, then data, then the fin behind the last of the data."""
        lines, self._control = self._control, []
        if self._inbox.ack_due and self._has_more():
            lines.append(f"ack {self._inbox.take_ack()}")
        for line in lines:
            self._outbox.add(TEXT, line.encode("ascii"))
        if not self._has_more():
            return
        self._send_segment()
        if self._source_fin and not self._fin_sent and self.replay.next == self.replay.end:
            self._fin_sent = True
            self._ever_sent = self.replay.end + 1
            self._outbox.add(TEXT, f"fin {self.replay.end}".encode("ascii"))

    def _send_segment(self) -> bool:
        """Queue what of the stream is to go next, as one message; return whether there was anything."""
        taken = self.replay.take(self.message_size.limit)
        if taken is None:
            return False
        part, has_room = taken
        self._outbox.add_data(part.chunk, part.start, part.end, has_room=has_room)
        self._ever_sent = max(self._ever_sent, self.replay.next)
        self._largest_sent = max(self._largest_sent, len(part))
        return True

    def wire_sent(self, n: int, now: float) -> None:
        """Note that the wire took the first ``n`` bytes of `wire_output`."""
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
        """Return the space to read the wire into; valid until `wire_received`."""
        if not self.wants_wire_read:
            raise LocalProtocolError("the wire was read after its end")
        return self._buffers.wire

    def wire_received(self, n: int, now: float) -> int:
        """Take in what stands in `wire_space`: ``n`` bytes (at least 1) of the wire.

        Return how many of them were used; the rest must come again, as for `PlainStream.wire_received`.
        """
        self.heard_since_attach = True
        self.liveness.heard(now)
        self._inbox.begin_chunk()
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
            self._inbox.hold_back()
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
        if not self._has_heard_text and not self._is_client and event.final and self._is_ack(data):
            raise RemoteProtocolError("an edge makes data of the client's control lines: use no_resume")
        self.confirmed = True
        if self._is_client:
            self.liveness.data_came()  # the bridge need not know soon: it waits for its client anyway
        self._inbox.data_came(data, now)

    def _is_ack(self, data: Buffer) -> bool:
        """Return whether ``data`` is what a client begins with, once it knows of the session."""
        if len(data) > MESSAGE_LIMIT or not bytes(data).startswith(b"ack "):
            return False
        try:
            control = parse_control(bytes(data))
        except RemoteProtocolError:
            return False
        return isinstance(control, Ack) and control.count <= self._ever_sent

    def _receive_text(self, event: Payload, now: float) -> None:
        self._line += bytes(event.data)
        if len(self._line) > MESSAGE_LIMIT:
            raise RemoteProtocolError("the peer sent a control line that is too long")
        if not (event.data or event.final):
            self._budget.spend(now)
        elif not self._parser.in_data:
            self._line_frames += 1
        if event.final:
            line, self._line = self._line, b""
            frames, self._line_frames = self._line_frames, 0
            if not self._receive_control(line, now):
                self._budget.spend(now, frames)

    def _receive_control(self, line: bytes, now: float) -> bool:
        """Do what ``line`` says; return whether that was anything new. Raises RemoteProtocolError."""
        control = parse_control(line)
        self._has_heard_text = True
        if isinstance(control, SessionOffer):
            if self.offer is not None:
                raise RemoteProtocolError("the peer offered a session inside a session")
            self._begin(control)
        elif isinstance(control, SessionError):
            self.failure = self.failure or session_failure(control, "the bridge" if self._is_client else "the client")
            self.over = True
        elif self.offer is None:
            self._find_plain()
            return False
        elif isinstance(control, Ack):
            if not self._peer_acked <= control.count <= self._ever_sent:
                raise RemoteProtocolError(f"the peer acknowledged {control.count}, which cannot be")
            is_new = control.count > self._peer_acked or not self.confirmed
            self.confirmed = True
            self._confirm(control.count)
            self.liveness.acknowledged(now)
            return is_new
        elif isinstance(control, Fin):
            return self._inbox.fin_came(control.count)
        elif isinstance(control, AckRequest):
            self._inbox.ack_due = True
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

    def _confirm(self, count: int) -> None:
        self._peer_acked = count
        self.replay.confirm(min(count, self.replay.end))
        self._report_source_failure()

    def wire_ended(self) -> None:
        """Note the end of file, or a broken connection, when reading the wire."""
        self.wire_is_over = True
        self._stop_writing()

    @property
    def wants_sink_write(self) -> bool:
        """Whether bytes wait for the sink."""
        return bool(self._inbox.pieces)

    def sink_output(self) -> Sequence[Buffer]:
        """Return what to write to the sink next; empty when there is nothing."""
        return self._inbox.pieces

    def sink_sent(self, n: int, now: float) -> None:
        """Note that the sink took the first ``n`` bytes of `sink_output`."""
        self._inbox.sink_took(n, now)

    def sink_failed(self, now: float) -> None:
        """Note that the sink takes nothing any more; the rest of this direction is acknowledged and discarded."""
        self._inbox.sink_failed(now)

    @property
    def undelivered(self) -> int:
        """Bytes that the sink did not take."""
        return self._inbox.undelivered

    @property
    def sink_ended(self) -> bool:
        """Whether the sink has all that will ever come: time to half-close it, and to call `sink_half_closed`."""
        return self._inbox.has_ended

    @property
    def fin_delivered(self) -> bool:
        """Whether the sink knows that the peer's stream has ended."""
        return self._inbox.fin_delivered

    def sink_half_closed(self) -> None:
        """Note that the sink knows of the end."""
        self._inbox.sink_half_closed()

    # ---- the end of the session

    @property
    def complete(self) -> bool:
        """Whether both streams are delivered whole, with their ends."""
        return self.fin_delivered and self.fin_acknowledged

    def end(self) -> None:
        """End the session from the client: what was read goes out, then the last ack, `end` and a Close."""
        if self.over:
            return
        while self.attached and self.offer is not None and self._send_segment():
            pass
        self._finish([f"ack {self.delivered}", "end"] if self.offer is not None else [])

    def finish(self, *, clean: bool) -> None:
        """End the session from the client; not ``clean``: what was sent is not all there is."""
        if clean:
            self.end()
        else:
            self.fail("interrupted", ConnectionLost("input", reason="interrupted"), text="")

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
        """Move what is still in the read buffers to memory of the stream's own, before another stream reads."""
        self._inbox.settle(self._buffers.wire)

    def tick(self, now: float) -> None:
        """Look at the clock: acknowledge, ping, or declare the connection dead (``wire_is_over``)."""
        if not self.attached or self.wire_is_over or self.over:
            return
        self._inbox.tick(now)
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
        return self._peer_acked < self._ever_sent or self.offer is None

    def next_tick(self, now: float) -> float:
        """Return in how many seconds `tick` is to be called."""
        at = self.liveness.next_check(now, waiting=self._waits_for_peer)
        if self._inbox.ack_at is not None:
            at = min(at, self._inbox.ack_at)
        return max(0.0, at - now)

    def request_ack(self) -> None:
        """Ask the peer for its current ack, which is also a sign of life."""
        if self.attached and self.offer is not None and not self.wire_is_over and not self.over:
            self._control.append("ping")

    def probe(self, now: float) -> None:
        """Ask for a sign of life within 2 s, after a jump of the clock: call it when what is there has been read."""
        self.request_ack()
        self.liveness.probed(now)


def session_failure(error: SessionError, peer: str) -> TunnelError:
    """Return what an ``error`` line of the ``peer`` (as it is called in messages) stands for."""
    said = f": {error.text}" if error.text else ""
    if error.code == "shutdown":
        return ConnectionLost("going-away", reason=said)
    if error.code in ("target-lost", "undelivered"):
        return ConnectionLost(error.code, reason=said)
    return ConnectionLost("session-error", peer=peer, code=error.code, reason=said)
