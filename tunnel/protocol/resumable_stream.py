"""Wire 2: a byte stream in each direction that survives the loss of its WebSocket connections, Sans-I/O.

A `ByteStream` that can be *detached* from a dead connection and *attached* to a new one, and that knows when the
session is *over*:

    state       session offered?  connection?   what is sent
    new         no                yes           the bridge sends the session line; the client sends nothing before it,
                                                or is still a plain stream (`adopt`; see `tunnel.protocol.beginning`)
    attached    yes               yes           data, fin, ack and ping in both directions
    detached    yes               no            nothing; the sender keeps what is not acknowledged
    over        –                 –             nothing: `end` or `error` was sent or received, or the state is lost

docs/wire.md has the table of events. `tunnel.protocol.session_state` has what survives the loss of a connection,
`tunnel.protocol.session_connection` what is lost with it.

Numbers count the bytes of one direction from 0; a fin has the number after the last byte. *Delivered* are the bytes
that the sink accepted, and the fin once the sink is half-closed. Only these are acknowledged, so data that is lost with
a connection is sent again. The bridge's first message on a resumed connection is its ack, which is the offset to
continue from. If an edge drops the header with the same offset, the client waits for that ack before it attaches.
"""

from __future__ import annotations

from tunnel.errors import LocalProtocolError, RemoteProtocolError, TunnelError
from tunnel.protocol.control import Ack, SessionOffer, parse_control
from tunnel.protocol.frame_budget import FRAMES_PER_TURN
from tunnel.protocol.frames import BINARY, NORMAL, POLICY, TEXT, TOO_BIG, Close, Payload, Ping
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT
from tunnel.protocol.masked_replay import MaskedReplay
from tunnel.protocol.message_size import LARGEST_MESSAGE
from tunnel.protocol.replay import ReplayBuffer
from tunnel.protocol.session_connection import SessionConnection
from tunnel.protocol.session_state import SessionState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tunnel.protocol.frames import Buffer, FrameParser, Pong
    from tunnel.protocol.outbox import Outbox
    from tunnel.protocol.read_buffers import ReadBuffers
    from tunnel.protocol.replay import Kept


