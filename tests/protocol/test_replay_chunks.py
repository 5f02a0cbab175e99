"""The memory of the bridge's sender: which chunks it takes, uses again, shares and gives back."""

from __future__ import annotations

import random

import pytest

from tests.protocol.wire import messages
from tunnel.protocol.frames import MAX_HEADER
from tunnel.protocol.outbox import Outbox
from tunnel.protocol.replay import (
    LARGEST_CHUNK,
    MAX_SEGMENTS,
    MAX_SPARE,
    SEGMENT_LIMIT,
    SMALLEST_CHUNK,
    ReplayBuffer,
)

DATA = random.Random("chunks").randbytes(12 << 20)


def read(replay: ReplayBuffer, size: int, piece: int = SEGMENT_LIMIT) -> None:
    """Let the source give the next ``size`` bytes of `DATA`, ``piece`` bytes at a time."""
    end = replay.end + size
    while replay.end < end:
        space = replay.space(min(piece, end - replay.end))
        part = DATA[replay.end : replay.end + min(len(space), piece, end - replay.end)]
        assert part
        space[: len(part)] = part
        replay.extend(len(part))


def send(replay: ReplayBuffer, limit: int = SEGMENT_LIMIT) -> list[bytes]:
    """All that is to be sent, as messages; headers are written in front of them as on a real wire."""
    found: list[bytes] = []
    while True:
        outbox = Outbox(masks=False)
        size = replay.queue_next(outbox, limit)
        if not size:
            return found
        (message,) = messages(b"".join(outbox.pieces), masked=False)
        assert isinstance(message, bytes) and len(message) == size <= limit
        found.append(message)


def grow(replay: ReplayBuffer) -> None:
    """Let bytes flow until the chunks are the largest."""
    while replay.memory < LARGEST_CHUNK:
        read(replay, len(replay.space(SEGMENT_LIMIT)))
        send(replay)
    replay.confirm(replay.end)


def test_each_chunk_that_is_filled_by_reads_is_followed_by_one_four_times_as_large() -> None:
    replay, sizes = ReplayBuffer(), [0]
    for _ in range(12):
        read(replay, len(replay.space(SEGMENT_LIMIT)))
        send(replay)
        if replay.memory != sum(sizes):
            sizes.append(replay.memory - sum(sizes))
    assert sizes[1:5] == [SMALLEST_CHUNK, 4 * SMALLEST_CHUNK, 16 * SMALLEST_CHUNK, LARGEST_CHUNK]
    assert set(sizes[5:]) == {LARGEST_CHUNK}


