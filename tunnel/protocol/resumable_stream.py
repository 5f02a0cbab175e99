"""Wire 2: one byte stream in each direction that outlives the WebSocket connections which carry it, Sans-I/O.

A `ByteStream` that can be *detached* from a connection that died and *attached* to a new one, and that knows when the
session is *over*:

    state       session offered?  connection?   what moves
    new         no                yes           the bridge sends the session line; the client sends nothing before it,
                                                or is a plain stream as yet (`adopt`; see `tunnel.protocol.beginning`)
    attached    yes               yes           data, fin, ack, ping both ways
    detached    yes               no            nothing; the sender keeps what is not acknowledged
    over        –                 –             nothing: `end` or `error` went or came, or the state is lost

docs/wire.md has the table of events. What outlives a connection is in `tunnel.protocol.session_state`, what is lost
with it in `tunnel.protocol.session_connection`.

Numbers count the bytes of one direction from 0; a fin takes the number behind the last byte. *Delivered* is what the
sink took, and the fin once the sink is half-closed. Only that is acknowledged, so what a dying connection takes with it
comes again. The bridge's first message on a resumed connection is its ack, which is the offset to go on from. Where an
edge drops the header that says the same, the client waits for that ack before it attaches.
"""

from __future__ import annotations

from tunnel.errors import LocalProtocolError, RemoteProtocolError, TunnelError
from tunnel.protocol.control import Ack, SessionOffer, parse_control
from tunnel.protocol.frames import BINARY, NORMAL, POLICY, TEXT, TOO_BIG, Close, Payload, Ping
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT
from tunnel.protocol.masked_replay import MaskedReplay
from tunnel.protocol.message_size import LARGEST_MESSAGE
from tunnel.protocol.replay import ReplayBuffer
from tunnel.protocol.session_connection import SessionConnection
from tunnel.protocol.session_state import SessionState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.protocol.frames import Buffer
    from tunnel.protocol.outbox import Outbox
    from tunnel.protocol.read_buffers import ReadBuffers


