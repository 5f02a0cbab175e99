"""A target's bytes that go to the wire by splice(2) and tee(2): the same as if they had been copied."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from tests.net.test_channel_contract import tls_pair
from tests.protocol.test_stream_contract import plain
from tunnel.client.socket_pair import connected_pair
from tunnel.net import splice_source
from tunnel.net.channel import Channel
from tunnel.net.pump import Pump
from tunnel.net.splice import waiting
from tunnel.net.splice_source import SourceSplice, may_splice
from tunnel.protocol.byte_stream import ByteStream
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.outbox import LEAST_PASSED, PASSED
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.protocol.sender import PASS_WINDOW

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has splice(2)")

TURNS = 50_000  # after which a test gives up
DATA = random.Random("target").randbytes(12 << 20)


def resumable(client: bool, buffers: ReadBuffers) -> ByteStream:
    offer = None if client else SessionOffer("0" * 32, "0" * 64, 16 << 20, 60)
    return ResumableStream(client=client, buffers=buffers, now=0.0, offer=offer)


KINDS = {"plain": plain, "resumable": resumable}


class Nothing:
    """A source without data, and a sink that collects."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.is_blocked = False

    def fileno(self) -> int:
        return -1

    def receive_into(self, space: memoryview) -> int | None:
        return None

    def send(self, pieces: Sequence[bytes | bytearray | memoryview]) -> int:
        size = len(self.heard)
        if self.is_blocked:
            return 0
        for piece in pieces:
            self.heard += piece
        return len(self.heard) - size


class Bench:
    """A bridge's pump between ``target`` and a wire, at whose other end is a client's pump."""

    def __init__(self, kind: str) -> None:
        ours, self.target = connected_pair()
        self.target.setblocking(False)
        self.source = source = Channel(ours)
        self.client_end = Nothing()
        near, far = connected_pair()
        self.bridge = Pump(Channel(near), source, source, KINDS[kind](False, ReadBuffers()))
        self.client = Pump(Channel(far), Nothing(), self.client_end, KINDS[kind](True, ReadBuffers()))
        self.said = b""
        self.unsaid = DATA
        self.spliced = 0
        self.now = 0.0

    def close(self) -> None:
        self.end()
        for channel in (self.bridge.wire, self.client.wire, self.source, self.target):
            channel.close()

    def begin(self) -> None:
        if self.bridge.splice is None and may_splice(self.bridge):
            self.bridge.splice = SourceSplice(self.bridge)

    def end(self) -> None:
        splice, self.bridge.splice = self.bridge.splice, None
        if splice is not None:
            splice.stop()

    def reconnect(self) -> None:
        """Let the connection be lost, with everything on it, and the session go on over another."""
        bridge, client = self.bridge.stream, self.client.stream
        assert isinstance(bridge, ResumableStream) and isinstance(client, ResumableStream)
        bridge.detach()
        client.detach()
        self.end()
        self.bridge.wire.close()
        self.client.wire.close()
        near, far = connected_pair()
        self.bridge.wire, self.client.wire = Channel(near), Channel(far)
        bridge.attach(client.session.delivered, self.now)
        client.attach(bridge.session.delivered, self.now)

    def say(self, most: int) -> None:
        try:
            n = self.target.send(self.unsaid[:most])
        except BlockingIOError:
            return
        self.said, self.unsaid = self.said + self.unsaid[:n], self.unsaid[n:]

    def read_source(self) -> None:
        """As the bridge's relay."""
        bridge = self.bridge
        if not (bridge.wants_source and readable(bridge.source.fileno())):
            return
        if bridge.splice is not None:
            n = bridge.splice.read_source()
            if not bridge.splice.is_over:
                self.spliced += n or 0
                return
            self.end()
        if bridge.wants_source:
            bridge.read_source()

    def read_wires(self, *, client: bool = True) -> None:
        for pump in (self.client, self.bridge) if client else (self.bridge,):
            if pump.wants_wire_read and readable(pump.wire.fileno()):
                pump.read_wire()
            if pump.wants_wire_write:
                pump.write_wire()
            pump.stream.settle()

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for pump in (self.client, self.bridge):
            pump.stream.tick(self.now)
            pump.write_wire()

    def run(self, chance: random.Random | None = None, meddle: Callable[[], None] = lambda: None) -> None:
        """Continue until the client has everything; ``meddle`` before each read of the source."""
        for _ in range(TURNS):
            if not self.unsaid and self.client_end.heard == self.said:
                return
            self.say(chance.choice((1, 5000, 70_000, 1 << 20)) if chance else 1 << 20)
            meddle()
            self.read_source()
            self.read_wires(client=not chance or chance.random() < 0.5)
            self.tick(0.01)
        raise AssertionError(f"{len(self.client_end.heard)} of {len(self.said)} bytes came")


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.close()


@pytest.fixture
def session() -> Iterator[Bench]:
    bench = Bench("resumable")
    yield bench
    bench.close()


def test_everything_is_spliced(bench: Bench) -> None:
    before = descriptors()
    bench.read_wires()
    bench.begin()
    bench.run()
    assert bench.spliced == bench.bridge.to_wire == len(DATA)
    bench.end()
    assert descriptors() == before


