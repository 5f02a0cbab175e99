"""The soak in short: real sessions while everything around them fails, and nothing is lost or left behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished

SOAK = str(Path(__file__).parents[2] / "scripts" / "soak")


def soak(bed: Bed, minutes: float, *options: str) -> Finished:
    finished = bed.run(SOAK, "--minutes", str(minutes), *options, seconds=60 * minutes + 300)
    assert finished.status == 0, finished.last_words()
    assert "Lost: nothing\nLeft behind: nothing\n" in finished.text
    return finished


def count(finished: Finished, name: str) -> int:
    found = re.search(rf"^ *(\d+)  {name}\b", finished.text, re.MULTILINE)
    assert found, finished.text
    return int(found[1])


@pytest.mark.timeout(400)
def test_half_a_minute_of_trouble_loses_nothing(bed: Bed) -> None:
    finished = soak(bed, 0.5)
    assert re.match(r"seed \d+\n", finished.text)
    assert sum(count(finished, name) for name in ("cut", "stall", "move the clock", "restart in place")) > 0


@pytest.mark.full
@pytest.mark.timeout(600)
def test_three_minutes_of_trouble_lose_nothing(bed: Bed) -> None:
    finished = soak(bed, 3)
    for name in ("cut", "stall", "refuse connections", "stop a bridge", "stop a client", "kill a client",
                 "move the clock", "restart in place"):  # fmt: skip
        assert count(finished, name) > 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--minutes", "0.1"), "error: --minutes 0.1: from 0.5 to 1440"),
        (("--seed", "today"), "error: argument --seed: invalid int value: 'today'"),
        (("--without", "sleep"), "error: argument --without: invalid choice: 'sleep'"),
    ],
)
def test_a_wrong_option_is_reported(bed: Bed, options: tuple[str, ...], line: str) -> None:
    finished = bed.run(SOAK, *options)
    assert finished.status == 2 and line in finished.stderr
