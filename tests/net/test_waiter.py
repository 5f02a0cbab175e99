"""Waiting for descriptors: what is ready for what, for how long, and with each of the two ways that systems have."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tunnel.net.waiter import READ, WRITE, Waiter

SOON = 20.0  # seconds; nothing here waits so long


@pytest.fixture(params=["poll", "select"])
def waiter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Waiter:
    if request.param == "select":
        monkeypatch.setattr(sys, "platform", "darwin")
    return Waiter()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_a_descriptor_is_ready_for_what_can_be_done_of_what_is_wanted(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    fd = one.fileno()
    assert waiter.wait({fd: READ}, 0) == {}
    assert waiter.wait({fd: WRITE}, SOON) == {fd: WRITE}
    assert waiter.wait({fd: READ | WRITE}, SOON) == {fd: WRITE}
    other.send(b"x")
    assert waiter.wait({fd: READ | WRITE}, SOON) == {fd: READ | WRITE}
    assert waiter.wait({fd: READ}, SOON) == {fd: READ}
    assert waiter.wait({fd: WRITE}, SOON) == {fd: WRITE}


def test_only_what_is_wanted_now_is_looked_at(waiter: Waiter, pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    other.send(b"x")
    both = {one.fileno(): READ, other.fileno(): READ}
    assert waiter.wait(both, SOON) == {one.fileno(): READ}
    assert waiter.wait({other.fileno(): READ}, 0) == {}
    assert waiter.wait(both, SOON) == {one.fileno(): READ}
    assert waiter.wait({}, 0) == {}
    assert waiter.wait({one.fileno(): READ}, SOON) == {one.fileno(): READ}


def test_a_peer_that_has_hung_up_is_ready_for_what_is_wanted(
    waiter: Waiter, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    other.close()
    assert waiter.wait({one.fileno(): READ}, SOON) == {one.fileno(): READ}
    assert waiter.wait({one.fileno(): READ | WRITE}, SOON) == {one.fileno(): READ | WRITE}


def test_a_pipe_that_nobody_reads_is_ready_to_be_written() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert Waiter().wait({writer: WRITE}, SOON) == {writer: WRITE}
    finally:
        os.close(writer)


def test_it_waits_until_something_is_ready(waiter: Waiter, pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    sender = threading.Timer(0.05, other.send, [b"x"])
    sender.start()
    assert waiter.wait({one.fileno(): READ}, SOON) == {one.fileno(): READ}
    sender.join()


@pytest.mark.parametrize("seconds", [0.0004, 0.02])
def test_it_never_wakes_too_early(waiter: Waiter, pair: tuple[socket.socket, socket.socket], seconds: float) -> None:
    began = time.monotonic()
    assert waiter.wait({pair[0].fileno(): READ}, seconds) == {}
    assert time.monotonic() - began >= seconds


def test_no_time_is_too_long_for_the_system(waiter: Waiter, pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    other.send(b"x")
    for seconds in (1e9, float("inf")):
        assert waiter.wait({one.fileno(): READ}, seconds) == {one.fileno(): READ}


def test_poll_is_told_what_has_changed_and_a_time_that_is_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, ...]] = []

    class Recording:
        def register(self, fd: int, events: int) -> None:
            told.append((fd, events))

        def unregister(self, fd: int) -> None:
            told.append((fd,))

        def poll(self, milliseconds: int) -> list[tuple[int, int]]:
            told.append((-1, milliseconds))
            return []

    monkeypatch.setattr(select, "poll", Recording)
    waiter = Waiter()
    waiter.wait({3: READ, 4: READ}, 0)
    waiter.wait({3: READ, 4: READ}, 0.0001)
    waiter.wait({3: READ, 4: WRITE}, 1.9999)
    waiter.wait({3: READ}, 3600)
    assert told == [(3, READ), (4, READ), (-1, 0), (-1, 1), (4, WRITE), (-1, 2000), (4,), (-1, 3_600_001)]


def test_linux_has_no_limit_of_descriptors_as_select_has(pair: tuple[socket.socket, socket.socket]) -> None:
    high = fcntl.fcntl(pair[0], fcntl.F_DUPFD, 1500)
    try:
        assert Waiter().wait({high: WRITE}, SOON) == {high: WRITE}
    finally:
        os.close(high)


def test_where_poll_was_taken_away_it_waits_all_the_same(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    monkeypatch.delattr(select, "poll")
    assert Waiter().wait({pair[0].fileno(): WRITE}, SOON) == {pair[0].fileno(): WRITE}
