"""What a resumable sender keeps: it is unchanged when it is sent for the second time."""

from __future__ import annotations

import random

import pytest

from tunnel.protocol import replay
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frames import BINARY, FrameParser, Payload
from tunnel.protocol.read_buffers import FRAME_LIMIT, ReadBuffers
from tunnel.protocol.replay import LARGEST_CHUNK, MAX_SPARE, SMALLEST_CHUNK, ReplayBuffer
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.protocol.sender import READ_AHEAD

DATA = random.Random("replay").randbytes(3 * FRAME_LIMIT)


def read(stream: ResumableStream, data: bytes, piece: int) -> int:
    """Let the stream read its source in pieces for as long as it wants to; return how much it took."""
    taken = 0
    while taken < len(data) and stream.wants_source:
        space = stream.source_space()
        part = data[taken : taken + min(piece, len(space))]
        space[: len(part)] = part
        stream.source_received(len(part), 0.0)
        taken += len(part)
    return taken


def sent(stream: ResumableStream, parser: FrameParser) -> bytes:
    """Everything that goes out now, as the stream's bytes; no frame is larger than it may be."""
    data = bytearray()
    while pieces := stream.wire_output():
        wire = b"".join(pieces)
        stream.wire_sent(len(wire), 0.0)
        for event in parser.feed(memoryview(bytearray(wire))):
            if isinstance(event, Payload) and event.opcode == BINARY:
                assert len(event.data) <= FRAME_LIMIT
                data += event.data
    return bytes(data)


def bridge_stream() -> ResumableStream:
    offer = SessionOffer("0" * 32, "0" * 64, 16 << 20, 60)
    return ResumableStream(client=False, buffers=ReadBuffers(), now=0.0, offer=offer)


def test_what_is_sent_again_is_what_was_sent() -> None:
    for piece in (1000, 100_000, FRAME_LIMIT):
        stream, parser = bridge_stream(), FrameParser(masked=False)
        taken, first = 0, b""
        while taken <= 2 * FRAME_LIMIT:
            taken += read(stream, DATA[taken:], piece)
            first += sent(stream, parser)
        assert first == DATA[:taken]
        for received in (0, 1, 99_999, 300_000):
            stream.detach()
            stream.attach(received, 0.0)
            assert sent(stream, FrameParser(masked=False)) == DATA[received:taken]


def test_the_source_is_read_ahead_in_bounds() -> None:
    taken = read(bridge_stream(), DATA * 4, FRAME_LIMIT)
    assert READ_AHEAD <= taken < READ_AHEAD + FRAME_LIMIT


def test_an_idle_buffer_keeps_no_memory() -> None:
    replay = ReplayBuffer()
    space = replay.space(FRAME_LIMIT)
    assert len(space) <= SMALLEST_CHUNK
    replay.extend(1)
    replay.take()
    replay.confirm(1)
    assert replay.memory == 0


def test_large_chunks_are_used_again_and_given_back_in_the_end() -> None:
    replay = ReplayBuffer()
    chunks = set()
    for _ in range(100):
        for _ in range(4):
            space = replay.space(FRAME_LIMIT)
            chunks.add(id(space.obj))
            replay.extend(len(space))
            replay.take()
        replay.confirm(replay.end)
    assert replay.memory <= MAX_SPARE * LARGEST_CHUNK
    replay.trim()
    assert replay.memory == 0
    assert len(chunks) < 20


def test_small_reads_share_a_chunk() -> None:
    replay = ReplayBuffer()
    for _ in range(1000):
        replay.space(FRAME_LIMIT)[:1] = b"x"
        replay.extend(1)
        replay.take()
    assert replay.memory <= LARGEST_CHUNK
    assert replay.end - replay.base == 1000


