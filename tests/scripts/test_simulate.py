"""The simulation of many sandboxes: it keeps every tunnel, repeats itself, and is what the documentation says."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulatelib.fleet import Costs, Fleet
from simulatelib.report import scenarios
from simulatelib.storm import Outcome, Scenario, Storm
from tests.bed.processes import Bed
from tunnel.client import outage as client_outage
from tunnel.net import backoff

ROOT = Path(__file__).parents[2]

SIMULATE = str(ROOT / "scripts" / "simulate")
SMALL = Fleet(sandboxes=50, tunnels=500, gateways=4)


def simulate(fleet: Fleet, scenario: Scenario, seed: int = 1) -> Outcome:
    return Storm(fleet, Costs.recorded(), scenario, seed).run()


restarts = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 60), st.floats(0, 900)).map(lambda x: (x[0], x[1], x[1] + x[2])),
    max_size=3,
    unique_by=lambda restart: restart[0],
)


@settings(max_examples=40)
@given(restarts=restarts, graceful=st.booleans(), seed=st.integers(0, 1000))
def test_no_tunnel_is_lost_or_doubled(restarts: list[tuple[int, float, float]], graceful: bool, seed: int) -> None:
    fleet = Fleet(sandboxes=5, tunnels=60, gateways=3)
    outcome = simulate(fleet, Scenario("any", tuple(restarts), graceful=graceful), seed)
    assert outcome.resumed + outcome.given_up == outcome.cut_tunnels
    assert len(outcome.durations) + outcome.given_up == outcome.cuts
    assert all(0 < duration <= fleet.reconnect_for + fleet.dial_timeout for duration in outcome.durations)


def test_a_tunnel_that_finds_no_gateway_gives_up_when_a_client_does() -> None:
    longer = SMALL.reconnect_for + 60
    away = tuple((gateway, 1.0, 1.0 + longer) for gateway in range(SMALL.gateways))
    outcome = simulate(SMALL, Scenario("for good", away))
    assert (outcome.given_up, outcome.resumed, outcome.told) == (SMALL.tunnels, 0, SMALL.tunnels)


def test_the_schedule_is_the_clients_own(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = scenarios(SMALL)[0]
    usual = simulate(SMALL, crash).back_after()[50]
    monkeypatch.setattr(client_outage, "FIRST_DELAY", 100 * client_outage.FIRST_DELAY)
    assert simulate(SMALL, crash).back_after()[50] > 10 * usual


def test_the_same_seed_gives_the_same_and_another_seed_does_not() -> None:
    everything = scenarios(SMALL)[1]
    assert simulate(SMALL, everything, 1) == simulate(SMALL, everything, 1)
    assert simulate(SMALL, everything, 1) != simulate(SMALL, everything, 2)
    assert vars(backoff)["os"] is os, "the client has its own random numbers again"


def test_a_queue_that_is_too_long_drops_and_times_out() -> None:
    fleet = Fleet(sandboxes=50, tunnels=3000, gateways=2, accept_backlog=10, dial_timeout=2.0)
    slow = dataclasses.replace(Costs.recorded(), gateway_dial_seconds=0.05)
    outcome = Storm(fleet, slow, scenarios(fleet)[1], 1).run()
    assert outcome.timed_out > 0 and outcome.given_up == 0


@pytest.mark.timeout(400)
def test_the_documentation_has_the_figures_that_it_prints(bed: Bed) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    printed = bed.check(SIMULATE, seconds=300).text
    _, begin, rest = page.partition("<!-- figures of scripts/simulate -->\n")
    figures, end, _ = rest.partition("<!-- end of the figures -->\n")
    assert begin and end and figures == printed, "scripts/simulate --write puts them there"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--gateways", "1"), "error: --gateways 1: from 2 to 1000"),
        (("--tunnels", "many"), "error: argument --tunnels: invalid int value: 'many'"),
        (("--record",), "error: --record goes with --measure"),
    ],
)
def test_a_wrong_option_is_reported(bed: Bed, options: tuple[str, ...], line: str) -> None:
    finished = bed.run(SIMULATE, *options)
    assert finished.status == 2 and line in finished.stderr


@pytest.mark.timeout(400)
def test_costs_are_measured_on_real_processes(bed: Bed) -> None:
    small = ("--sandboxes", "10", "--tunnels", "100", "--gateways", "2")
    finished = bed.check(SIMULATE, "--measure", *small, seconds=350)
    assert "| sessions resumed | 50 | 100 | 100 | 100 |" in finished.text
    assert "A bridge takes " in " ".join(finished.text.split()) and " and 2 descriptors more" in finished.text
