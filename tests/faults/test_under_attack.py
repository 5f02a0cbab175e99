"""A bridge under attack from a separate process: honest clients hardly notice."""

from __future__ import annotations

import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.bed.tunnels import Bridge, Route
from tests.faults.peer import Peer
from tests.faults.seen import health
from tests.server.clients import port_of

SECONDS = 10.0  # of measuring
SESSIONS = 10
pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

# Keeps so many connections open that have sent a part of a request, a byte a second each, and opens another one for
# each that is closed.
SLOW_HANDSHAKES = """
import resource, socket, sys, time
port, count = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held = [None] * count
for second in range(300):
    began = time.monotonic()
    for place in range(count):
        try:
            if held[place] is None:
                held[place] = socket.create_connection(("127.0.0.1", port))
                held[place].sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nX-Slow: ")
            else:
                held[place].sendall(b"x")
        except OSError:
            held[place] = None
    if not second:
        print("begun", flush=True)
    time.sleep(max(0, began + 1 - time.monotonic()))
"""


class Session:
    """A real ssh session whose remote end is ``cat``."""

    def __init__(self, route: Route) -> None:
        self._process = subprocess.Popen(
            route.ssh("sandbox", "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def round_trip(self) -> float:
        """Send a keystroke and wait until it comes back; return how many seconds that took."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        began = time.monotonic()
        process.stdin.write(b"x")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], 30)
        assert ready and os.read(process.stdout.fileno(), 1) == b"x"
        return time.monotonic() - began

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0
        self._process.stdout.close()


@contextmanager
def sessions(route: Route) -> Iterator[list[Session]]:
    opened = [Session(route) for _ in range(SESSIONS)]
    try:
        for session in opened:
            session.round_trip()
        yield opened
    finally:
        for session in opened:
            session.close()


@contextmanager
def slow_handshakes(bridge: Bridge, count: int) -> Iterator[None]:
    command = [sys.executable, "-c", SLOW_HANDSHAKES, str(port_of(bridge.url)), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"begun\n"
            yield
        finally:
            process.kill()


def measure(opened: list[Session]) -> float:
    """Return the median round trip of all sessions, each of which has a keystroke ten times a second."""
    times = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for session in opened:
            times.append(session.round_trip())
            time.sleep(0.01)
    return statistics.median(times)


def test_two_thousand_slow_handshakes_hold_nobody_up(own_route: Route) -> None:
    bridge = own_route.bridge
    peer, mine = Peer.open(bridge.url)
    with peer, sessions(own_route) as opened:
        unloaded = measure(opened)
        with slow_handshakes(bridge, 2000):
            slowest = 0.0
            for epoch in range(1, 6):
                began = time.monotonic()
                assert health(bridge)["status"] == "ok"
                between = time.monotonic()
                with Peer(bridge.url, mine.resume(epoch, 0)):
                    slowest = max(slowest, between - began, time.monotonic() - between)
            loaded = measure(opened)
    print(f"round trip {unloaded * 1e6:.0f} µs unloaded, {loaded * 1e6:.0f} µs under attack")
    print(f"the slowest answer took {slowest * 1000:.0f} ms")
    assert slowest < 1
    assert loaded < 2 * unloaded