@pytest.mark.parametrize("seed", range(3))
def test_splicing_may_begin_and_end_at_any_time(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    changes = 0

    def meddle() -> None:
        nonlocal changes
        if chance.random() < 0.1:
            bench.end()
            changes += 1
        elif chance.random() < 0.2:
            bench.begin()

    bench.run(chance, meddle)
    assert changes > 3
    assert 0 < bench.spliced < len(DATA) == bench.bridge.to_wire


@pytest.mark.parametrize("seed", range(3))
def test_what_was_spliced_is_sent_again_after_a_loss(session: Bench, seed: int) -> None:
    chance = random.Random(seed)
    losses = 0

    def meddle() -> None:
        nonlocal losses
        if chance.random() < 0.1:
            session.reconnect()
            losses += 1
        session.begin()

    for _ in range(2):
        session.read_wires()  # then there is a session
    session.run(chance, meddle)
    assert losses > 3
    assert session.spliced > 1 << 20


def test_what_waits_for_the_wire_is_read_no_faster(bench: Bench) -> None:
    """And a pong, or an ack, comes after the frame that is being sent."""
    bench.read_wires()
    bench.begin()
    for _ in range(200):
        bench.say(1 << 20)
        bench.read_source()
        bench.bridge.write_wire()
    stream = bench.bridge.stream
    assert stream.may_pass_source() == 0
    assert not bench.bridge.wants_source
    assert bench.bridge.splice is not None and bench.bridge.splice.read_source() is None
    assert not bench.bridge.splice.is_over
    bench.client.stream.tick(60.0)  # it pings
    bench.client.write_wire()
    bench.run()
    assert bench.spliced == len(DATA)


def test_what_is_unacknowledged_stays_within_a_limit(session: Bench) -> None:
    session.read_wires()
    session.begin()
    stream = session.bridge.stream
    assert isinstance(stream, ResumableStream)
    for _ in range(400):
        session.say(1 << 20)
        if waiting(session.bridge.source.fileno()) > 50_000:  # small pieces would fill the pipe sooner
            session.read_source()
        session.bridge.write_wire()
        assert stream.session.unacknowledged <= PASS_WINDOW
        assert stream.session.memory < 2 * PASS_WINDOW
    assert session.spliced > PASS_WINDOW // 4
    session.run()
    session.client.stream.tick(time.monotonic() + 1.0)  # the last ack is due
    session.read_wires()
    session.read_wires()
    assert stream.session.unacknowledged == 0


def test_more_than_the_kernel_keeps_is_copied(session: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice_source, "KEPT", 4096)
    session.read_wires()
    session.begin()
    session.run()
    assert session.spliced < len(DATA) == session.bridge.to_wire
    assert session.bridge.splice is None


def test_the_end_of_the_source_is_noticed(bench: Bench) -> None:
    bench.read_wires()
    bench.begin()
    bench.run()
    bench.target.shutdown(socket.SHUT_WR)
    while not readable(bench.bridge.source.fileno()):
        pass
    assert bench.bridge.splice is not None and bench.bridge.splice.read_source() == 0
    assert bench.bridge.source_is_over and bench.bridge.source_error is None


def test_a_broken_source_is_reported(bench: Bench) -> None:
    bench.read_wires()
    bench.begin()
    bench.target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    bench.target.close()
    while not readable(bench.bridge.source.fileno()):
        pass
    bench.read_source()
    assert isinstance(bench.bridge.source_error, ConnectionResetError)


def test_a_broken_wire_ends_it(bench: Bench) -> None:
    bench.read_wires()
    bench.begin()
    bench.client.wire.abort()
    for _ in range(TURNS):
        bench.say(1 << 20)
        bench.read_source()
        bench.bridge.write_wire()
        if bench.bridge.wire_error:
            break
    assert isinstance(bench.bridge.wire_error, ConnectionError)
    assert not bench.bridge.wants_wire_write
    bench.end()


def test_small_messages_are_copied(bench: Bench) -> None:
    bench.read_wires()
    assert may_splice(bench.bridge)
    stream = bench.bridge.stream
    if isinstance(stream, ResumableStream):
        stream.session.sender.message_size.limit = LEAST_PASSED - 1
    else:
        stream.max_message = LEAST_PASSED - 1  # type: ignore[attr-defined]
    assert stream.may_pass_source() is None
    assert not may_splice(bench.bridge)


def test_a_client_does_not_splice_what_it_sends(bench: Bench) -> None:
    bench.read_wires()
    assert not may_splice(bench.client)


def test_what_is_encrypted_is_copied() -> None:
    with ExitStack() as stack:
        _, wire = tls_pair(stack)
        source, far = connected_pair()
        with source, far:
            pump = Pump(wire, Channel(source), Channel(source), plain(False, ReadBuffers()))
            assert pump.stream.may_pass_source() == PASSED
            assert not may_splice(pump)


def test_no_descriptor_is_left_open_if_there_are_too_few(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    real = os.pipe
    pipes = 0

    def pipe() -> tuple[int, int]:
        nonlocal pipes
        pipes += 1
        if pipes == (2 if bench.bridge.stream.keeps else 1):
            raise OSError(24, "Too many open files")
        return real()

    monkeypatch.setattr(os, "pipe", pipe)
    with pytest.raises(OSError, match="Too many"):
        SourceSplice(bench.bridge)
    assert descriptors() == before


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_where_the_system_does_not_allow_it_everything_is_copied(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: int, **__: int) -> int:
        raise OSError(number, os.strerror(number))

    bench.read_wires()
    bench.begin()
    splice = bench.bridge.splice
    monkeypatch.setattr(os, "splice", refuse)
    bench.run()
    assert splice is not None and splice.is_refused and bench.spliced == 0


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOSYS])
def test_what_cannot_be_kept_is_copied(session: Bench, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: int) -> int:
        ctypes.set_errno(number)
        return -1

    session.read_wires()
    session.begin()
    splice = session.bridge.splice
    monkeypatch.setattr(splice_source, "_TEE", refuse)
    session.run()
    assert splice is not None and splice.is_refused is (number == errno.ENOSYS) and session.spliced == 0
