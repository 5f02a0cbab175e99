"""What the pump does in each step, with real sockets and a plain stream; what breaks is kept, and ends one side."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.protocol.test_stream_contract import resumable
from tests.protocol.wire import BINARY, PING, TEXT, frame, messages
from tunnel.net.channel import Channel
from tunnel.net.pump import Pump
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frame_budget import FRAMES_PER_TURN
from tunnel.protocol.frames import frame_header
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import FRAME_LIMIT, ReadBuffers

LIMIT = 20.0


class Broken(Channel):
    """A channel whose every use fails, as that of a connection that was reset."""

    def receive_into(self, space: memoryview) -> int | None:
        raise ConnectionResetError("read")

    def send(self, pieces: object) -> int:
        raise BrokenPipeError("written")


class Bed:
    """A bridge's pump, and the far ends of its wire and of its target."""

    def __init__(self, stack: ExitStack) -> None:
        near, self.wire = socket.socketpair()
        local, self.target = socket.socketpair()
        for sock in (near, self.wire, local, self.target):
            stack.callback(sock.close)
        self.wire.settimeout(LIMIT)
        self.target.settimeout(LIMIT)
        self.channel, self.local = Channel(near), Channel(local)
        self.stream = PlainStream(client=False, buffers=ReadBuffers(), keepalive=Keepalive(0.0))
        self.pump = Pump(self.channel, self.local, self.local, self.stream)

    def broken(self) -> Broken:
        return Broken(socket.socketpair()[0])


@pytest.fixture
def bed() -> Iterator[Bed]:
    with ExitStack() as stack:
        yield Bed(stack)


class Timed(PlainStream):
    """A stream that remembers the times that it was given."""

    def __init__(self) -> None:
        super().__init__(client=False, buffers=ReadBuffers(), keepalive=Keepalive(0.0))
        self.times: list[float] = []

    def source_received(self, n: int, now: float) -> None:
        self.times.append(now)
        super().source_received(n, now)

    def wire_sent(self, n: int, now: float) -> None:
        self.times.append(now)
        super().wire_sent(n, now)

    def wire_received(self, n: int, now: float) -> int:
        self.times.append(now)
        return super().wire_received(n, now)

    def sink_sent(self, n: int, now: float) -> None:
        self.times.append(now)
        super().sink_sent(n, now)

    def sink_failed(self, now: float) -> None:
        self.times.append(now)
        super().sink_failed(now)


def test_a_stream_is_told_the_time_of_the_machine(bed: Bed, broken: Broken) -> None:
    stream = bed.pump.stream = Timed()
    began = time.monotonic()
    bed.target.sendall(b"hello")
    bed.pump.read_source()
    bed.wire.sendall(frame(BINARY, b"hello"))
    bed.pump.read_wire()
    bed.pump.sink = broken
    bed.wire.sendall(frame(BINARY, b"lost"))
    bed.pump.read_wire()
    assert len(stream.times) == 6
    assert all(began <= each <= time.monotonic() for each in stream.times)


@pytest.fixture
def broken() -> Iterator[Broken]:
    one, other = socket.socketpair()
    with one, other:
        yield Broken(one)


def test_data_of_the_source_reaches_the_wire_in_the_same_turn(bed: Bed) -> None:
    bed.target.sendall(b"hello")
    assert bed.pump.wants_source
    assert bed.pump.read_source() == 5
    assert messages(bed.wire.recv(100), masked=False) == [b"hello"]
    assert (bed.pump.to_wire, bed.pump.to_sink) == (5, 0)
    bed.target.sendall(b"again")
    bed.pump.read_source()
    assert bed.pump.to_wire == 10


def test_a_source_with_nothing_to_say_is_asked_again(bed: Bed) -> None:
    assert bed.pump.read_source() == 0
    assert bed.pump.wants_source
    assert (bed.pump.source_is_over, bed.pump.source_error, bed.pump.to_wire) == (False, None, 0)