class ResumableStream:
    """One end of a resumable tunnel; see the module's text.

    At the bridge ``offer`` is the session that it offers; the client gets its own from the wire. ``now`` is the
    driver's monotonic clock, in seconds, wherever it appears; so are ``ping_interval`` and ``ping_timeout``, as in
    `Liveness`. ``preamble`` goes out before the first frame: the bridge's 101. ``max_message``: bytes of payload of a
    message that we send, at most, until the session learns that it must be less. Nothing here raises, except `attach`,
    and when it is misused.
    """

    __slots__ = (
        "_buffers", "_is_client", "_ping_limits", "_receiver", "_sender", "attached", "connection", "session",
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
        replay = MaskedReplay(buffers.source) if client else ReplayBuffer()
        self.session = SessionState(client=client, max_message=max_message, replay=replay)
        self._sender, self._receiver = self.session.sender, self.session.receiver
        self.attached = True
        self.connection = self._new_connection(now, preamble)
        if offer is not None:
            self.session.take_offer(offer)
            self.connection.outbox.add(TEXT, offer.line().encode("ascii"))  # goes out together with the preamble

    def _new_connection(self, now: float, preamble: bytes) -> SessionConnection:
        interval, timeout = self._ping_limits
        return SessionConnection(
            now, client=self._is_client, ping_interval=interval, ping_timeout=timeout, preamble=preamble
        )  # fmt: skip

    # ---- connections

    @property
    def offer(self) -> SessionOffer | None:
        """The session, once there is one."""
        return self.session.offer

    @property
    def over(self) -> bool:
        """Whether the session has ended."""
        return self.session.over

    @property
    def failure(self) -> TunnelError | None:
        """Why the session has ended, unless it ended well."""
        return self.session.failure

    @property
    def wire_is_over(self) -> bool:
        """Whether nothing can come over this connection any more."""
        return self.connection.is_over

    def detach(self) -> None:
        """Let go of the connection: from here on nothing that came on it counts, but what was delivered."""
        if self.attached:
            lost = self.connection
            # Whoever drops a message that is too large hangs up; silence, and a client that comes anew, are signs of a
            # network that is away.
            self._sender.lost_connection(
                too_big=lost.close_frame is not None and lost.close_frame.code == TOO_BIG,
                blames_size=lost.is_over and not lost.is_silent,
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
        self.attached = True
        self.connection = self._new_connection(now, preamble)
        self._receiver.begin_connection()
        self.session.ack_came(received)
        self._sender.begin_connection()
        if not self._is_client:
            self._receiver.ack_due = True
        self._say_last_words()

    def adopt(self, offer: SessionOffer, outbox: Outbox, sent: bytes) -> None:
        """Begin at the client with the session that the bridge has offered on a stream that was a plain one until then.

        That has ``sent`` these bytes, the last of which may still be in its ``outbox``.
        """
        self.session.take_offer(offer)
        self.connection.outbox = outbox
        self._sender.adopt(sent)
        self.connection.was_heard = True

    # ---- source → wire

    @property
    def wants_source(self) -> bool:
        """Whether the source should be read: the window and the read-ahead have room."""
        return self.attached and not self.session.over and self._sender.has_room

    def source_space(self) -> memoryview:
        if not self.wants_source:
            raise LocalProtocolError("the source was read while the window is full, or without a connection")
        return self._sender.space()

    def source_received(self, n: int, now: float) -> None:
        self._sender.replay.extend(n)

    def source_ended(self) -> None:
        """As `SessionState.source_ended`."""
        self.session.source_ended()

    def source_failed(self, code: int, reason: str) -> None:
        """As `SessionState.source_failed`."""
        self.session.source_failed(code, reason)
        self._say_last_words()

    @property
    def wants_wire_write(self) -> bool:
        connection = self.connection
        if connection.is_deaf:
            return False
        return bool(connection.outbox.pieces or connection.control) or (self.attached and self._has_more)

    @property
    def _has_more(self) -> bool:
        session = self.session
        if session.offer is None or session.over or self.connection.is_over:
            return False
        sender, replay = self._sender, self._sender.replay
        return replay.next < replay.end or self._receiver.ack_due or sender.owes_fin

    def wire_output(self) -> Sequence[Buffer]:
        outbox = self.connection.outbox
        if not outbox.pieces:
            self._fill(outbox)
        return outbox.pieces

    def _fill(self, outbox: Outbox) -> None:
        """Frame what is to go next: control lines first, then data, then the fin behind the last of the data."""
        has_more = self._has_more
        self.connection.frame_lines(
            (f"ack {self._receiver.take_ack()}",) if has_more and self._receiver.ack_due else ()
        )
        if not has_more:
            return
        self._sender.send_some(outbox)
        if fin := self._sender.take_fin():
            outbox.add(TEXT, fin.encode("ascii"))

    def wire_sent(self, n: int, now: float) -> None:
        self.connection.outbox.sent(n)

    def wire_write_failed(self) -> None:
        self.connection.write_failed()

    # ---- wire → sink

    @property
    def wants_wire_read(self) -> bool:
        """Whether the wire should be read. It always is: the window is the only brake."""
        return self.attached and not self.connection.is_over and not self.session.over

    def wire_space(self) -> memoryview:
        if not self.wants_wire_read:
            raise LocalProtocolError("the wire was read after its end")
        return self._buffers.wire

    def wire_received(self, n: int, now: float) -> int:
        connection, session = self.connection, self.session
        connection.was_heard = True
        connection.liveness.heard(now)
        self._receiver.begin_chunk()
        try:
            for event in connection.events(self._buffers.wire[:n], session):
                if isinstance(event, Payload):
                    if event.opcode == BINARY:
                        self._receive_data(event, now)
                    else:
                        self._receive_text(event, now)
                elif isinstance(event, Close):
                    connection.close_frame = event
                    connection.is_over = True
                else:
                    session.budget.spend(now)
                    if isinstance(event, Ping):
                        connection.outbox.ping_came(event.data)
                if session.over or session.is_plain:
                    break
        except RemoteProtocolError as exc:
            if exc.close_code == POLICY:
                session.fail("policy", exc, close_code=POLICY)
            else:
                session.fail("protocol", exc)
        if session.is_plain:
            connection.is_over = True
        if connection.parser.in_data:
            self._receiver.hold_back()
        if session.over:
            self._say_last_words()
        connection.outbox.answer_ping()
        return connection.parser.used

    def _receive_data(self, event: Payload, now: float) -> None:
        data, session = event.data, self.session
        if not data:
            if not (event.final and self.connection.parser.in_continuation):  # see `PlainStream.wire_received`
                session.budget.spend(now)
            return
        if not session.has_heard_text:
            session.check_early_data(data, is_last=event.final)
            if session.is_plain:
                return
        session.confirmed = True
        if self._is_client:
            self.connection.liveness.data_came()  # the bridge need not know soon: it waits for its client anyway
        self._receiver.data_came(data, now)

    def _receive_text(self, event: Payload, now: float) -> None:
        connection, session = self.connection, self.session
        line = connection.lines.take(event, ends_frame=not connection.parser.in_data)
        if not (event.data or event.final):
            session.budget.spend(now)
        if line is None:
            return
        control = parse_control(line)
        if not session.receive(control):
            session.budget.spend(now, connection.lines.frames)
        if isinstance(control, Ack):
            connection.liveness.acknowledged(now)

    def wire_ended(self) -> None:
        self.connection.end()

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
    def sink_ended(self) -> bool:
        """Whether the sink has all that will ever come: time to half-close it, and to call `sink_half_closed`."""
        return self._receiver.has_ended

    def sink_half_closed(self) -> None:
        """Note that the sink knows of the end."""
        self._receiver.sink_half_closed()

    # ---- the end of the session

    def end(self) -> None:
        """End the session from the client: what was read goes out, then the last ack, `end` and a Close."""
        while self.attached and not self.over and self.offer and self._sender.send_some(self.connection.outbox):
            pass
        self.session.end()
        self._say_last_words()

    def fail(self, code: str, error: TunnelError, *, text: str | None = None, close_code: int = NORMAL) -> None:
        """End the session with an ``error`` line and a Close; what was not delivered is lost."""
        self.session.fail(code, error, text=text, close_code=close_code)
        self._say_last_words()

    def _say_last_words(self) -> None:
        words = self.session.take_last_words()
        if words is not None and self.attached:
            self.connection.say_last_words(*words)

    # ---- both

    def settle(self) -> None:
        self._receiver.settle(self._buffers.wire)

    def tick(self, now: float) -> None:
        """Check the clock: acknowledge, ping, or declare the connection dead (``wire_is_over``)."""
        if not self.attached or self.connection.is_over or self.session.over:
            return
        self._receiver.tick(now)
        if not self._sender.unacknowledged:
            self._sender.replay.trim()
        if self.connection.tick(now, waiting=self.session.waits_for_peer):
            self.request_ack()

    def next_tick(self, now: float) -> float:
        if not self.attached or self.connection.is_over or self.session.over:
            return float("inf")
        at = self.connection.liveness.next_check(now, waiting=self.session.waits_for_peer)
        if self._receiver.ack_at is not None:
            at = min(at, self._receiver.ack_at)
        return max(0.0, at - now)

    def request_ack(self) -> None:
        """Ask the peer for its current ack, which is also a sign of life."""
        if self.attached and self.offer is not None and not self.wire_is_over and not self.over:
            self.connection.say("ping")

    def probe(self, now: float) -> None:
        """Ask for a sign of life within 2 s, after a jump of the clock: call it when what is there has been read."""
        self.request_ack()
        self.connection.liveness.probed(now)
