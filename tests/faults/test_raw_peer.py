"""Peers that play the protocol at random against a running bridge: others are served meanwhile, and nothing is left."""

from __future__ import annotations

import time

import pytest

from tests.bed.invariants import assert_nothing_is_left, holdings
from tests.conftest import StartBridge
from tests.faults.peer import Peer, assert_echoes
from tests.faults.raw_peer import play
from tests.faults.seen import health
from tests.server.clients import assert_echo, open_tunnel

PEERS = 6
FULL = [pytest.mark.full, pytest.mark.timeout(500)]


@pytest.mark.parametrize(
    ("seed", "seconds"),
    [("a", 12), *(pytest.param(f"long-{number}", 60, marks=FULL) for number in range(5))],
)
def test_a_bridge_outlives_peers_that_mean_no_good(start: StartBridge, seed: str, seconds: float) -> None:
    bridge = start("--resume-for", "3", "--handshake-timeout", "2", "--resume-memory", "1024")
    with open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel)
    before = holdings(bridge)
    with open_tunnel(bridge.url) as plain:
        peer, _ = Peer.open(bridge.url)
        with peer:
            join = play(bridge.url, seed, PEERS, seconds)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                assert_echo(plain)
                assert_echoes(peer, b"a session that is used as it should be")
                peer.say(f"ack {len(peer.data)}")
                assert health(bridge)["status"] == "ok"
                time.sleep(0.1)
            acts = join()
            assert_echo(plain)
            assert_echoes(peer, b"last words")
            peer.end()
            peer.wait_for_end()
    assert acts > 100
    assert_nothing_is_left(bridge, before)
    log = bridge.process.log()
    assert "Traceback" not in log and " error " not in log, "something was raised that nobody expected"
