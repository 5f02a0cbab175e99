"""What a resumable sender keeps: that it is still what the source said when it is sent for the second time."""

from __future__ import annotations

import random

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
