"""Only some tunnels splice at once, and those that need it most."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tunnel.client.socket_pair import connected_pair
from tunnel.net.channel import Channel
from tunnel.net.pump import Pump
from tunnel.protocol.byte_stream import ByteStream
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.protocol.sender import PASS_WINDOW
from tunnel.server import splices
from tunnel.server.splices import MOST, Splices

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has splice(2)")


class Tunnels:
    def __init__(self, stack: ExitStack) -> None:
        self.splices = Splices()
        self._stack = stack

    def begin(self, stream: ByteStream | None = None) -> Pump:
        wire, source = (self._channel() for _ in range(2))
        pump = Pump(wire, source, source, stream or plain_stream())
        self.splices.begin(pump, lambda: self.splices.end(pump))
        self._stack.callback(self.splices.end, pump)
        return pump

    def _channel(self) -> Channel:
        near, far = connected_pair()
        self._stack.enter_context(near)
        self._stack.enter_context(far)
        return Channel(near)


def plain_stream() -> PlainStream:
    return PlainStream(client=False, buffers=ReadBuffers(), keepalive=Keepalive(0.0))


def session() -> ResumableStream:
    """A session that has sent its offer."""
    offer = SessionOffer("0" * 32, "0" * 64, 16 << 20, 60)
    stream = ResumableStream(client=False, buffers=ReadBuffers(), now=0.0, offer=offer)
    stream.wire_sent(sum(map(len, stream.wire_output())), 0.0)
    return stream


@pytest.fixture
def tunnels() -> Iterator[Tunnels]:
    with ExitStack() as stack:
        yield Tunnels(stack)


def test_at_the_limit_others_copy(tunnels: Tunnels) -> None:
    pumps = [tunnels.begin() for _ in range(MOST + 1)]
    assert [pump.splice is not None for pump in pumps] == [True] * MOST + [False]
    tunnels.splices.end(pumps[2])
    assert tunnels.begin().splice is not None


def test_one_that_is_not_read_gives_way(tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splices, "IDLE", 30.0)
    pumps = [tunnels.begin() for _ in range(MOST)]
    for number, pump in enumerate(pumps):
        assert pump.splice is not None
        pump.splice.read_at -= 40.0 if number in (3, 5) else 20.0
        pump.splice.read_at -= number
    assert tunnels.begin().splice is not None
    assert [number for number, pump in enumerate(pumps) if pump.splice is None] == [5]


def test_descriptors_are_given_back_when_they_are_needed(tunnels: Tunnels) -> None:
    assert not tunnels.splices.end_one()
    before = len(os.listdir("/proc/self/fd"))
    tunnel = tunnels.begin()
    assert tunnels.splices.end_one() and tunnel.splice is None
    assert not tunnels.splices.end_one()
    assert len(os.listdir("/proc/self/fd")) == before + 4  # the sockets of the tunnel


def test_without_descriptors_there_is_no_splice(tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pipe", lambda: (_ for _ in ()).throw(OSError(24, "Too many open files")))
    assert tunnels.begin().splice is None
    tunnels.splices.end(tunnels.begin())


def test_a_session_that_may_not_splice_reserves_no_memory(tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splices, "IDLE", 60.0)
    for _ in range(MOST):
        stream = session()
        assert tunnels.begin(stream).splice is not None
        assert stream.session.memory >= PASS_WINDOW
    stream = session()
    assert tunnels.begin(stream).splice is None
    assert stream.session.memory == 0
    assert tunnels.splices.end_one()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", lambda: (_ for _ in ()).throw(OSError(24, "Too many open files")))
        assert tunnels.begin().splice is None
    monkeypatch.setattr(splices, "RETRY", 60.0)
    assert tunnels.begin(stream).splice is None, "there were no pipes a moment ago"
    assert stream.session.memory == 0