def test_without_memory_for_more_it_is_full_until_something_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = ReplayBuffer()
    replay.extend(len(replay.space(SMALLEST_CHUNK)))  # which fills the chunk
    kept, memory = replay.end, replay.memory

    def none(size: int) -> bytearray:
        raise MemoryError(size)

    with monkeypatch.context() as patch:
        patch.setattr("tunnel.protocol.replay.bytearray", none, raising=False)
        assert not replay.space(100) and replay.is_full
        assert (replay.end, replay.memory) == (kept, memory)
    replay.confirm(replay.base)
    assert replay.is_full
    replay.confirm(replay.base + 1)
    assert len(replay.space(100)) == 100
    assert [replay.is_full] == [False]


def test_without_any_memory_there_is_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(size: int) -> bytearray:
        raise MemoryError(size)

    monkeypatch.setattr("tunnel.protocol.replay.bytearray", none, raising=False)
    with pytest.raises(MemoryError):
        ReplayBuffer().space(100)


class Outside:
    """Bytes that are kept outside the buffer; each is moved once."""

    def __init__(self) -> None:
        self._data = b""

    @property
    def size(self) -> int:
        return len(self._data)

    def add(self, data: bytes) -> None:
        self._data += data

    def drop(self, n: int) -> None:
        assert 0 < n <= len(self._data)
        self._data = self._data[n:]

    def receive_into(self, space: memoryview) -> int:
        n = min(len(space), len(self._data), 70_000)
        space[:n] = self._data[:n]
        self._data = self._data[n:]
        return n


def passed(stream: ResumableStream, outside: Outside, data: bytes) -> bytes:
    """Let the stream's driver pass ``data`` from the source to the wire."""
    assert (stream.may_pass_source() or 0) >= len(data)
    outside.add(data)
    stream.source_passed(len(data), outside, 0.0)
    stream.wire_sent(sum(map(len, stream.wire_output())), 0.0)
    return data


@pytest.mark.parametrize("seed", range(20))
def test_what_is_kept_outside_is_sent_again_like_all_else(seed: int) -> None:
    """In any order of copying, passing, acks, and losses of the connection."""
    chance = random.Random(seed)
    stream, outside, parser = bridge_stream(), Outside(), FrameParser(masked=False)
    sent(stream, parser)
    said, acked, copied = b"", 0, 0
    memory = stream.session.sender.replay
    for _ in range(200):
        data = chance.randbytes(chance.choice((1, 3000, 100_000, 400_000)))
        match chance.randrange(4):
            case 0 if (stream.may_pass_source() or 0) >= len(data):
                said += passed(stream, outside, data)
            case 1 if stream.wants_source:
                n = read(stream, data[:200_000], 70_000)
                said += data[:n]
                copied += n
                assert outside.size == 0
                assert sent(stream, parser) == data[:n]
            case 2:
                acked = chance.randint(acked, len(said))
                stream.session.ack_came(acked)
            case 3 if chance.random() < 0.2:
                stream.detach()
                if chance.random() < 0.5:
                    stream.session.compact()
                acked = chance.randint(acked, len(said))
                stream.attach(acked, 0.0)
                parser = FrameParser(masked=False)
                assert sent(stream, parser) == said[acked:]
                assert outside.size == 0
        assert stream.session.unacknowledged == len(said) - acked
        assert memory.memory >= outside.size
        assert outside.size <= len(said) - acked
    assert copied
    stream.session.ack_came(len(said))
    stream.tick(0.0)
    assert (outside.size, memory.memory) == (0, 0)


def test_without_memory_for_what_is_kept_outside_nothing_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, outside = bridge_stream(), Outside()
    sent(stream, FrameParser(masked=False))
    monkeypatch.setattr(replay, "bytearray", lambda _: (_ for _ in ()).throw(MemoryError), raising=False)
    assert stream.may_pass_source() is None
    monkeypatch.undo()
    passed(stream, outside, DATA[:300_000])
    monkeypatch.setattr(replay, "bytearray", lambda _: (_ for _ in ()).throw(MemoryError), raising=False)
    stream.detach()
    stream.attach(0, 0.0)
    assert sent(stream, FrameParser(masked=False)) == DATA[:300_000]
