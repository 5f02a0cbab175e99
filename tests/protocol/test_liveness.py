"""How soon the connection under a resumable tunnel is found dead, and what is asked before."""

from __future__ import annotations

import itertools

import pytest

from tunnel.protocol.liveness import (
    ACK_LIMIT,
    PROBE_LIMIT,
    SILENCE_AFTER_REQUEST,
    SILENCE_BEFORE_REQUEST,
    Liveness,
)


def course(
    liveness: Liveness, end: float, *, waiting: bool = False, heard_every: float = 0.0
) -> list[tuple[float, str]]:
    """What is done from second 0 to ``end``, as (second, action), if it is looked at whenever that is asked for."""
    done: list[tuple[float, str]] = []
    now, heard = 0.0, heard_every
    while now < end:
        action = liveness.check(now, waiting=waiting)
        if action:
            done.append((round(now, 3), action))
        if action == "dead":
            break
        at = max(liveness.next_check(now, waiting=waiting), now + 0.001)
        if heard_every and at >= heard:
            now, heard = heard, heard + heard_every
            liveness.heard(now)
        else:
            now = at
    return done


def test_with_something_outstanding_silence_is_death_in_seconds() -> None:
    asked, dead = SILENCE_BEFORE_REQUEST, SILENCE_BEFORE_REQUEST + SILENCE_AFTER_REQUEST
    assert course(Liveness(0.0, 20.0, 60.0), 100, waiting=True) == [(asked, "request-ack"), (dead, "dead")]
    assert dead < 15


def test_a_receiver_whose_data_stop_coming_asks_as_soon() -> None:
    liveness = Liveness(0.0, 20.0, 60.0)
    liveness.data_came()
    assert [action for _, action in course(liveness, 100)] == ["request-ack", "dead"]


def test_a_receiver_asks_once_and_is_content_with_the_answer() -> None:
    liveness = Liveness(0.0, 20.0, 60.0)
    liveness.data_came()
    assert liveness.check(5.0, waiting=False) == "request-ack"
    liveness.heard(5.1)
    assert liveness.check(24.0, waiting=False) == ""
    assert liveness.check(25.1, waiting=False) == "ping"


def test_an_idle_connection_is_pinged_at_the_interval() -> None:
    assert course(Liveness(0.0, 20.0, 60.0), 100) == [(20.0, "ping"), (20.0 + SILENCE_AFTER_REQUEST, "dead")]


def test_the_user_s_limits_hold_where_they_are_shorter() -> None:
    assert course(Liveness(0.0, 2.0, 1.0), 100, waiting=True) == [(2.0, "request-ack"), (3.0, "dead")]
    assert course(Liveness(0.0, 2.0, 1.0), 100) == [(2.0, "ping"), (3.0, "dead")]


def test_any_byte_keeps_the_connection_alive() -> None:
    assert course(Liveness(0.0, 20.0, 60.0), 100, heard_every=4.0) == []


def test_a_hop_that_talks_by_itself_but_never_acknowledges_is_dead_too() -> None:
    done = course(Liveness(0.0, 20.0, 60.0), 200, waiting=True, heard_every=4.0)
    at, action = done[-1]
    assert action == "dead" and ACK_LIMIT <= at <= ACK_LIMIT + 5
    asked = [at for at, action in done if action == "request-ack"]
    assert asked and min(asked) >= ACK_LIMIT / 2


def test_progress_of_acks_forgives() -> None:
    liveness = Liveness(0.0, 20.0, 60.0)
    for second in range(0, 300, 3):
        liveness.heard(float(second))
        if second % 30 == 0:
            liveness.acknowledged()
        assert liveness.check(second + 0.5, waiting=True) != "dead"


def test_a_probe_must_be_answered_at_once() -> None:
    liveness = Liveness(0.0, 20.0, 60.0)
    liveness.probed(100.0)
    assert liveness.check(100.0 + PROBE_LIMIT - 0.1, waiting=False) == ""
    assert liveness.check(100.0 + PROBE_LIMIT, waiting=False) == "dead"


def test_what_was_asked_on_a_new_connection_is_answered_soon_or_it_is_dead() -> None:
    liveness = Liveness(100.0, 20.0, 60.0)
    liveness.asked(100.0)
    assert liveness.next_check(100.0, waiting=False) == 100.0 + SILENCE_AFTER_REQUEST
    assert liveness.check(100.0 + SILENCE_AFTER_REQUEST - 0.1, waiting=False) == ""
    assert liveness.check(100.0 + SILENCE_AFTER_REQUEST, waiting=False) == "dead"
    liveness.heard(101.0)
    assert liveness.check(101.0 + SILENCE_AFTER_REQUEST, waiting=False) == ""


