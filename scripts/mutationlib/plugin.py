"""A pytest plugin: each test does the same every time, and a mutant that loops is noticed soon."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from mutmut.state import state

TIMED_OUT = 36  # the exit status that mutmut takes for a mutant which did not end
# They take seconds, and many more under mutmut: what they notice, others must notice, too.
SLOW = (
    "::test_a_frame_for_each_byte_costs_nothing",
    "::test_a_small_windows_acks_cost_nothing",
    "::test_however_the_bytes_are_cut_the_outcome_is_the_same",
    "::test_pings_pongs_and_ping_lines_may_come_for_hours",
)
_LEAST = 1.5  # seconds of processor time that a test may take in any case …
_FACTOR = 8.0  # … and how many times as long as without a mutant


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Not the folders of all others, which several processes would clear at once.
    config.option.basetemp = str(Path.cwd().parent / f"temporary-{os.getpid()}")
    settings.register_profile(
        "mutation",
        parent=settings(),
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),  # whether a test fails matters, not the shortest way to it
    )
    settings.load_profile("mutation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not any(name in item.nodeid for name in SLOW)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    durations: dict[str, float] = state().duration_by_test
    known = durations.get(item.nodeid)
    if known:  # not while the durations are measured
        signal.signal(signal.SIGPROF, lambda number, frame: os._exit(TIMED_OUT))
        signal.setitimer(signal.ITIMER_PROF, _LEAST + _FACTOR * known)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
