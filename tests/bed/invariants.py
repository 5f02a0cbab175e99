"""What a bridge may still hold once its clients are gone: what it held before they came, and nothing else.

For a bridge in a process of its own, seen from outside: what it reports of tunnels and sessions, the memory that it
still promises to a new session, and what the kernel knows of its descriptors, threads and children.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.bed.processes import descendants, ticks
from tests.bed.tunnels import Bridge
from tests.faults.peer import RESUMABLE, Peer, Session
from tests.faults.seen import health
from tunnel.server.bridge import Bridge as ServedBridge

LIMIT = 30.0  # seconds in which a bridge has to let go of what its last clients left behind


@dataclass(frozen=True)
class Holdings:
    """What a bridge holds: ``window`` is what it promises to a new session (0: it has none to offer)."""

    tunnels: int
    detached: int
    window: int
    descriptors: Counter[str]
    threads: int
    children: frozenset[int]


def holdings(bridge: Bridge) -> Holdings:
    """Return what ``bridge`` holds now, apart from the two connections that this takes, one after the other."""
    window = _window(bridge)
    told = health(bridge)
    pid = bridge.process.pid
    seen, times = _descriptors(pid), 0
    for _ in ticks(LIMIT, 0.1):  # until the descriptors of these two are closed, which may take the bridge a moment
        now = _descriptors(pid)
        times = times + 1 if now == seen else 0
        if times == 5:
            break
        seen = now
    return Holdings(
        told["tunnels"],
        told["detached"],
        window,
        _descriptors(pid),
        len(os.listdir(f"/proc/{pid}/task")),
        frozenset(descendants(pid)),
    )


def assert_nothing_is_left(bridge: Bridge, before: Holdings, seconds: float = LIMIT) -> None:
    """Wait until ``bridge`` holds no more than ``before`` its clients came."""
    assert bridge.process.status is None, bridge.process.log()[-3000:]
    now = before
    for _ in ticks(seconds, 0.2):
        now = holdings(bridge)
        if not _left(now, before):
            return
    raise AssertionError(f"{', '.join(_left(now, before))} left after {seconds} s\n{bridge.process.log()[-3000:]}")


def assert_empty(bridge: ServedBridge) -> None:
    """Check that ``bridge``, of the test's own process, has handed out nothing that it has not got back."""
    common = bridge._state
    held = {
        "handshakes": len(common.handshakes),
        "farewells": len(common.farewells),
        "tunnels": len(common.seats),
        "sessions": len(common.sessions),
        "sessions that wait": len(common.sessions.waiting) + common.sessions.detached_count,
        "bytes of memory": common.sessions.budget.shares.taken,
        "connections": len(bridge._connections),
    }
    left = {name: count for name, count in held.items() if count}
    assert not left, left


def tasks_left(before: set[asyncio.Task[object]]) -> set[asyncio.Task[object]]:
    """Return the tasks of the running loop that were not there ``before``: for a bridge in the test's own process."""
    return asyncio.all_tasks() - before


def _left(now: Holdings, before: Holdings) -> list[str]:
    left = []
    if now.tunnels > before.tunnels:
        left.append(f"{now.tunnels - before.tunnels} tunnels")
    if now.detached > before.detached:
        left.append(f"{now.detached - before.detached} detached sessions")
    if now.window < before.window:
        left.append(f"reservations (a new session's window is {now.window}, and was {before.window})")
    if descriptors := now.descriptors - before.descriptors:
        left.append(f"descriptors {dict(descriptors)}")
    if now.threads > before.threads:
        left.append(f"{now.threads - before.threads} threads")
    # Not the same ones: an embedded SSH server has another process after each restart in place.
    if len(now.children) > len(before.children):
        left.append(f"children {sorted(now.children - before.children)}")
    return left


def _window(bridge: Bridge) -> int:
    with Peer(bridge.url) as peer:
        if peer.subprotocol != RESUMABLE:
            return 0
        window = Session.parse(peer.wait_for_line("session ")).window
        peer.end()
        peer.wait_for_end()
        return window


def _descriptors(pid: int) -> Counter[str]:
    """Return how many descriptors a process has of each kind; sockets and pipes are of one kind each."""
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            kinds[os.readlink(entry).partition(":[")[0]] += 1
        except FileNotFoundError:
            continue  # closed meanwhile
    return kinds
