"""Two plain streams joined by a link that cuts bytes anywhere: what goes in at one end comes out at the other.

Now and then the bridge's end goes on in another process.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.restart.restarting import carried
from tunnel.protocol.capture import capture_plain, restore_plain
from tunnel.protocol.frames import NORMAL
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers


class End:
    """One end: a stream, what its source still has to say, and what its sink has heard."""

    def __init__(self, *, client: bool, says: list[bytes], buffers: ReadBuffers) -> None:
        self.stream = PlainStream(client=client, buffers=buffers, keepalive=Keepalive(0.0))
        self.says = list(says)
        self.heard = bytearray()
        self.inbound = bytearray()  # bytes on the link towards this end

    def speak(self) -> bool:
        if not self.stream.wants_source:
            return False
        if not self.says:
            self.stream.source_ended()
            return True
        data = self.says.pop(0)
        self.stream.source_space()[: len(data)] = data
        self.stream.source_received(len(data), 0.0)
        return True

    def transmit(self, peer: End, limit: int) -> bool:
        pieces = b"".join(self.stream.wire_output())[:limit]
        if not pieces:
            return False
        peer.inbound += pieces
        self.stream.wire_sent(len(pieces), 0.0)
        return True

    def listen(self, limit: int) -> bool:
        if not self.inbound or not self.stream.wants_wire_read:
            return False
        data = bytes(self.inbound[:limit])
        self.stream.wire_space()[: len(data)] = data
        del self.inbound[: self.stream.wire_received(len(data), 0.0)]
        return True

    def deliver(self, limit: int) -> bool:
        pieces = b"".join(self.stream.sink_output())[:limit]
        if not pieces:
            return False
        self.heard += pieces
        self.stream.sink_sent(len(pieces), 0.0)
        return True


def restart(end: End, buffers: ReadBuffers) -> None:
    """Let the stream go on in another process."""
    stream = PlainStream(client=False, buffers=buffers, keepalive=Keepalive(0.0))
    restore_plain(stream, carried(capture_plain(end.stream)))
    end.stream = stream


_chunks = st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.just(b"q" * 70_000)), max_size=6)
_turns = st.lists(st.tuples(st.integers(0, 8), st.sampled_from([1, 3, 100, 65536, 1 << 20])), max_size=200)


@given(_chunks, _chunks, _turns, st.booleans())
def test_both_directions_arrive_whole_and_in_order(
    up: list[bytes], down: list[bytes], turns: list[tuple[int, int]], ping: bool
) -> None:
    # One pair of buffers for both ends, as all sessions of a bridge have: settle() must keep them apart.
    buffers = ReadBuffers()
    client, server = End(client=True, says=up, buffers=buffers), End(client=False, says=down, buffers=buffers)

    def turn(action: int, limit: int) -> bool:
        if action == 8:
            restart(server, buffers)
            return True
        end, peer = (client, server) if action % 2 else (server, client)
        steps = (end.speak, lambda: end.transmit(peer, limit), lambda: end.listen(limit), lambda: end.deliver(limit))
        done: bool = steps[action // 2]()
        end.stream.settle()
        return done

    if ping:
        client.stream.tick(21.0)
        server.stream.tick(21.0)
    for action, limit in turns:
        turn(action, limit)
    for _ in range(1000):
        # No short circuit: every action gets its turn.
        if not sum(turn(action, 1 << 20) for action in range(8)):
            break
    assert bytes(client.heard) == b"".join(down)
    assert bytes(server.heard) == b"".join(up)
    for end in (client, server):
        assert end.stream.failure is None
        assert end.stream.sink_ended and end.stream.close_sent
        assert end.stream.close_code == NORMAL
