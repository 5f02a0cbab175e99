"""Payload that goes from a socket to a pipe by splice(2): the same bytes in the same order as without."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import select
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.net.test_channel_contract import tls_pair
from tests.protocol.test_stream_contract import plain, resumable
from tunnel.client.socket_pair import connected_pair
from tunnel.client.stdio import StandardOutput
from tunnel.errors import RemoteProtocolError
from tunnel.net import splice
from tunnel.net.channel import Channel
from tunnel.net.pump import Pump
from tunnel.net.splice import Splice
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frames import BINARY, CONTINUATION, MAX_CLOSE, PING, TEXT, frame_header
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has splice(2)")

KINDS = {"plain": plain, "resumable": resumable}
WINDOW = 1 << 20
TURNS = 20_000  # after which a test gives up


class Silence:
    """A source that never sends anything."""

    def fileno(self) -> int:
        return -1

    def receive_into(self, space: memoryview) -> int | None:
        return None


class Bench:
    """A client's pump between a socket, whose other end is ``peer``, and a pipe, which is read at ``reader``."""

    def __init__(self, kind: str) -> None:
        ours, self.peer = connected_pair()
        self.reader, writer = os.pipe()
        self._pipe = os.fdopen(writer, "wb")
        self.buffers = ReadBuffers()
        self.pump = Pump(Channel(ours), Silence(), StandardOutput(writer), KINDS[kind](True, self.buffers))
        os.set_blocking(self.reader, False)
        self.peer.setblocking(False)
        self.splice = Splice(self.pump)
        self.wire = (
            b"" if kind == "plain" else frame(SessionOffer("0" * 32, "0" * 64, WINDOW, 60).line().encode(), TEXT)
        )
        self.heard = b""
        self.taken = 0  # bytes that were read from the wire

    def make_pipe(self, size: int) -> None:
        """Let the pipe take at most ``size`` bytes."""
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, size)

    def close(self) -> None:
        self.pump.wire.close()
        self.peer.close()
        self._pipe.close()
        with contextlib.suppress(OSError):
            os.close(self.reader)

    def send(self, most: int) -> None:
        """Send at most ``most`` bytes of the remaining data over the wire."""
        with contextlib.suppress(BlockingIOError):
            self.wire = self.wire[self.peer.send(self.wire[:most]) :]

    def come(self) -> None:
        """Send all remaining data, and wait until the last byte can be read."""
        expected = splice.waiting(self.pump.wire.fileno()) + len(self.wire)
        for _ in range(TURNS):
            self.send(1 << 20)
            if splice.waiting(self.pump.wire.fileno()) == expected:
                return
            time.sleep(0.001)
        raise AssertionError("not all has come")

    def begin(self) -> bytes:
        """Let a large frame come, so that the next one is taken to be as large; return its payload."""
        payload = random.Random(1).randbytes(200_000)
        self.wire += frame(payload)
        self.run(payload)
        return payload

    def turn(self) -> None:
        """As the client's relay."""
        pump = self.pump
        if pump.wants_wire_read and select.select([pump.wire.fileno()], [], [], 0)[0]:
            self.taken += self.splice.read_wire()
        if pump.wants_sink:
            pump.write_sink()
        pump.stream.settle()
        self.buffers.wire[:] = b"\xee" * len(self.buffers.wire)  # nothing may stay there

    def read(self, most: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self.heard += os.read(self.reader, most)

    def run(self, said: bytes, least: int = 1 << 20, chance: random.Random | None = None) -> None:
        """Continue until all data has arrived, in pieces of random size."""
        for _ in range(TURNS):
            if self.heard == said:
                return
            self.send(chance.choice((1, 9, 500, 5000, 200_000)) if chance else least)
            self.turn()
            self.read(chance.choice((0, 1, 4000, 70_000, 300_000)) if chance else least)
        raise AssertionError(f"{len(self.heard)} of {len(said)} bytes came")


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.close()


@pytest.fixture
def spliced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each call of splice(2) has moved."""
    moved: list[int] = []
    real = os.splice

    def counting(source: int, sink: int, count: int, *, flags: int) -> int:
        n = real(source, sink, count, flags=flags)
        moved.append(n)
        return n

    monkeypatch.setattr(os, "splice", counting)
    return moved


def frame(payload: bytes, opcode: int = BINARY, *, final: bool = True) -> bytes:
    return frame_header(opcode, len(payload), None, final) + payload


def messages(chance: random.Random) -> tuple[bytes, bytes]:
    """Return what somebody sends, and its payload: frames of all sizes, messages in several of them, pings between."""
    wire, payload = b"", b""
    open_message = False
    for _ in range(chance.randrange(2, 12)):
        data = chance.randbytes(chance.choice((1, 6, 130, 3000, 65_535, 65_536, 90_000, 262_144)))
        final = chance.random() < 0.7
        wire += frame(data, CONTINUATION if open_message else BINARY, final=final)
        open_message = not final
        payload += data
        if chance.random() < 0.3:
            wire += frame(b"hello", PING)
    return wire, payload


@pytest.mark.parametrize("least", [1, 100, splice.LEAST])
@pytest.mark.parametrize("seed", range(8))
def test_all_bytes_arrive_in_order_however_they_come_and_go(
    seed: int, least: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splice, "LEAST", least)
    chance = random.Random(seed)
    bench.make_pipe(chance.choice((16 << 10, 64 << 10, 1 << 20)))
    wire, payload = messages(chance)
    offer = len(bench.wire)
    bench.wire += wire
    sent = len(bench.wire)
    bench.run(payload, chance=chance)
    assert bench.pump.to_sink == len(payload)
    if not offer:  # else what came with the offer was put back, and was read twice
        assert bench.taken == sent - len(bench.wire) - splice.waiting(bench.pump.wire.fileno())


def test_large_frames_are_spliced_once_they_have_come_whole_and_others_are_not(
    bench: Bench, spliced: list[int]
) -> None:
    sizes = (200_000, 65_536, 65_537, 65_535, 100, 70_000, 70_001)
    payloads = [random.Random(size).randbytes(size) for size in sizes]
    said = b""
    for payload in payloads:
        bench.wire += frame(payload)
        said += payload
        bench.run(said)
        if payload is payloads[0]:
            spliced.clear()  # it may have come in parts
    # The first one tells that more of that size may come; the header of 70,000 was not expected in front of so many.
    assert spliced == [65_536, 65_537, 70_001]


def test_large_frames_that_have_come_together_are_spliced_in_one_turn_up_to_so_many(
    bench: Bench, spliced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splice, "FRAMES", 2)
    bench.make_pipe(1 << 20)
    said = bench.begin()
    spliced.clear()
    payloads = [random.Random(size).randbytes(size) for size in (65_536, 65_537, 65_538)]
    bench.wire += b"".join(map(frame, payloads))
    bench.come()
    bench.turn()
    assert spliced == [65_536, 65_537]
    bench.turn()
    assert spliced == [65_536, 65_537, 65_538]
    bench.run(said + b"".join(payloads))


def test_behind_the_rest_of_a_frame_the_next_one_is_spliced_in_the_same_turn(bench: Bench, spliced: list[int]) -> None:
    bench.make_pipe(1 << 20)
    said = bench.begin()
    spliced.clear()
    first, second = random.Random(1).randbytes(100_000), random.Random(2).randbytes(70_000)
    bench.wire += frame(first)[:60_000]
    bench.come()
    bench.turn()
    bench.wire += frame(first)[60_000:] + frame(second)
    bench.come()
    bench.turn()
    assert spliced == [70_000]
    bench.run(said + first + second)


def test_where_no_large_frame_comes_a_turn_reads_but_once_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    said = bench.begin()
    asked: list[int] = []
    wire = bench.pump.wire
    real = Channel.receive_into

    def receive_into(channel: Channel, space: memoryview) -> int | None:
        if channel is wire:
            asked.append(len(space))
        return real(channel, space)

    monkeypatch.setattr(Channel, "receive_into", receive_into)
    payloads = [random.Random(size).randbytes(size) for size in (65_536, 8, 9, 10, 11)]
    bench.wire += frame(payloads[0])
    bench.come()
    bench.turn()
    assert asked == [splice.LARGE_HEADER] * 2, "behind the frame there is nothing"
    asked.clear()
    bench.wire += b"".join(map(frame, payloads[1:]))
    bench.come()
    bench.turn()
    assert len(asked) == 2 and asked[0] == splice.LARGE_HEADER < asked[1]
    assert splice.waiting(wire.fileno()) == 0
    bench.run(said + b"".join(payloads))


def test_a_small_frame_that_a_full_pipe_does_not_take_is_not_overwritten(bench: Bench) -> None:
    said = bench.begin()
    bench.make_pipe(16 << 10)
    filling = bytes(16 << 10)
    assert bench.pump.sink.send([filling]) == len(filling)
    payloads = b"8 bytes.", b"something else that is longer"
    bench.wire += b"".join(map(frame, payloads))
    bench.come()
    bench.turn()
    bench.run(said + filling + b"".join(payloads))


def test_what_is_held_back_of_a_frame_comes_before_the_rest_though_the_pipe_is_full_for_a_moment(
    bench: Bench, spliced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = bench.begin()
    payload = random.Random(2).randbytes(200_000)
    bench.wire += frame(payload)[:100_000]
    bench.come()
    bench.turn()
    bench.read(1 << 20)
    spliced.clear()
    bench.wire += frame(payload)[100_000:]
    bench.come()
    with monkeypatch.context() as patch:
        patch.setattr(StandardOutput, "send", lambda sink, pieces: 0)
        bench.turn()
    assert spliced == ([] if isinstance(bench.pump.stream, ResumableStream) else [100_010])
    bench.run(said + payload)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_before_comes_before_what_is_spliced(kind: str, spliced: list[int]) -> None:
    """Such as bytes behind the head of the bridge's answer, though they begin a large frame and the rest has come."""
    bench = Bench(kind)
    payload = random.Random(1).randbytes(200_000)
    said = bench.begin()
    spliced.clear()
    bench.pump.wire.put_back(memoryview(frame(payload)[:100_000]))
    bench.wire += frame(payload)[100_000:] + frame(payload)
    bench.come()
    bench.run(said + payload * 2)
    bench.close()


def test_what_is_encrypted_is_not_spliced(spliced: list[int]) -> None:
    with ExitStack() as stack:
        wire, peer = tls_pair(stack)
        reader, writer = os.pipe()
        for descriptor in (reader, writer):
            stack.callback(os.close, descriptor)
        pump = Pump(wire, Silence(), StandardOutput(writer), plain(True, ReadBuffers()))
        os.set_blocking(reader, False)
        said = random.Random(1).randbytes(150_000)
        waiting, heard = frame(said) * 2, b""
        for _ in range(TURNS):
            if len(heard) == 2 * len(said):
                break
            if waiting:
                waiting = waiting[peer.send([waiting]) :]
            Splice(pump).read_wire()
            pump.write_sink()
            with contextlib.suppress(BlockingIOError):
                heard += os.read(reader, 1 << 20)
    assert heard == said * 2 and not spliced


def test_a_frame_in_parts_is_held_back_until_it_is_whole(bench: Bench, spliced: list[int]) -> None:
    first, second = random.Random(1).randbytes(200_000), random.Random(2).randbytes(200_000)
    bench.wire += frame(first)
    bench.run(first)
    spliced.clear()
    rest = frame(second)
    bench.wire, rest = rest[:100_000], rest[100_000:]
    bench.run(first + second[: 100_000 - 10 - (MAX_CLOSE if isinstance(bench.pump.stream, ResumableStream) else 0)])
    assert not spliced
    bench.wire = rest
    bench.run(first + second)
    assert spliced == [len(rest)]


def test_what_a_full_pipe_does_not_take_waits_for_it_in_the_stream(bench: Bench, spliced: list[int]) -> None:
    payload = bench.begin()
    bench.make_pipe(16 << 10)
    bench.wire += frame(payload) * 2
    for _ in range(20):
        bench.send(1 << 20)
        bench.turn()
    assert spliced and spliced[0] < len(payload)
    assert bench.pump.wants_sink
    bench.run(payload * 3)


def test_what_waits_for_the_pipe_is_not_overwritten_by_what_comes_next(bench: Bench) -> None:
    payload = bench.begin()
    bench.make_pipe(16 << 10)
    following = frame(random.Random(2).randbytes(200_000))
    bench.wire = following[:160_000]
    for _ in range(TURNS):
        if not (bench.wire or bench.pump.wants_sink):
            break
        bench.send(1 << 20)
        bench.turn()
        bench.read(1 << 20)
    bench.wire = following[160_000:] + frame(payload)  # of the first part, the pipe takes a part
    bench.send(1 << 20)
    bench.run(payload + following[10:] + payload)


def test_a_reader_that_is_gone_ends_the_sink(bench: Bench) -> None:
    payload = bench.begin()
    os.close(bench.reader)
    bench.wire += frame(payload)
    for _ in range(20):
        bench.send(1 << 20)
        bench.turn()
    assert isinstance(bench.pump.sink_error, BrokenPipeError)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_where_splice_is_not_to_be_had_everything_is_copied(
    code: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def refuse(*arguments: int, flags: int) -> int:
        nonlocal asked
        asked += 1
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "splice", refuse)
    said = b""
    for seed in range(5):
        payload = random.Random(seed).randbytes(200_000)
        bench.wire += frame(payload)
        said += payload
        bench.run(said)
    assert asked == 1


def test_on_another_system_and_in_a_python_without_splice_everything_is_copied(
    bench: Bench, spliced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = bench.begin()
    spliced.clear()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        elsewhere = Splice(bench.pump)
    with monkeypatch.context() as patch:
        patch.delattr(os, "splice")
        without = Splice(bench.pump)
    for bench.splice in (elsewhere, without):
        payload = random.Random(2).randbytes(70_000)
        bench.wire += frame(payload)
        said += payload
        bench.come()
        bench.run(said)
    assert not spliced


def test_data_behind_a_fin_are_not_spliced_but_end_the_session(spliced: list[int]) -> None:
    bench = Bench("resumable")
    payload = bench.begin()
    spliced.clear()
    bench.wire += frame(b"fin 200000", TEXT) + frame(payload)
    for _ in range(20):
        bench.send(1 << 20)
        bench.turn()
    stream = bench.pump.stream
    assert isinstance(stream, ResumableStream) and isinstance(stream.failure, RemoteProtocolError)
    assert not spliced
    bench.close()
