"""The check that a bridge has given everything back: it finds what is still held, and passes when nothing is."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.bed.invariants import assert_nothing_is_left, holdings
from tests.bed.tunnels import Bridge
from tests.conftest import StartBridge
from tests.faults.peer import Peer
from tests.faults.seen import wait_for_tunnels
from tests.server.clients import assert_echo, dial, open_tunnel


@contextmanager
def open_plain(bridge: Bridge) -> Iterator[None]:
    with open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel)
        yield


@contextmanager
def leave_a_session(bridge: Bridge) -> Iterator[None]:
    peer, session = Peer.open(bridge.url)
    peer.reset()
    yield
    with Peer(bridge.url, session.resume(1)) as again:
        again.end()
        again.wait_for_end()


@contextmanager
def connect_only(bridge: Bridge) -> Iterator[None]:
    with dial(bridge.url) as sock:
        assert sock.family == socket.AF_INET
        yield


@pytest.mark.parametrize(
    ("hold", "what"),
    [(open_plain, "1 tunnels"), (leave_a_session, "1 detached sessions"), (connect_only, "descriptors")],
    ids=["a tunnel", "a detached session", "a connection"],
)
def test_what_is_held_is_seen_and_its_end_too(
    start: StartBridge, hold: Callable[[Bridge], AbstractContextManager[None]], what: str
) -> None:
    bridge = start()
    with open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel)
    wait_for_tunnels(bridge, 0)
    before = holdings(bridge)
    with hold(bridge), pytest.raises(AssertionError, match=what):
        assert_nothing_is_left(bridge, before, 0.5)
    assert_nothing_is_left(bridge, before)
