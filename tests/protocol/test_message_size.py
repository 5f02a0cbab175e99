"""How large messages may be is learnt from the connections that are lost, and what is sent again can be split."""

from __future__ import annotations

import random

import pytest

from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frames import BINARY, FrameParser, Payload, close_payload, frame_header
from tunnel.protocol.message_size import LARGEST_MESSAGE, SMALLER_MESSAGE, SMALLEST_MESSAGE, MessageSize
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.replay import ReplayBuffer
from tunnel.protocol.resumable_stream import ResumableStream

DATA = random.Random("sizes").randbytes(300_000)


def lose(
    size: MessageSize, times: int, *, too_big: bool = False, progress: bool = False, largest: int = 1 << 18
) -> int:
    for _ in range(times):
        size.lost(too_big=too_big, progress=progress, largest=largest)
    return size.limit


def test_a_1009_goes_down_to_32_kib_and_then_by_halves_to_4() -> None:
    size = MessageSize(LARGEST_MESSAGE)
    assert [lose(size, 1, too_big=True) // 1024 for _ in range(5)] == [32, 16, 8, 4, 4]
    assert size.is_hopeless


def test_two_losses_without_progress_count_as_much() -> None:
    size = MessageSize(LARGEST_MESSAGE)
    assert lose(size, 1) == LARGEST_MESSAGE
    assert lose(size, 1) == 32 * 1024
    assert lose(size, 2) == 16 * 1024


def test_losses_with_progress_or_of_little_count_for_nothing() -> None:
    size = MessageSize(LARGEST_MESSAGE)
    for _ in range(3):
        lose(size, 1)
        assert lose(size, 1, progress=True) == LARGEST_MESSAGE
    assert lose(size, 5, largest=1000) == LARGEST_MESSAGE


def test_a_limit_that_was_set_lower_is_not_raised() -> None:
    assert lose(MessageSize(1024), 3, too_big=True) == 1024


def test_it_is_hopeless_only_while_the_smallest_message_is_too_big_and_none_gets_through() -> None:
    size = MessageSize(SMALLEST_MESSAGE + 1)
    assert not bool(size.is_hopeless)
    lose(size, 1, too_big=True)
    assert not bool(size.is_hopeless)
    assert size.limit == SMALLEST_MESSAGE
    lose(size, 1, too_big=True, progress=True)
    assert not bool(size.is_hopeless)
    lose(size, 1, too_big=True)
    assert bool(size.is_hopeless)
    assert size.limit == SMALLEST_MESSAGE
    lose(size, 1, progress=True)
    assert not bool(size.is_hopeless)


@pytest.mark.parametrize(
    ("limit", "smaller"),
    [
        (SMALLER_MESSAGE + 1, SMALLER_MESSAGE),
        (SMALLER_MESSAGE, SMALLER_MESSAGE // 2),
        (SMALLEST_MESSAGE + 1, SMALLEST_MESSAGE),
        (3 * SMALLEST_MESSAGE, 3 * SMALLEST_MESSAGE // 2),
        (SMALLEST_MESSAGE, SMALLEST_MESSAGE),
        (SMALLEST_MESSAGE - 1, SMALLEST_MESSAGE - 1),
    ],
)
def test_each_limit_has_a_next_one(limit: int, smaller: int) -> None:
    assert lose(MessageSize(limit), 1, too_big=True) == smaller


def test_a_loss_counts_from_a_message_that_is_larger_than_the_smallest() -> None:
    assert lose(MessageSize(LARGEST_MESSAGE), 2, largest=SMALLEST_MESSAGE) == LARGEST_MESSAGE
    assert lose(MessageSize(LARGEST_MESSAGE), 2, largest=SMALLEST_MESSAGE + 1) == SMALLER_MESSAGE


def test_after_it_has_become_smaller_two_more_losses_are_needed() -> None:
    size = MessageSize(LARGEST_MESSAGE)
    lose(size, 1)
    assert lose(size, 1, too_big=True) == SMALLER_MESSAGE
    assert lose(size, 1) == SMALLER_MESSAGE
    assert lose(size, 1) == SMALLER_MESSAGE // 2


def bridge() -> ResumableStream:
    offer = SessionOffer("0" * 32, "0" * 64, 16 << 20, 60)
    return ResumableStream(client=False, buffers=ReadBuffers(), now=0.0, offer=offer)


def sent(stream: ResumableStream) -> list[bytes]:
    """All that goes out now, as the payload of each frame with data."""
    data = b""
    while pieces := stream.wire_output():
        chunk = b"".join(pieces)
        stream.wire_sent(len(chunk), 0.0)
        data += chunk
    frames: list[bytes] = []
    begins = True
    for event in FrameParser(masked=False).feed(memoryview(data)):
        if isinstance(event, Payload) and event.opcode == BINARY:
            frames = [*frames, event.data] if begins else [*frames[:-1], frames[-1] + event.data]  # type: ignore[list-item]
            begins = event.final
    return [bytes(frame) for frame in frames]


def say(stream: ResumableStream, data: bytes) -> None:
    while data:
        space = stream.source_space()
        n = min(len(space), len(data))
        space[:n] = data[:n]
        stream.source_received(n, 0.0)
        data = data[n:]


def receive_close(stream: ResumableStream, code: int) -> None:
    key = bytes(4)
    payload = close_payload(code, "too big")
    frame = frame_header(8, len(payload), key) + payload
    stream.wire_space()[: len(frame)] = frame
    stream.wire_received(len(frame), 0.0)


@pytest.mark.parametrize("received", [0, 1, 5000, 32 * 1024, 100_001])
def test_after_a_1009_everything_goes_again_in_smaller_messages(received: int) -> None:
    stream = bridge()
    say(stream, DATA)
    assert b"".join(sent(stream)) == DATA
    for limit in (32, 16, 8):
        receive_close(stream, 1009)
        stream.detach()
        stream.attach(received, 0.0)
        frames = sent(stream)
        assert b"".join(frames) == DATA[received:]
        assert max(map(len, frames)) <= limit * 1024
    # And once more after a loss of another kind: parts of a segment must not have overwritten each other.
    stream.wire_ended()
    stream.detach()
    stream.attach(received, 0.0)
    assert b"".join(sent(stream)) == DATA[received:]


def test_what_is_acknowledged_in_the_middle_of_a_segment_is_not_sent_again() -> None:
    replay = ReplayBuffer()
    source = memoryview(DATA)
    while source:
        space = replay.space(1 << 18)
        n = min(len(space), len(source))
        space[:n] = source[:n]
        replay.extend(n)
        source = source[n:]
    steps = random.Random("steps")
    for _ in range(20):
        replay.rewind()
        at = replay.base
        while taken := replay.take(steps.choice([1000, 5000, 40_000])):
            part, has_room = taken
            assert bytes(part.chunk[part.start : part.end]) == DATA[at : at + len(part)]
            if has_room:
                part.chunk[part.start - 14 : part.start] = b"!" * 14
            at += len(part)
            assert replay.next == at
            if steps.random() < 0.2:
                replay.confirm(steps.randint(replay.base, at))
            if steps.random() < 0.1:
                break