def test_reads_that_leave_a_chunk_a_quarter_empty_are_followed_by_another_of_its_size() -> None:
    replay = ReplayBuffer()
    read(replay, SMALLEST_CHUNK * 3 // 4 - MAX_HEADER)
    send(replay)
    assert len(replay.space(SEGMENT_LIMIT)) == SMALLEST_CHUNK // 4 - MAX_HEADER
    read(replay, 1)
    send(replay)
    assert len(replay.space(SEGMENT_LIMIT)) == SMALLEST_CHUNK - MAX_HEADER
    assert replay.memory == 2 * SMALLEST_CHUNK


def test_a_read_may_be_as_large_as_was_asked_for_and_no_larger_than_the_chunk_or_a_segment() -> None:
    replay = ReplayBuffer()
    assert len(replay.space(100)) == 100
    assert len(replay.space(SEGMENT_LIMIT)) == SMALLEST_CHUNK - MAX_HEADER
    grow(replay)
    assert len(replay.space(1 << 30)) == SEGMENT_LIMIT


def test_a_whole_segment_is_one_piece_with_its_header() -> None:
    replay, outbox = ReplayBuffer(), Outbox(masks=False)
    read(replay, 100)
    replay.queue_next(outbox, SEGMENT_LIMIT)
    assert len(outbox.pieces) == 1


def test_reads_that_are_not_sent_yet_become_one_message() -> None:
    replay = ReplayBuffer()
    for _ in range(10):
        read(replay, 10)
    assert len(replay.space(5)) == 5
    assert send(replay) == [DATA[:100]]
    read(replay, 10)
    read(replay, 10)
    assert send(replay) == [DATA[100:120]]


def test_a_message_that_grows_is_never_larger_than_a_segment() -> None:
    replay = ReplayBuffer()
    grow(replay)
    at = replay.end
    read(replay, 2 * SEGMENT_LIMIT, 30_000)
    found = send(replay)
    assert b"".join(found) == DATA[at : at + 2 * SEGMENT_LIMIT]
    assert max(map(len, found)) <= SEGMENT_LIMIT and len(found) <= 4


def test_a_read_never_overwrites_what_is_kept() -> None:
    source = random.Random("any order")
    replay = ReplayBuffer()
    while replay.end < 3_000_000:
        read(replay, source.choice([1, 10, 500, 3000, 40_000, 200_000]))
        at = replay.next
        if source.random() < 0.7:
            assert b"".join(send(replay, source.choice([700, 5000, SEGMENT_LIMIT]))) == DATA[at : replay.end]
        if source.random() < 0.3:
            replay.confirm(source.randint(replay.base, replay.next))
        if source.random() < 0.1:
            replay.compact()
        if source.random() < 0.2:
            replay.rewind()
            assert replay.next == replay.base
            assert b"".join(send(replay, source.choice([700, 5000, SEGMENT_LIMIT]))) == DATA[replay.base : replay.end]
    replay.confirm(replay.end)
    replay.trim()
    assert replay.memory == 0


def test_nothing_is_sent_twice_on_a_connection_and_everything_again_on_the_next() -> None:
    replay = ReplayBuffer()
    read(replay, 1000)
    assert b"".join(send(replay, 300)) == DATA[:1000]
    assert send(replay) == []
    replay.rewind()
    assert send(replay, 300) == [DATA[at : at + 300] for at in (0, 300, 600)] + [DATA[900:1000]]


def test_what_somebody_else_has_sent_is_not_sent_but_kept() -> None:
    replay = ReplayBuffer()
    read(replay, 1000)
    replay.note_sent()
    assert replay.next == 1000 and send(replay) == []
    read(replay, 5)
    assert send(replay) == [DATA[1000:1005]]
    replay.confirm(400)
    replay.rewind()
    assert b"".join(send(replay)) == DATA[400:1005]


@pytest.mark.parametrize("taken", [100, 300])
@pytest.mark.parametrize("confirmed", [50, 100, 250, 700])
def test_an_ack_in_the_middle_of_a_segment_that_is_being_sent_moves_nothing_that_follows(
    taken: int, confirmed: int
) -> None:
    """An ack of the last connection may come when a part of the segment has gone again on this one."""
    replay = ReplayBuffer()
    read(replay, 1000)
    outbox = Outbox(masks=False)
    replay.queue_next(outbox, taken)
    replay.confirm(confirmed)
    assert replay.base == confirmed and replay.next == max(taken, confirmed)
    assert b"".join(send(replay)) == DATA[max(taken, confirmed) : 1000]
    replay.rewind()
    assert b"".join(send(replay)) == DATA[confirmed:1000]


def test_it_is_full_when_it_has_as_many_segments_as_it_may_have() -> None:
    replay = ReplayBuffer()
    for _ in range(MAX_SEGMENTS - 1):
        read(replay, 1)
        send(replay)
    assert not bool(replay.is_full)
    read(replay, 1)
    assert bool(replay.is_full)
    replay.confirm(1)
    assert not bool(replay.is_full)


# ---- memory


def test_memory_is_what_its_chunks_take() -> None:
    replay = ReplayBuffer()
    assert replay.memory == 0
    replay.space(1)
    assert replay.memory == SMALLEST_CHUNK
    read(replay, SMALLEST_CHUNK - MAX_HEADER)
    send(replay)
    read(replay, 1)
    assert replay.memory == SMALLEST_CHUNK + 4 * SMALLEST_CHUNK
    send(replay)
    replay.confirm(SMALLEST_CHUNK - MAX_HEADER)
    assert replay.memory == 4 * SMALLEST_CHUNK
    replay.confirm(replay.end)
    assert replay.memory == 0


def test_a_chunk_is_given_back_when_its_last_segment_is_confirmed() -> None:
    replay = ReplayBuffer()
    grow(replay)
    replay.trim()
    begin = replay.end
    for _ in range(8):
        read(replay, SEGMENT_LIMIT - MAX_HEADER)
        send(replay)
    chunks = replay.memory // LARGEST_CHUNK
    assert chunks == 4 and replay.memory == 4 * LARGEST_CHUNK
    replay.confirm(begin + SEGMENT_LIMIT - MAX_HEADER)
    replay.trim()
    assert replay.memory == 4 * LARGEST_CHUNK, "the other half of the first chunk is still kept"
    replay.confirm(begin + 2 * (SEGMENT_LIMIT - MAX_HEADER))
    assert replay.memory == 4 * LARGEST_CHUNK, "it is kept for further use"
    replay.trim()
    assert replay.memory == 3 * LARGEST_CHUNK


def test_large_chunks_are_used_again_but_only_so_many_are_kept() -> None:
    replay = ReplayBuffer()
    grow(replay)
    for _ in range(2 * (MAX_SPARE + 4)):
        read(replay, SEGMENT_LIMIT - MAX_HEADER)
        send(replay)
    assert replay.memory == (MAX_SPARE + 4) * LARGEST_CHUNK
    replay.confirm(replay.end)
    assert replay.memory == MAX_SPARE * LARGEST_CHUNK
    for _ in range(2 * MAX_SPARE):
        read(replay, SEGMENT_LIMIT - MAX_HEADER)
        send(replay)
        assert replay.memory == MAX_SPARE * LARGEST_CHUNK, "those that are kept are used before new ones"
    replay.confirm(replay.end)
    replay.trim()
    assert replay.memory == 0


def test_small_chunks_are_not_kept() -> None:
    replay = ReplayBuffer()
    for _ in range(5):
        read(replay, 100)
        send(replay)
        replay.confirm(replay.end)
        assert replay.memory == 0


def test_after_little_use_the_next_chunk_is_small_again_and_after_much_it_is_not() -> None:
    replay = ReplayBuffer()
    grow(replay)
    replay.trim()
    read(replay, LARGEST_CHUNK // 8 + 1)
    send(replay)
    replay.confirm(replay.end)
    replay.trim()
    read(replay, 100)
    assert replay.memory == LARGEST_CHUNK
    send(replay)
    replay.confirm(replay.end)
    replay.trim()
    read(replay, 100)
    assert replay.memory == SMALLEST_CHUNK


def test_what_is_kept_for_long_takes_no_more_memory_than_it_has_bytes() -> None:
    replay = ReplayBuffer()
    grow(replay)
    at = replay.end
    read(replay, 700_000)
    send(replay)
    replay.confirm(at + 650_000)
    replay.compact()
    assert 50_000 <= replay.memory < 51_000
    replay.rewind()
    assert b"".join(send(replay)) == DATA[at + 650_000 : at + 700_000]
    read(replay, 30_000)
    assert replay.memory < 200_000, "the next chunks are small again"
    assert b"".join(send(replay)) == DATA[at + 700_000 : at + 730_000]
    replay.rewind()
    assert b"".join(send(replay)) == DATA[at + 650_000 : at + 730_000]
    replay.confirm(replay.end)
    replay.trim()
    assert replay.memory == 0


def test_without_memory_for_a_copy_what_is_kept_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = ReplayBuffer()
    grow(replay)
    at = replay.end
    read(replay, 700_000)
    send(replay)
    replay.confirm(at + 650_000)
    monkeypatch.setattr("tunnel.protocol.replay.bytearray", lambda _: (_ for _ in ()).throw(MemoryError), raising=False)
    replay.compact()
    monkeypatch.undo()
    replay.rewind()
    assert b"".join(send(replay)) == DATA[at + 650_000 : at + 700_000]
    replay.confirm(replay.end)
    replay.trim()
    assert replay.memory == 0


def test_what_would_gain_little_is_not_copied() -> None:
    replay = ReplayBuffer()
    read(replay, SMALLEST_CHUNK * 3 // 4)
    before = replay.memory
    replay.compact()
    assert replay.memory == before
    replay.confirm(5000)
    replay.compact()
    assert replay.memory < before
    assert b"".join(send(replay)) == DATA[5000 : SMALLEST_CHUNK * 3 // 4]


def test_what_holds_nothing_is_compact() -> None:
    replay = ReplayBuffer()
    replay.compact()
    assert replay.memory == 0
    grow(replay)
    replay.compact()
    assert replay.memory == 0
