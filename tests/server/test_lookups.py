"""Name lookups: a hanging one keeps a thread, but neither the caller nor the end of the loop waits for it."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from tests.bed.processes import ticks
from tunnel.errors import DialError
from tunnel.net.address import Client
from tunnel.server.address_target import parse_target
from tunnel.server.lookups import MOST, look_up

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 22))]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The name server answers once this is set."""
    event = threading.Event()

    def resolve(host: str, port: int, **options: Any) -> Any:
        event.wait(100)
        return FOUND

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return event


def threads() -> int:
    return sum(thread.name == "lookup" for thread in threading.enumerate())


def test_the_end_of_a_loop_does_not_wait_for_a_lookup(answered: threading.Event) -> None:
    async def give_up() -> None:
        async with asyncio.timeout(0.1):
            await look_up("box.test", 22)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert threads() == 1
    answered.set()
    for _ in ticks(20):
        if not threads():
            return
    raise AssertionError("it is still there")


def test_only_a_few_lookups_run_at_a_time_and_the_others_follow(answered: threading.Event) -> None:
    async def ask() -> None:
        lookups = [asyncio.create_task(look_up("box.test", 22)) for _ in range(3 * MOST)]
        for lookup in lookups[: MOST // 2]:
            await asyncio.sleep(0)
            lookup.cancel()
        await asyncio.sleep(0.1)
        assert threads() == MOST
        answered.set()
        outcomes = await asyncio.gather(*lookups, return_exceptions=True)
        assert outcomes.count(FOUND) == len(lookups) - MOST // 2

    asyncio.run(ask())


def test_without_a_thread_a_target_cannot_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def dial() -> None:
        monkeypatch.setattr(threading.Thread, "start", fail)
        for _ in range(2 * MOST):
            with pytest.raises(DialError, match=r"box\.test.*can't start new thread"):
                await parse_target("box.test:22").dial(10, Client("192.0.2.1:1", "192.0.2.1"))

    asyncio.run(dial())