def test_the_time_of_the_next_look_is_when_something_may_be_due() -> None:
    liveness = Liveness(100.0, 20.0, 60.0)
    assert liveness.next_check(100.0, waiting=False) == 120.0
    assert liveness.next_check(100.0, waiting=True) == 100.0 + SILENCE_BEFORE_REQUEST
    liveness.heard(130.0)
    assert liveness.next_check(130.0, waiting=False) == 150.0
    liveness.data_came()
    assert liveness.next_check(130.0, waiting=False) == 130.0 + SILENCE_BEFORE_REQUEST
    assert liveness.check(136.0, waiting=False) == "request-ack"
    assert liveness.next_check(136.0, waiting=False) == 136.0 + SILENCE_AFTER_REQUEST


def test_a_peer_that_talks_without_an_ack_is_asked_from_half_of_the_limit_on_and_once_a_second_at_most() -> None:
    liveness = Liveness(0.0, 20.0, 60.0)
    assert liveness.next_check(0.0, waiting=True) == SILENCE_BEFORE_REQUEST
    asked = []
    for tenth in range(600):
        now = tenth / 10
        liveness.heard(now)
        asked += [now] if liveness.check(now, waiting=True) else []
        assert liveness.next_check(now, waiting=True) == min(
            now + SILENCE_BEFORE_REQUEST, max(ACK_LIMIT / 2, now + 1.0)
        )
    assert asked == []
    liveness = Liveness(0.0, 20.0, 60.0)
    asked = []
    for half in range(119):
        now = half / 2
        if half % 3 == 0:
            liveness.heard(now)
        asked += [now] if liveness.check(now, waiting=True) == "request-ack" else []
    assert asked[0] == ACK_LIMIT / 2 + 1.0 and min(later - at for at, later in itertools.pairwise(asked)) == 1.5
    assert liveness.check(ACK_LIMIT, waiting=True) == "dead"


def test_the_limit_of_an_ack_begins_when_something_is_outstanding_and_anew_with_each_ack() -> None:
    liveness = Liveness(0.0, 1000.0, 1000.0)

    def hears(until: float, since: float, *, waiting: bool) -> str:
        action = ""
        for second in range(int(since), int(until)):
            liveness.heard(float(second))
            action = liveness.check(float(second), waiting=waiting)
        return action

    assert hears(200.0, 0.0, waiting=False) == ""
    assert hears(250.0, 200.0, waiting=True) != "dead"
    liveness.acknowledged()
    assert hears(310.0, 250.0, waiting=True) != "dead"
    assert hears(312.0, 310.0, waiting=True) == "dead"


def test_what_is_settled_in_between_does_not_count_as_waiting() -> None:
    liveness = Liveness(0.0, 1000.0, 1000.0)
    for second in range(200):
        liveness.heard(float(second))
        assert liveness.check(float(second), waiting=second % 50 != 0) != "dead"
        liveness.next_check(float(second), waiting=second % 50 != 0)


def test_the_answer_to_a_probe_makes_the_usual_limits_hold_again() -> None:
    liveness = Liveness(0.0, 20.0, 60.0)
    liveness.probed(1.0)
    assert liveness.next_check(1.0, waiting=False) == 1.0 + PROBE_LIMIT
    liveness.heard(2.0)
    assert liveness.check(22.0, waiting=False) == "ping"
    assert liveness.check(22.0 + SILENCE_AFTER_REQUEST - 0.1, waiting=False) == ""
    assert liveness.check(22.0 + SILENCE_AFTER_REQUEST, waiting=False) == "dead"


@pytest.mark.parametrize("timeout", [SILENCE_AFTER_REQUEST - 1.0, SILENCE_AFTER_REQUEST + 1.0])
def test_the_users_timeout_can_only_shorten_the_wait(timeout: float) -> None:
    limit = min(timeout, SILENCE_AFTER_REQUEST)
    assert course(Liveness(0.0, 20.0, timeout), 100) == [(20.0, "ping"), (20.0 + limit, "dead")]


def test_an_end_that_got_its_ack_does_not_ask_again() -> None:
    liveness = Liveness(0.0, 20.0, 60.0)
    liveness.data_came()
    assert liveness.check(5.0, waiting=False) == "request-ack"
    liveness.heard(6.0)
    assert liveness.next_check(6.0, waiting=False) == 26.0
