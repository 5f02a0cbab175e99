"""The limit of open files: raised to its maximum, and the old value is remembered."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator

import pytest

from tunnel.net.descriptors import (
    WINDOWS_LIMIT,
    descriptor_limit,
    note_soft_limit,
    raise_descriptor_limit,
    soft_limit_at_start,
)


@pytest.fixture(autouse=True)
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    at_start = soft_limit_at_start()
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    note_soft_limit(at_start)


def test_the_soft_limit_is_raised_to_the_hard_one(limits: tuple[int, int]) -> None:
    soft, hard = min(limits[0], 200), limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptor_limit() == soft
    raised = raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert raised == descriptor_limit() == (sys.maxsize if hard == resource.RLIM_INFINITY else hard)
    assert raise_descriptor_limit() == raised


def test_what_the_system_does_not_grant_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int]
) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))

    def refuse(kind: int, wanted: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    with monkeypatch.context() as patch:
        patch.setattr(resource, "setrlimit", refuse)
        assert raise_descriptor_limit() == 200


def test_without_a_limit_there_are_as_many_as_can_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda kind: unlimited)
        assert descriptor_limit() == sys.maxsize


def test_what_the_limit_was_before_an_exec_can_be_handed_on() -> None:
    note_soft_limit(77)
    assert soft_limit_at_start() == 77


def test_windows_has_one_limit_for_all_which_select_sets(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int]
) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        assert descriptor_limit() == raise_descriptor_limit() == WINDOWS_LIMIT == 512
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
