"""The timers of a plain tunnel: when it pings, whom it gives up, and how often it looks at the clock."""

from __future__ import annotations

import pytest

from tunnel.errors import ConnectionLost
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT, STALL_LIMIT, Keepalive

BEGAN = 1000.0  # so that a clock which is not at 0 makes a difference


def test_it_pings_after_the_interval_and_once_only() -> None:
    keepalive = Keepalive(BEGAN)
    assert not keepalive.ping_due(BEGAN + PING_INTERVAL - 0.1, reading=True)
    assert keepalive.ping_due(BEGAN + PING_INTERVAL, reading=True)
    assert not keepalive.ping_due(BEGAN + PING_INTERVAL + 1.0, reading=True)


def test_a_ping_must_bring_a_sign_of_life_within_the_timeout() -> None:
    keepalive = Keepalive(BEGAN)
    pinged = BEGAN + PING_INTERVAL + 5.0
    assert keepalive.ping_due(pinged, reading=True)
    assert not keepalive.ping_due(pinged + PING_TIMEOUT - 0.1, reading=True)
    with pytest.raises(ConnectionLost) as caught:
        keepalive.ping_due(pinged + PING_TIMEOUT, reading=True)
    assert caught.value.code == "silent"
    seconds = f"{pinged + PING_TIMEOUT - BEGAN:g}"
    assert str(caught.value) == f"connection lost: nothing was received from the peer for {seconds} s"


def test_what_is_heard_puts_the_next_ping_off() -> None:
    keepalive = Keepalive(BEGAN)
    assert keepalive.ping_due(BEGAN + 30.0, reading=True)
    keepalive.heard(BEGAN + 40.0)
    assert keepalive.heard_at == BEGAN + 40.0
    assert not keepalive.ping_due(BEGAN + 40.0 + PING_INTERVAL - 0.1, reading=True)
    assert keepalive.ping_due(BEGAN + 40.0 + PING_INTERVAL, reading=True)


def test_an_end_that_does_not_read_pings_at_the_interval_and_judges_nobody() -> None:
    keepalive = Keepalive(BEGAN, 10.0, 20.0)
    pings = [now for now in range(0, 100, 5) if keepalive.ping_due(BEGAN + now, reading=False)]
    assert pings == list(range(10, 100, 10))
    assert keepalive.heard_at == BEGAN + 95.0, "the time in which it could not hear does not count"


def test_a_write_that_is_blocked_has_a_limit() -> None:
    keepalive = Keepalive(BEGAN)
    keepalive.check_write(BEGAN + STALL_LIMIT - 0.1)
    with pytest.raises(ConnectionLost) as caught:
        keepalive.check_write(BEGAN + STALL_LIMIT)
    assert (caught.value.code, caught.value.fields) == ("stalled", {"seconds": STALL_LIMIT})
    keepalive.wrote(BEGAN + 100.0)
    keepalive.check_write(BEGAN + 100.0 + STALL_LIMIT - 0.1)


def test_silence_has_the_limit_that_it_is_given() -> None:
    keepalive = Keepalive(BEGAN)
    keepalive.check_silence(BEGAN + 59.9, 60.0)
    with pytest.raises(ConnectionLost) as caught:
        keepalive.check_silence(BEGAN + 60.0, 60.0)
    assert (caught.value.code, caught.value.fields) == ("silent", {"seconds": 60.0})


@pytest.mark.parametrize(("interval", "timeout"), [(20.0, 60.0), (60.0, 20.0)])
def test_the_clock_is_looked_at_four_times_in_the_shorter_limit(interval: float, timeout: float) -> None:
    assert Keepalive(BEGAN, interval, timeout).tick == 5.0
