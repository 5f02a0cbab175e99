"""What a resumable client keeps, masked: it is the source's data each time it is sent, and no key is used twice."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.protocol.frames import BINARY, MAX_HEADER, FrameParser, Payload
from tunnel.protocol.masked_replay import MaskedReplay
from tunnel.protocol.outbox import Outbox
from tunnel.protocol.read_buffers import FRAME_LIMIT
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


def messages_of(replay: MaskedReplay, limit: int) -> list[bytes]:
    """All that is to be sent, as messages of ``limit`` bytes at most."""
    found: list[bytes] = []
    while True:
        wire = Wire(set())
        size = replay.queue_next(wire.outbox, limit)
        if not size:
            return found
        wire.take(limit)
        assert len(wire.arrived) == size
        found.append(wire.arrived)


def read(replay: MaskedReplay, *sizes: int) -> None:
    for size in sizes:
        replay.space(size)[:size] = DATA[replay.end : replay.end + size]
        replay.extend(size)


def a_replay() -> MaskedReplay:
    return MaskedReplay(memoryview(bytearray(300_000)))


def test_each_read_is_a_message_that_is_split_where_it_is_too_large() -> None:
    replay = a_replay()
    read(replay, 10, 25, 5)
    assert messages_of(replay, 10) == [DATA[:10], DATA[10:20], DATA[20:30], DATA[30:35], DATA[35:40]]
    assert messages_of(replay, 10) == []
    replay.rewind()
    assert messages_of(replay, 100) == [DATA[:10], DATA[10:35], DATA[35:40]]


def test_a_message_that_goes_for_the_first_time_is_not_masked_twice() -> None:
    replay, outbox = a_replay(), Outbox(masks=True)
    read(replay, 50_000)
    before = replay.memory
    replay.queue_next(outbox, 1 << 20)
    header, payload = outbox.pieces
    assert len(payload) == 50_000 == before and bytes(header[-4:]) != bytes(4)
    replay.rewind()
    again = Outbox(masks=True)
    replay.queue_next(again, 1 << 20)
    assert again.pieces[1] is not payload and bytes(again.pieces[0][-4:]) != bytes(header[-4:])


@pytest.mark.parametrize("sent", [0, 3, 10, 14])
@pytest.mark.parametrize("confirmed", [2, 3, 9, 10, 12, 24, 25, 40])
def test_an_ack_anywhere_leaves_the_rest_as_it_was(sent: int, confirmed: int) -> None:
    """An ack of the last connection may be ahead of what has gone again on this one."""
    replay = a_replay()
    read(replay, 10, 15, 15)
    if sent:
        replay.queue_next(Outbox(masks=True), min(sent, 10))
    if sent > 10:
        replay.queue_next(Outbox(masks=True), sent - 10)
    replay.confirm(confirmed)
    assert (replay.base, replay.next, replay.memory) == (confirmed, max(sent, confirmed), 40 - confirmed)
    assert b"".join(messages_of(replay, 7)) == DATA[max(sent, confirmed) : 40]
    replay.rewind()
    assert replay.next == confirmed
    assert b"".join(messages_of(replay, 1000)) == DATA[confirmed:40]


def test_what_somebody_else_has_sent_is_not_sent_until_a_connection_is_lost() -> None:
    replay = a_replay()
    read(replay, 10, 10)
    replay.queue_next(Outbox(masks=True), 3)
    replay.note_sent()
    assert replay.next == 20 and messages_of(replay, 100) == []
    read(replay, 5)
    assert messages_of(replay, 100) == [DATA[20:25]]
    replay.confirm(4)
    replay.rewind()
    assert b"".join(messages_of(replay, 100)) == DATA[4:25]


def test_an_ack_of_one_segment_sends_none_of_the_others_again() -> None:
    replay = a_replay()
    read(replay, 10, 10, 10, 10)
    assert len(messages_of(replay, 100)) == 4
    replay.confirm(10)
    assert messages_of(replay, 100) == []
    replay.confirm(40)
    read(replay, 5)
    assert messages_of(replay, 100) == [DATA[40:45]]


def test_a_read_fits_with_its_header_into_one_read_of_the_bridge() -> None:
    replay = a_replay()
    assert len(replay.space(1 << 30)) == FRAME_LIMIT - MAX_HEADER
    assert len(replay.space(7)) == 7


def test_it_is_full_at_the_limit_of_segments_and_keeps_no_memory_for_later() -> None:
    replay = MaskedReplay(memoryview(bytearray(10)))
    for _ in range(MAX_SEGMENTS - 1):
        replay.extend(1)
    assert not bool(replay.is_full)
    replay.extend(1)
    assert bool(replay.is_full)
    assert replay.memory == MAX_SEGMENTS
    replay.trim()
    replay.compact()
    assert replay.memory == MAX_SEGMENTS
