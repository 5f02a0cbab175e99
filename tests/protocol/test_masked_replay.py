"""What a resumable client keeps, masked: it is what the source said whenever it is sent, and no key is used twice."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tunnel.protocol.frames import BINARY, FrameParser, Payload
from tunnel.protocol.masked_replay import MaskedReplay
from tunnel.protocol.outbox import Outbox
from tunnel.protocol.replay import MAX_SEGMENTS

DATA = random.Random("masked").randbytes(200_000)
STEPS = st.lists(
    st.tuples(st.sampled_from(["read", "send", "confirm", "lose"]), st.integers(0, 70_000)), min_size=1, max_size=60
)


class Wire:
    """What has arrived over one connection, and the keys that all connections have seen."""

    def __init__(self, keys: set[bytes]) -> None:
        self.outbox = Outbox(masks=True)
        self.keys = keys
        self.arrived = b""

    def take(self, limit: int) -> None:
        wire = b"".join(self.outbox.pieces)
        self.outbox.clear()
        if not wire:
            return
        size = wire[1] & 0x7F
        at = 2 + (0 if size < 126 else 2 if size == 126 else 8)
        assert wire[at : at + 4] not in self.keys
        self.keys.add(wire[at : at + 4])
        (event,) = FrameParser(masked=True).feed(memoryview(bytearray(wire)))
        assert isinstance(event, Payload) and event.opcode == BINARY and 0 < len(event.data) <= limit
        self.arrived += bytes(event.data)


@given(STEPS)
def test_it_is_what_the_source_said_whatever_is_lost_and_whatever_the_limit(steps: list[tuple[str, int]]) -> None:
    replay = MaskedReplay(memoryview(bytearray(100_000)))
    keys: set[bytes] = set()
    wire, begins = Wire(keys), 0
    for step, number in steps:
        if step == "read":
            space = replay.space(number or 1)
            part = DATA[replay.end : replay.end + len(space)]
            if part:
                space[: len(part)] = part
                replay.extend(len(part))
                space[:] = bytes(len(space))  # others use it, too
        elif step == "send":
            limit = number or 1
            before = replay.next
            size = replay.queue_next(wire.outbox, limit)
            assert replay.next == before + size
            wire.take(limit)
            assert wire.arrived == DATA[begins : replay.next]
        elif step == "confirm":
            replay.confirm(replay.base + min(number, replay.next - replay.base))
        else:
            replay.rewind()
            wire, begins = Wire(keys), replay.base
        assert replay.base <= replay.next <= replay.end
        assert replay.memory == replay.end - replay.base
    while replay.queue_next(wire.outbox, 1 << 20):
        wire.take(1 << 20)
    assert wire.arrived == DATA[begins : replay.end]


def test_tiny_reads_are_bounded_in_number() -> None:
    replay = MaskedReplay(memoryview(bytearray(10)))
    while not replay.is_full:
        replay.extend(1)
    assert replay.end == MAX_SEGMENTS
    replay.note_sent()
    replay.confirm(MAX_SEGMENTS)
    assert replay.memory == 0
    assert len(replay.space(10)) == 10


def test_what_somebody_else_has_sent_goes_again_by_a_fresh_key() -> None:
    replay, keys = MaskedReplay(memoryview(bytearray(DATA[:10]))), set[bytes]()
    replay.extend(10)
    replay.note_sent()
    wire = Wire(keys)
    assert replay.queue_next(wire.outbox, 100) == 0
    for _ in range(3):
        replay.rewind()
        wire = Wire(keys)
        assert replay.queue_next(wire.outbox, 100) == 10
        wire.take(100)
        assert wire.arrived == DATA[:10]
