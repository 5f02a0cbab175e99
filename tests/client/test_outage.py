"""When the client dials again after an outage, and which answers end the session."""

from __future__ import annotations

import pytest

from tunnel.client.outage import (
    CREDENTIALS_LIMIT,
    FIRST_DELAY,
    GRACE,
    LONGEST_DELAY,
    LONGEST_RETRY_AFTER,
    STALE_LIMIT,
    Outage,
    lost_line,
    span,
)
from tunnel.errors import ConnectionLost, DialError, TunnelError, UpgradeRefused, UsageError

FROM_BRIDGE = (("wstunnel-error", "some-code"),)


def refused(status: int, *headers: tuple[str, str]) -> UpgradeRefused:
    return UpgradeRefused("http-status", status=status, headers=headers, url="wss://box", message="no")


def outage(limit: float = 600.0) -> Outage:
    return Outage(100.0, limit, "reset", epoch=0)


@pytest.mark.parametrize(
    ("error", "cause", "exit_code"),
    [
        (refused(410, *FROM_BRIDGE), "session-gone", 69),
        (refused(400, *FROM_BRIDGE), "session-gone", 69),
        (refused(401, *FROM_BRIDGE), "session-refused", 77),
        (refused(403, *FROM_BRIDGE), "session-refused", 77),
    ],
)
def test_a_refusal_of_the_bridge_itself_is_final(error: TunnelError, cause: str, exit_code: int) -> None:
    with pytest.raises(TunnelError) as raised:
        outage().failed(error, 101.0)
    assert raised.value.code == cause and raised.value.exit_code == exit_code
    assert str(raised.value).startswith("the session is over") and str(error) in str(raised.value)


@pytest.mark.parametrize("status", [404, 410, 429, 500, 502, 503, 504])
def test_the_same_status_from_an_edge_is_not(status: int) -> None:
    subject = outage()
    for _ in range(50):
        subject.failed(refused(status), 101.0)
    assert subject.next_at > 101.0


@pytest.mark.parametrize(
    "error",
    [
        DialError("dns", host="box", reason="no network"),
        DialError("tcp-refused", address="192.0.2.1:443"),
        DialError("tls", host="box", reason="eof"),
        DialError("answer-timeout", hop="box", seconds=15.0),
        DialError("not-http", url="wss://box", reason="a captive portal"),
    ],
)
def test_the_network_may_fail_as_often_as_it_likes(error: DialError) -> None:
    subject = outage()
    for _ in range(50):
        subject.failed(error, 101.0)
    assert subject.reason == str(error)


@pytest.mark.parametrize(
    "error",
    [
        refused(401),
        refused(403),
        refused(407),
        DialError("proxy-auth", proxy="p", reason="no"),
        DialError("tls-refused", host="h", reason="the client certificate has expired"),
        DialError("tls-client-cert", host="h", reason="it requires a client certificate, or a different one"),
        UsageError("the token file is empty"),
    ],
)
def test_credentials_that_are_refused_on_the_way_are_tried_three_times(error: TunnelError) -> None:
    subject = outage()
    for _ in range(CREDENTIALS_LIMIT - 1):
        subject.failed(error, 101.0)
    with pytest.raises(ConnectionLost) as raised:
        subject.failed(error, 101.0)
    assert raised.value.code == "session-refused" and raised.value.__cause__ is error


def test_only_refusals_in_a_row_count() -> None:
    subject = outage()
    for _ in range(10):
        subject.failed(refused(401), 101.0)
        subject.failed(refused(502), 101.0)
        subject.failed(refused(409, *FROM_BRIDGE), 101.0)


def test_a_stale_epoch_is_raised_above_the_bridge_s() -> None:
    subject = outage()
    assert subject.begin_attempt() == 1
    subject.failed(refused(409, *FROM_BRIDGE, ("wstunnel-epoch", "41")), 101.0)
    assert subject.begin_attempt() == 42
    for _ in range(STALE_LIMIT - 2):
        subject.failed(refused(409, *FROM_BRIDGE), 101.0)
    with pytest.raises(ConnectionLost) as raised:
        subject.failed(refused(409, *FROM_BRIDGE), 101.0)
    assert raised.value.code == "session-gone"


def test_attempts_come_later_and_later_but_never_much_later() -> None:
    subject, now = outage(), 100.0
    assert subject.next_at <= now + FIRST_DELAY
    delays = []
    for _ in range(12):
        now = subject.next_at
        subject.failed(refused(502), now)
        delays.append(subject.next_at - now)
    assert all(FIRST_DELAY / 2 <= delay <= LONGEST_DELAY for delay in delays)
    assert delays[0] <= FIRST_DELAY and delays[-1] >= LONGEST_DELAY / 2


def test_two_clients_do_not_come_at_the_same_time() -> None:
    assert len({outage().next_at for _ in range(20)}) > 10


def test_a_server_may_ask_to_wait_but_not_for_long() -> None:
    subject = outage()
    subject.failed(refused(503, ("retry-after", "30")), 101.0)
    assert subject.next_at == 131.0
    subject.failed(refused(503, ("retry-after", "3600")), 101.0)
    assert subject.next_at == 101.0 + LONGEST_RETRY_AFTER
    subject.failed(refused(503, ("retry-after", "Tue, 24 Nov 2026 12:00:00 GMT")), 101.0)
    assert subject.next_at < 101.0 + LONGEST_DELAY


def test_a_connection_that_is_lost_again_at_once_does_not_make_a_new_outage() -> None:
    subject = outage()
    for _ in range(11):  # until the delay is the longest one
        subject.lost_again(200.0, "it was closed")
    assert subject.next_at >= 200.0 + LONGEST_DELAY / 2
    assert subject.deadline == 700.0


def test_it_ends_when_its_limit_is_over() -> None:
    subject = outage(limit=60.0)
    subject.check(159.9)
    subject.failed(refused(502), 159.9)
    with pytest.raises(ConnectionLost) as raised:
        subject.check(160.0)
    assert raised.value.exit_code == 75
    line = "the session is over: gave up after 60 s without a connection: wss://box answered 502: no"
    assert str(raised.value) == line


def test_a_long_outage_is_reported_once_with_its_limit_and_once_when_it_is_over() -> None:
    subject = outage()
    assert subject.notice(109.9) == "" and subject.over(109.9) == ""
    assert subject.notice(110.0) == "connection lost, trying again for 10 min (reset)"
    for now in (110.1, 200.0):
        subject.lost_again(now, "it was closed")
        assert subject.notice(now) == ""
    assert subject.over(131.4) == "connected again after 31 s"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.2 s"), (9.0, "9 s"), (31.4, "31 s"), (119.0, "119 s"), (120.0, "2 min"), (600.0, "10 min"),
     (3600.0, "60 min"), (7200.0, "2 h"), (86400.0, "24 h")],
)  # fmt: skip
def test_a_time_is_written_as_people_say_it(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_the_reason_of_a_loss_is_not_reported_twice() -> None:
    lost = ConnectionLost("lost", reason="Connection reset by peer")
    assert lost_line(lost, 600.0) == "connection lost, trying again for 10 min (Connection reset by peer)"


def test_a_sleep_gives_time_and_an_attempt_at_once() -> None:
    subject = outage(limit=60.0)
    for _ in range(8):
        subject.failed(refused(502), 101.0)
    subject.slept(5000.0)
    assert subject.next_at == 5000.0
    subject.check(5000.0 + GRACE - 1)
    with pytest.raises(ConnectionLost):
        subject.check(5000.0 + GRACE)
