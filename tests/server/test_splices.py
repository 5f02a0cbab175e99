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
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.server import splices
from tunnel.server.splices import MOST, Splices

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has splice(2)")


class Tunnels:
    def __init__(self, stack: ExitStack) -> None:
        self.splices = Splices()
        self._stack = stack

    def begin(self) -> Pump:
        wire, source = (self._channel() for _ in range(2))
        pump = Pump(wire, source, source, PlainStream(client=False, buffers=ReadBuffers(), keepalive=Keepalive(0.0)))
        self.splices.begin(pump, lambda: self.splices.end(pump))
        self._stack.callback(self.splices.end, pump)
        return pump

    def _channel(self) -> Channel:
        near, far = connected_pair()
        self._stack.enter_context(near)
        self._stack.enter_context(far)
        return Channel(near)


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
