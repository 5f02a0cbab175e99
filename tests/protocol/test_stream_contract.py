"""What holds for every stream, whatever its kind: the interface `ByteStream`, as the pump and its drivers use it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pytest

from tunnel.errors import LocalProtocolError
from tunnel.protocol.byte_stream import ByteStream
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.keepalive import PING_INTERVAL, Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.websocat.messages import MessageCodec, MessageOptions

# Lines, because some codecs carry nothing else whole.
TEXT = b"".join(b"line %d, which may be cut anywhere\n" % number for number in range(2000))
ENDLESS = 10_000  # turns after which a test gives up
Make = Callable[[bool, ReadBuffers], ByteStream]


def plain(client: bool, buffers: ReadBuffers) -> ByteStream:
    return PlainStream(client=client, buffers=buffers, keepalive=Keepalive(0.0))


def resumable(client: bool, buffers: ReadBuffers) -> ByteStream:
    offer = None if client else SessionOffer("0" * 32, "0" * 64, 1 << 20, 60)
    return ResumableStream(client=client, buffers=buffers, now=0.0, offer=offer)


def with_codec(*, text: bool, lines: bool, terminator: bytes = b"\n") -> Make:
    options = MessageOptions()
    options.text, options.lines, options.terminator = text, lines, terminator

    def make(client: bool, buffers: ReadBuffers) -> ByteStream:
        return PlainStream(client=client, buffers=buffers, keepalive=Keepalive(0.0), codec=MessageCodec(options))

    return make


KINDS: dict[str, Make] = {
    "plain": plain,
    "resumable": resumable,
    "websocat binary": with_codec(text=False, lines=False),
    "websocat text": with_codec(text=True, lines=False),
    "websocat lines": with_codec(text=True, lines=True),
}


class Wants(NamedTuple):
    """What a stream wants at a moment."""

    source: bool
    wire_read: bool
    wire_write: bool
    sink_write: bool


def wants(stream: ByteStream) -> Wants:
    return Wants(stream.wants_source, stream.wants_wire_read, stream.wants_wire_write, stream.wants_sink_write)


@dataclass
class Pair:
    """Two ends with one pair of buffers, and what is on the link towards each."""

    client: ByteStream
    bridge: ByteStream
    buffers: ReadBuffers

    def __post_init__(self) -> None:
        self.inbound = {id(self.client): b"", id(self.bridge): b""}
        self.heard = {id(self.client): b"", id(self.bridge): b""}

    def ends(self, *, client_first: bool) -> tuple[ByteStream, ByteStream]:
        return (self.client, self.bridge) if client_first else (self.bridge, self.client)

    def settle(self) -> None:
        """As a driver after each turn; then another stream uses the buffers."""
        for stream in (self.client, self.bridge):
            stream.settle()
        self.buffers.source[:] = bytes(len(self.buffers.source))
        self.buffers.wire[:] = bytes(len(self.buffers.wire))

    def say(self, stream: ByteStream, data: bytes) -> bytes:
        """Let the source say as much of ``data`` as is read in one turn; return the rest."""
        if not (data and stream.wants_source):
            return data
        space = stream.source_space()
        assert len(space)
        n = min(len(space), len(data))
        space[:n] = data[:n]
        stream.source_received(n, 0.0)
        return data[n:]

    def send(self, stream: ByteStream, peer: ByteStream, limit: int) -> bool:
        output = b"".join(stream.wire_output())[:limit] if stream.wants_wire_write else b""
        self.inbound[id(peer)] += output
        if output:
            stream.wire_sent(len(output), 0.0)
        return bool(output)

    def receive(self, stream: ByteStream, limit: int) -> bool:
        data = self.inbound[id(stream)][:limit]
        if not (data and stream.wants_wire_read):
            return False
        space = stream.wire_space()
        data = data[: len(space)]
        space[: len(data)] = data
        used = stream.wire_received(len(data), 0.0)
        assert 0 < used <= len(data)
        self.inbound[id(stream)] = self.inbound[id(stream)][used:]
        return True

    def deliver(self, stream: ByteStream, limit: int) -> bool:
        output = b"".join(stream.sink_output())[:limit]
        assert bool(output) is stream.wants_sink_write
        self.heard[id(stream)] += output
        if output:
            stream.sink_sent(len(output), 0.0)
        return bool(output)

    def run(self, limit: int = 1 << 20) -> None:
        """Move what there is until nothing moves any more."""
        for _ in range(ENDLESS):
            moved = False
            for stream, peer in (self.ends(client_first=True), self.ends(client_first=False)):
                for step in (
                    partial(self.send, stream, peer, limit),
                    partial(self.receive, stream, limit),
                    partial(self.deliver, stream, limit),
                ):
                    moved = step() or moved
                    self.settle()
            if not moved:
                return
        raise AssertionError("something moves for ever")


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Make:
    return KINDS[request.param]


@pytest.fixture
def pair(make: Make) -> Pair:
    buffers = ReadBuffers()
    made = Pair(make(True, buffers), make(False, buffers), buffers)
    made.run()
    return made


@pytest.mark.parametrize("client_first", [True, False], ids=["to the bridge", "to the client"])
@pytest.mark.parametrize("limit", [100, 4096, 1 << 20])
def test_bytes_arrive_whole_and_in_order_however_they_are_cut(pair: Pair, client_first: bool, limit: int) -> None:
    stream, peer = pair.ends(client_first=client_first)
    rest = TEXT
    for _ in range(ENDLESS):
        rest = pair.say(stream, rest)
        pair.settle()
        pair.run(limit)
        if not rest:
            break
    assert pair.heard[id(peer)] == TEXT
    assert pair.heard[id(stream)] == b""


@pytest.mark.parametrize("client_first", [True, False], ids=["at the client", "at the bridge"])
def test_a_source_is_not_read_without_bound_while_the_wire_is_blocked(pair: Pair, client_first: bool) -> None:
    stream, _ = pair.ends(client_first=client_first)
    for _ in range(ENDLESS):
        if not pair.say(stream, TEXT) or wants(stream).source:
            continue
        break
    assert not wants(stream).source
    with pytest.raises(LocalProtocolError):
        stream.source_space()


@pytest.mark.parametrize("client_first", [True, False], ids=["at the client", "at the bridge"])
def test_a_sink_that_fails_is_given_nothing_more_and_the_wire_is_read_on(pair: Pair, client_first: bool) -> None:
    peer, stream = pair.ends(client_first=not client_first)
    pair.say(peer, b"before\n")
    pair.send(peer, stream, 1 << 20)
    pair.receive(stream, 1 << 20)
    assert wants(stream).sink_write
    stream.sink_failed(0.0)
    assert not wants(stream).sink_write and not stream.sink_output()
    pair.run()
    pair.say(peer, b"behind\n")
    pair.run()
    assert wants(stream).wire_read and pair.inbound[id(stream)] == b"" and pair.heard[id(stream)] == b""


@pytest.mark.parametrize("client_first", [True, False], ids=["at the client", "at the bridge"])
def test_a_wire_that_takes_nothing_more_is_offered_nothing_and_still_read(pair: Pair, client_first: bool) -> None:
    stream, peer = pair.ends(client_first=client_first)
    pair.say(stream, b"lost\n")
    assert wants(stream).wire_write
    stream.wire_write_failed()
    assert not wants(stream).wire_write
    pair.say(peer, b"heard all the same\n")
    pair.run()
    assert pair.heard[id(stream)] == b"heard all the same\n"


@pytest.mark.parametrize("client_first", [True, False], ids=["at the client", "at the bridge"])
def test_a_wire_that_has_ended_is_not_read_any_more(pair: Pair, client_first: bool) -> None:
    stream, _ = pair.ends(client_first=client_first)
    assert wants(stream).wire_read
    stream.wire_ended()
    assert not wants(stream).wire_read
    with pytest.raises(LocalProtocolError):
        stream.wire_space()


@pytest.mark.parametrize("client_first", [True, False], ids=["at the client", "at the bridge"])
def test_an_idle_stream_asks_for_its_ticks_and_pings_in_time(pair: Pair, client_first: bool) -> None:
    stream, _ = pair.ends(client_first=client_first)
    now = 0.0
    for _ in itertools.takewhile(lambda _: not wants(stream).wire_write, range(ENDLESS)):
        delay = stream.next_tick(now)
        assert 0 <= delay <= PING_INTERVAL
        now += max(delay, 0.001)
        stream.tick(now)
    assert now <= 2 * PING_INTERVAL
