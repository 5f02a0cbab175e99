"""A session that an edge hides: what the client sent before it knew of the session is the beginning of its stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_resume_machine import WINDOW, End
from tunnel.protocol.beginning import Beginning
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream

_sizes = st.sampled_from([0, 1, 7, 60, 500, 1 << 20])


@given(
    turns=st.lists(st.tuples(_sizes, _sizes, _sizes), max_size=8),
    cut_in=st.sampled_from([1, 2, 50, 1 << 20]),
    cuts=st.lists(_sizes, max_size=3),
    limit=st.sampled_from([1, 100, 1 << 18]),
)
def test_nothing_is_lost_or_duplicated_in_a_session_behind_an_edge(
    turns: list[tuple[int, int, int]], cut_in: int, cuts: list[int], limit: int
) -> None:
    buffers = ReadBuffers()
    bridge = End(client=False, buffers=buffers)
    client = End(client=True, buffers=buffers)
    beginning = Beginning(0.0)
    plain = PlainStream(
        client=True, buffers=buffers, keepalive=Keepalive(0.0), max_message=limit, beginning=beginning
    )  # fmt: skip
    for say, send, hear in turns:
        if say and plain.wants_source:
            space = plain.source_space()
            n = min(say, len(space), WINDOW - len(client.said))
            if n:
                data = bytes((len(client.said) + i) % 251 for i in range(n))
                space[:n] = data
                plain.source_received(n, 0.0)
                client.said += data
                plain.settle()
        pieces = b"".join(plain.wire_output())[:send]
        if pieces:
            bridge.inbound += pieces
            plain.wire_sent(len(pieces), 0.0)
        bridge.listen(hear, 0.0)
        bridge.deliver(hear, 0.0)
        bridge.stream.settle()
    bridge.speak(30)
    for _ in range(3):
        bridge.transmit(client, 1 << 20)
    while not plain.has_session:
        data = bytes(client.inbound[:cut_in])
        assert data
        plain.wire_space()[: len(data)] = data
        del client.inbound[: plain.wire_received(len(data), 0.0)]
        assert not plain.wants_sink_write
    assert beginning.offer is not None
    client.stream = ResumableStream(client=True, buffers=buffers, now=0.0)
    client.stream.session.sender.message_size.limit = limit
    client.stream.adopt(beginning.offer, plain.take_outbox(), beginning.sent)
    now = 0.0
    for size in cuts:
        client.transmit(bridge, size)
        bridge.listen(size, now)
        bridge.deliver(size, now)
        for end in (client, bridge):
            end.stream.detach()
            end.inbound.clear()
        bridge.stream.attach(client.stream.session.delivered, now)
        client.stream.attach(bridge.stream.session.delivered, now)
    for _ in range(3 * WINDOW):
        now += 0.2
        for end, peer in ((client, bridge), (bridge, client)):
            end.source_is_over = True
            end.stream.source_ended()
            end.stream.tick(now)
            end.transmit(peer, 1 << 20)
            peer.listen(1 << 20, now)
            peer.deliver(1 << 20, now)
            client.stream.settle()
            bridge.stream.settle()
        if client.stream.session.complete and bridge.stream.session.complete:
            break
    assert client.stream.failure is None and bridge.stream.failure is None
    assert client.stream.session.complete and bridge.stream.session.complete
    assert bridge.heard == client.said and client.heard == bridge.said