class ResumableStream:
    """One end of a session; see the module.

    At the bridge ``offer`` is the session that it offers; the client receives it. ``now`` is always the driver's
    monotonic clock, in seconds; ``ping_interval`` and ``ping_timeout`` are as for `Liveness`. ``preamble`` (the
    bridge's 101) is sent before the first frame. ``max_message``: most bytes of payload in a message that we send,
    until the session learns a lower limit. Except for `attach`, the methods raise only when they are misused.
    """

    __slots__ = (
        "_buffers", "_is_client", "_ping_limits", "_receiver", "_sender", "attached", "connection", "session",
    )  # fmt: skip

    keeps = True

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
            self.connection.outbox.add(TEXT, offer.line().encode("ascii"))  # sent together with the preamble

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
        """Whether nothing more can be received on this connection."""
        return self.connection.is_over

    def detach(self) -> None:
        """Drop the connection, and everything received on it that is not delivered."""
        if self.attached:
            lost = self.connection
            # An edge that drops a message that is too large closes the connection. Silence, or a client that
            # reconnects, are signs of a broken network instead.
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
        """Continue over a new connection with a peer that has delivered ``received`` of our numbers.

        ``preamble`` is as in the constructor. Raises RemoteProtocolError if the peer cannot have delivered that.
        """
        if not self.can_attach(received):
            limits = f"{self._sender.acked} and {self._sender.ever_sent}"
            raise RemoteProtocolError(f"the peer resumes at {received}, which is not between {limits}")
        self.attached = True
        self.connection = self._new_connection(now, preamble)
        self._receiver.begin_connection()
        self.session.ack_came(received)
        self._sender.begin_connection()
        if not self._is_client:
            self._receiver.ack_due = True
        self._say_last_words()

    def adopt(self, offer: SessionOffer, outbox: Outbox, sent: bytes) -> None:
        """Begin the session that the bridge has offered on a stream of the client that was plain until then.

        That stream has ``sent`` these bytes, the last of which may still be in its ``outbox``.
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

    def may_pass_source(self) -> int | None:
        connection = self.connection
        if connection.is_over or connection.is_deaf or self.session.over or not self.attached:
            return None
        if connection.outbox.pieces or connection.control or self._receiver.ack_due:
            return 0
        return self._sender.may_pass

    def source_passed(self, n: int, kept: Kept | None, now: float) -> None:
        if kept is None:
            raise LocalProtocolError("a session must keep what it sends")
        self._sender.passed(n, kept)
        self.connection.outbox.add_in_kernel(n, self._sender.message_size.limit)

    def take_back(self, receive_into: Callable[[memoryview], int], unsent: int) -> None:
        self.connection.outbox.take_back(receive_into)
        self._sender.take_back(receive_into, unsent)

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
        if connection.outbox.pieces or connection.control:
            return True
        sender, replay = self._sender, self._sender.replay
        has_more = replay.next < replay.end or self._receiver.ack_due or (sender.ended and sender.owes_fin)
        return has_more and self._may_send

    @property
    def _may_send(self) -> bool:
        """Whether more of the session may be sent on this connection."""
        session = self.session
        return self.attached and session.offer is not None and not session.over and not self.connection.is_over

    def wire_output(self) -> Sequence[Buffer]:
        outbox = self.connection.outbox
        if not outbox.pieces:
            self._fill(outbox)
        return outbox.pieces

    def _fill(self, outbox: Outbox) -> None:
        """Frame what to send next: control lines, then data, then the fin after all data."""
        connection, sender = self.connection, self._sender
        may_send = self._may_send
        if may_send and self._receiver.ack_due:
            connection.say(f"ack {self._receiver.take_ack()}")
        if connection.control:
            connection.frame_lines()
        if not may_send:
            return
        sender.send_some(outbox)
        if sender.ended and (fin := sender.take_fin()):
            outbox.add(TEXT, fin.encode("ascii"))

    def wire_sent(self, n: int, now: float) -> None:
        self.connection.outbox.sent(n)

    def wire_write_failed(self) -> None:
        self.connection.write_failed()

    # ---- wire → sink

    @property
    def wants_wire_read(self) -> bool:
        """Whether to read the wire: always, as the window is the only limit."""
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
            for event in connection.parser.feed(self._buffers.wire[:n], FRAMES_PER_TURN):
                self._receive(event, now)
                if session.over or session.is_plain:
                    break
        except RemoteProtocolError as exc:  # the bytes are not frames
            if session.established:  # they come from an edge, and end only the connection
                connection.violation = exc
                connection.is_over = True
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

    @property
    def parser(self) -> FrameParser:
        return self.connection.parser

    def may_pass(self, n: int) -> bool:
        return self.session.has_heard_text and not self.session.over and self._receiver.may_pass(n)

    def release(self) -> None:
        self._receiver.release()

    def passed(self, n: int, now: float) -> None:
        connection = self.connection
        connection.parser.passed(n)
        connection.liveness.heard(now)
        connection.liveness.data_came()
        self._receiver.passed(n, now)

    def _receive(self, event: Payload | Ping | Pong | Close, now: float) -> None:
        """Take one event; what the peer must not have sent ends the session."""
        connection, session = self.connection, self.session
        try:
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
        except RemoteProtocolError as exc:
            if exc.close_code == POLICY:
                session.fail("policy", exc, close_code=POLICY)
            else:
                session.fail("protocol", exc)

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
            self.connection.liveness.data_came()  # not at the bridge, which waits for its client anyway
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
            connection.liveness.acknowledged()

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
        """Note that the sink cannot be written any more; the rest of this direction is acknowledged and discarded."""
        self._receiver.sink_failed(now)

    @property
    def sink_ended(self) -> bool:
        """Whether the sink has received everything: half-close it, and call `sink_half_closed`."""
        return self._receiver.has_ended

    def sink_half_closed(self) -> None:
        """Note that the sink is half-closed."""
        self._receiver.sink_half_closed()

    # ---- the end of the session

    def end(self) -> None:
        """End the session from the client: send what was read, then the last ack, `end` and a Close."""
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
        if self._receiver.pieces:
            self._receiver.settle(self._buffers.wire)

    def tick(self, now: float) -> None:
        """Check the clock: acknowledge, ping, or declare the connection dead (``wire_is_over``)."""
        if self.connection.is_over or self.session.over:
            return
        self._receiver.tick(now)
        if not self._sender.unacknowledged:
            self._sender.replay.trim()
        if self.connection.tick(now, waiting=self.session.waits_for_peer):
            self.request_ack()

    def next_tick(self, now: float) -> float:
        if self.connection.is_over or self.session.over:
            return float("inf")
        at = self.connection.liveness.next_check(now, waiting=self.session.waits_for_peer)
        if self._receiver.ack_at is not None:
            at = min(at, self._receiver.ack_at)
        return max(0.0, at - now)

    def request_ack(self) -> None:
        """Request the peer's current ack, which is also a sign of life."""
        if self.offer is not None and not self.wire_is_over and not self.over:
            self.connection.say("ping")

    def ask(self, now: float) -> None:
        """Request the peer's ack at the beginning of a connection: the answer shows that it works."""
        self.request_ack()
        self.connection.liveness.asked(now)

    def probe(self, now: float) -> None:
        """Request a sign of life within 2 s, after a jump of the clock; call this when all available data was read."""
        self.request_ack()
        self.connection.liveness.probed(now)
