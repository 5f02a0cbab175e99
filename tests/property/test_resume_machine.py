"""Two resumable streams and a link that is cut, delayed and taken over at any moment; the bridge restarts now and then.

Hypothesis chooses what happens next. Whatever it chooses: what a sink has heard is always a prefix of what the other
source has said, neither end ever calls the other a violator, what they keep stays within bounds, and once the link
stays up everything arrives, exactly once, with both ends of file.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.restart.restarting import carried
from tunnel.protocol.capture import capture_resumable, offer_of, restore_resumable
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream

WINDOW = 2000
SIZES = st.sampled_from([1, 2, 7, 60, 500, 5000, 1 << 20])


class End:
    """One end: a stream, the data of its source so far, and the data that its sink has got."""

    def __init__(self, *, client: bool, buffers: ReadBuffers) -> None:
        offer = None if client else SessionOffer("0" * 32, "0" * 64, WINDOW, 60)
        self.stream = ResumableStream(client=client, buffers=buffers, now=0.0, offer=offer)
        self.said = bytearray()
        self.heard = bytearray()
        self.inbound = bytearray()
        self.source_is_over = False
        self.sink_is_closed = False

    def speak(self, size: int) -> None:
        if not self.stream.wants_source or self.source_is_over:
            return
        space = self.stream.source_space()
        n = min(size, len(space))
        data = bytes((len(self.said) + i) % 251 for i in range(n))
        space[:n] = data
        self.stream.source_received(n, 0.0)
        self.said += data

    def transmit(self, peer: End, size: int) -> None:
        if not self.stream.attached or self.stream.wire_is_over:
            return
        data = b"".join(self.stream.wire_output())[:size]
        if data:
            if peer.stream.attached:  # else it goes into a connection that nobody reads
                peer.inbound += data
            self.stream.wire_sent(len(data), 0.0)

    def listen(self, size: int, now: float) -> None:
        if self.inbound and self.stream.wants_wire_read:
            data = bytes(self.inbound[: min(size, 200_000)])
            self.stream.wire_space()[: len(data)] = data
            del self.inbound[: self.stream.wire_received(len(data), now)]

    def deliver(self, size: int, now: float) -> None:
        data = b"".join(self.stream.sink_output())[:size]
        if data:
            assert not self.sink_is_closed
            self.heard += data
            self.stream.sink_sent(len(data), now)
        if self.stream.sink_ended and not self.sink_is_closed:
            self.sink_is_closed = True
        if self.sink_is_closed:
            self.stream.sink_half_closed()


class ResumeMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        # One pair of buffers for both, as all sessions of a bridge have: settle() must keep them apart.
        self.buffers = ReadBuffers()
        self.client = End(client=True, buffers=self.buffers)
        self.bridge = End(client=False, buffers=self.buffers)
        self.now = 0.0

    def pair(self, client_first: bool) -> tuple[End, End]:
        return (self.client, self.bridge) if client_first else (self.bridge, self.client)

    def settle(self) -> None:
        self.client.stream.settle()
        self.bridge.stream.settle()

    @rule(size=SIZES, client=st.booleans())
    def speak(self, size: int, client: bool) -> None:
        self.pair(client)[0].speak(size)
        self.settle()

    @rule(size=SIZES, client=st.booleans())
    def transmit(self, size: int, client: bool) -> None:
        sender, receiver = self.pair(client)
        sender.transmit(receiver, size)
        self.settle()

    @rule(size=SIZES, client=st.booleans())
    def listen(self, size: int, client: bool) -> None:
        self.pair(client)[0].listen(size, self.now)
        self.settle()

    @rule(size=SIZES, client=st.booleans())
    def deliver(self, size: int, client: bool) -> None:
        self.pair(client)[0].deliver(size, self.now)
        self.settle()

    @rule(client=st.booleans())
    def end_source(self, client: bool) -> None:
        end = self.pair(client)[0]
        if end.stream.session.established:
            end.source_is_over = True
            end.stream.source_ended()

    @rule(seconds=st.sampled_from([0.05, 0.2, 3.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        for end in (self.client, self.bridge):
            end.stream.tick(self.now)

    @rule(client=st.booleans(), size=st.sampled_from([1, 5, 100, 4096, 1 << 18]))
    def an_edge_takes_smaller_messages_only(self, client: bool, size: int) -> None:
        self.pair(client)[0].stream.session.sender.message_size.limit = size

    @rule(client=st.booleans())
    def one_end_notices_a_loss(self, client: bool) -> None:
        """The other still thinks that it is connected, until it is taken over."""
        self.pair(client)[0].stream.wire_ended()

    @precondition(lambda self: self.client.stream.session.established)
    @rule(late=st.booleans(), size=SIZES)
    def resume(self, late: bool, size: int) -> None:
        """A new connection takes over; what is on its way on the old one is lost, or still comes before that."""
        client, bridge = self.client, self.bridge
        if late:
            bridge.listen(size, self.now)  # the old connection is read until the very takeover
            bridge.deliver(size, self.now)
        client.stream.detach()
        bridge.stream.detach()
        client.inbound.clear()
        bridge.inbound.clear()
        received = client.stream.session.delivered
        delivered = bridge.stream.session.delivered
        bridge.stream.attach(received, self.now)
        client.stream.attach(delivered, self.now)

    @precondition(lambda self: self.client.stream.session.established)
    @rule()
    def resume_in_vain(self) -> None:
        """The bridge takes a new connection over, but its answer never reaches the client, which has to try again."""
        client, bridge = self.client, self.bridge
        client.stream.detach()
        bridge.stream.detach()
        client.inbound.clear()
        bridge.inbound.clear()
        bridge.stream.attach(client.stream.session.delivered, self.now)

    @precondition(lambda self: self.client.stream.session.established)
    @rule()
    def the_bridge_restarts(self) -> None:
        """The bridge becomes another process, which has the session as a detached one; the client has to come back."""
        state = carried(capture_resumable(self.bridge.stream))
        stream = ResumableStream(client=False, buffers=self.buffers, now=self.now, offer=offer_of(state))
        restore_resumable(stream, state)
        assert not stream.attached
        self.bridge.stream = stream
        self.bridge.inbound.clear()

    @invariant()
    def nothing_is_lost_doubled_or_reordered(self) -> None:
        for hearer, sayer in (self.pair(True), self.pair(False)):
            assert hearer.stream.failure is None, hearer.stream.failure
            assert sayer.said.startswith(hearer.heard)
            assert hearer.stream.session.unacknowledged <= WINDOW
            assert sum(map(len, hearer.stream.sink_output())) <= WINDOW
            if hearer.sink_is_closed:
                assert sayer.source_is_over and hearer.heard == sayer.said

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        if self.client.stream.session.established:
            self.resume(late=False, size=1)
        for end in (self.client, self.bridge):
            # Else what is left may take more turns than there are here.
            end.stream.session.sender.message_size.limit = 1 << 18
        for _ in range(500):
            self.now += 0.2
            for end, peer in (self.pair(True), self.pair(False)):
                if end.stream.session.established:
                    end.source_is_over = True
                    end.stream.source_ended()
                end.stream.tick(self.now)
                end.transmit(peer, 1 << 20)
                peer.listen(1 << 20, self.now)
                peer.deliver(1 << 20, self.now)
                self.settle()
            is_lost = self.client.stream.wire_is_over or self.bridge.stream.wire_is_over
            if self.client.stream.session.established and is_lost:
                self.resume(late=False, size=1)
            if self.client.stream.session.complete and self.bridge.stream.session.complete:
                break
        # A connection lost before the session line has come is dialled anew, and nothing was said before it.
        assert self.client.stream.session.established or not (self.client.said or self.bridge.heard)
        if self.client.stream.session.established:
            assert self.client.stream.session.complete and self.bridge.stream.session.complete
            assert self.client.heard == self.bridge.said
            assert self.bridge.heard == self.client.said


TestResume = ResumeMachine.TestCase
TestResume.settings = settings(max_examples=200, stateful_step_count=60)
