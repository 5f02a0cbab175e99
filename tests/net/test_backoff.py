"""Delays between attempts: they grow up to a limit, with jitter."""

from __future__ import annotations

import os

import pytest

from tunnel.net.backoff import backoff, jitter


def delays(failures: int) -> list[float]:
    return [backoff(failures, first=0.25, longest=10.0) for _ in range(100)]


def test_the_delay_doubles_up_to_the_limit() -> None:
    for failures, whole in enumerate((0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0)):
        assert all(whole / 2 <= delay <= whole for delay in delays(failures))


def test_the_growth_can_be_chosen() -> None:
    assert 1.125 <= backoff(2, first=1.0, longest=10.0, growth=1.5) <= 2.25


def test_it_is_jittered() -> None:
    assert len(set(delays(3))) > 10


def test_the_jitter_is_from_a_half_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for data, factor in ((b"\0\0", 0.5), (b"\x80\0", 0.75), (b"\xff\xff", 1 - 2**-17)):
        monkeypatch.setattr(os, "urandom", lambda n, data=data: data)
        assert jitter() == factor


def test_any_number_of_failures_has_a_delay() -> None:
    assert 5.0 <= backoff(1_000_000, first=0.25, longest=10.0) <= 10.0