def test_the_end_of_the_source_is_noted_once(bed: Bed, broken: Broken) -> None:
    bed.target.shutdown(socket.SHUT_WR)
    assert bed.pump.read_source() == 0
    assert (bed.pump.source_is_over, bed.pump.wants_source, bed.pump.source_error) == (True, False, None)
    bed.pump.source = broken
    assert bed.pump.read_source() == 0
    assert bed.pump.source_error is None, "it is not read any more"


def test_a_source_that_breaks_is_over_and_why_is_kept(bed: Bed, broken: Broken) -> None:
    bed.pump.source = broken
    assert bed.pump.read_source() == 0
    assert isinstance(bed.pump.source_error, ConnectionResetError)
    assert bed.pump.source_is_over and not bed.pump.wants_source


def test_a_source_is_not_read_while_there_is_no_memory_for_it(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.target.sendall(b"hello")
    with monkeypatch.context() as patch:
        patch.setattr(type(bed.pump.stream), "source_space", lambda stream: memoryview(b""))
        assert bed.pump.read_source() == 0
    assert bed.pump.read_source() == 5


def test_a_source_is_not_read_while_the_wire_is_blocked(bed: Bed, broken: Broken) -> None:
    total = 0
    while bed.pump.wants_source:
        bed.target.sendall(bytes(10_000))
        bed.pump.read_source()
        total += 10_000
    assert bool(bed.pump.wants_wire_write)
    assert bed.pump.to_wire == total
    bed.pump.source = broken
    bed.pump.read_source()
    assert bed.pump.source_error is None
    heard = b""
    while bool(bed.pump.wants_wire_write):
        heard += bed.wire.recv(1 << 20)
        bed.pump.write_wire()
    bed.wire.setblocking(False)
    try:
        while True:
            heard += bed.wire.recv(1 << 20)
    except BlockingIOError:
        pass
    assert sum(len(message) for message in messages(heard, masked=False) if isinstance(message, bytes)) == total


def test_data_of_the_wire_reaches_the_sink_in_the_same_turn_and_pings_are_answered(bed: Bed) -> None:
    bed.wire.sendall(frame(BINARY, b"hello") + frame(PING, b"42"))
    assert bed.pump.wants_wire_read
    assert bed.pump.read_wire() == len(frame(BINARY, b"hello") + frame(PING, b"42"))
    assert bed.target.recv(100) == b"hello"
    assert messages(bed.wire.recv(100), masked=False) == [("pong", b"42")]
    assert (bed.pump.to_wire, bed.pump.to_sink) == (0, 5)
    bed.wire.sendall(frame(BINARY, b"again"))
    bed.pump.read_wire()
    assert bed.pump.to_sink == 10


def test_payload_that_goes_past_the_stream_counts_and_is_acknowledged(bed: Bed) -> None:
    """As `tunnel.net.splice` has it: 300,000 bytes are more than a quarter of this window."""
    size = 300_000
    stream = bed.pump.stream = resumable(True, ReadBuffers())
    offer = SessionOffer("0" * 32, "0" * 64, 1 << 20, 60).line().encode()
    bed.wire.sendall(frame(TEXT, offer, masked=False) + frame_header(BINARY, size, None))
    bed.pump.read_wire()
    before = messages(bed.wire.recv(1000), masked=True)
    bed.pump.passed(100_000)
    assert (bed.pump.to_sink, stream.parser.opaque, bool(bed.pump.wants_wire_write)) == (100_000, 200_000, False)
    bed.pump.passed(200_000)
    assert (bed.pump.to_sink, stream.parser.opaque, bool(bed.pump.wants_wire_write)) == (size, 0, False)
    assert before + messages(bed.wire.recv(1000), masked=True) == ["ack 0", f"ack {size}"]


def test_a_wire_with_nothing_to_say_is_asked_again(bed: Bed) -> None:
    assert bed.pump.read_wire() == 0
    assert bed.pump.wants_wire_read and not bed.stream.wire_is_over and bed.pump.wire_error is None


def test_the_end_of_the_wire_is_told_to_the_stream(bed: Bed, broken: Broken) -> None:
    bed.wire.close()
    assert bed.pump.read_wire() == 0
    assert (bed.stream.wire_is_over, bed.pump.wire_error, bed.pump.wants_wire_read) == (True, None, False)
    bed.pump.wire = broken
    assert bed.pump.read_wire() == 0
    assert bed.pump.wire_error is None


def test_a_wire_that_breaks_when_it_is_read_ends_reading_and_the_first_reason_is_kept(bed: Bed, broken: Broken) -> None:
    bed.pump.wire = broken
    assert bed.pump.read_wire() == 0
    assert isinstance(bed.pump.wire_error, ConnectionResetError) and bed.stream.wire_is_over
    bed.target.sendall(b"x")
    bed.pump.read_source()
    assert isinstance(bed.pump.wire_error, ConnectionResetError)
    assert not bed.pump.wants_wire_write


def test_a_wire_that_takes_nothing_more_is_read_on_and_the_first_reason_is_kept(bed: Bed, broken: Broken) -> None:
    bed.wire.sendall(frame(BINARY, b"still"))
    bed.pump.wire = broken
    bed.target.sendall(b"x")
    bed.pump.read_source()
    assert isinstance(bed.pump.wire_error, BrokenPipeError)
    assert (bed.pump.wants_wire_write, bed.stream.wire_is_over) == (False, False)
    bed.pump.wire = bed.channel
    bed.pump.read_wire()
    assert bed.target.recv(10) == b"still"
    bed.pump.wire = broken
    bed.pump.read_wire()
    assert repr(bed.pump.wire_error) == "BrokenPipeError('written')"
    assert bed.stream.wire_is_over


def test_nothing_is_written_where_nothing_waits(bed: Bed, broken: Broken) -> None:
    bed.pump.wire = bed.pump.sink = broken
    bed.pump.write_wire()
    bed.pump.write_sink()
    assert bed.pump.wire_error is None and bed.pump.sink_error is None


def test_a_sink_that_breaks_is_told_to_the_stream_and_why_is_kept(bed: Bed, broken: Broken) -> None:
    bed.pump.sink = broken
    bed.wire.sendall(frame(BINARY, b"lost"))
    bed.pump.read_wire()
    assert isinstance(bed.pump.sink_error, BrokenPipeError)
    assert bed.stream.undelivered == 4 and not bed.pump.wants_sink and bed.pump.to_sink == 0
    assert bed.pump.wants_wire_read


def test_what_a_blocked_sink_does_not_take_waits_and_the_wire_waits_with_it(bed: Bed) -> None:
    total = 0
    while bed.pump.wants_wire_read:
        bed.wire.sendall(frame(BINARY, bytes(10_000)))
        bed.pump.read_wire()
        total += 10_000
    assert bool(bed.pump.wants_sink)
    heard = 0
    while heard < total:
        heard += len(bed.target.recv(1 << 20))
        bed.pump.write_sink()
    assert bed.pump.to_sink == total and not bed.pump.wants_sink and bed.pump.wants_wire_read


def test_what_is_too_much_for_one_turn_is_taken_in_in_the_next_ones(bed: Bed) -> None:
    count = 3 * FRAMES_PER_TURN + 1
    bed.wire.sendall(frame(BINARY, b"x") * count)
    turns = 0
    while bed.pump.to_sink < count:
        bed.pump.read_wire()
        turns += 1
        assert bed.channel.pending is (turns < 4)
    assert turns == 4
    assert bed.target.recv(1 << 16) == b"x" * count


def test_what_came_with_the_last_turn_is_delivered_before_the_clock_is_looked_at(bed: Bed) -> None:
    """The time that the stream is told is that of the machine: progress now, not at the beginning of time."""
    bed.stream.keepalive.heard_at = 0.0
    bed.wire.sendall(frame(BINARY, b"x" * FRAME_LIMIT)[: FRAME_LIMIT // 2])
    bed.pump.read_wire()
    assert bed.stream.keepalive.heard_at > 0.0
