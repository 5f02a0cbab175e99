"""Round trips of one byte, and what a client costs that is only open."""

from __future__ import annotations

import os
import time

from benchlib.lab import BenchError, Lab
from benchlib.links import Link, cpu_seconds, link, pss
from benchlib.peers import Peer

ROUND_TRIPS = 2000
LONGEST = 15.0  # seconds


def percentile(values: list[float], percent: int) -> float:
    """The value that ``percent`` of ``values`` are below."""
    return sorted(values)[len(values) * percent // 100]


def round_trips(tunnel: Link, count: int, pause: float = 0.0) -> list[float]:
    """Send one byte there and back over a tunnel that echoes, ``count`` times unless that takes longer than 15 s.

    Return the seconds of each. ``pause``: seconds before each.
    """
    trips: list[float] = []
    last = time.monotonic() + LONGEST
    while len(trips) < count and time.monotonic() < last:
        if pause:
            time.sleep(pause)
        started = time.perf_counter()
        os.write(tunnel.writing, b"x")
        if not os.read(tunnel.reading, 1):
            raise BenchError("the echo ended early")
        trips.append(time.perf_counter() - started)
    return trips


def latency(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    """Open a tunnel, look at the client while it is idle, then send one byte there and back, 2000 times."""
    with link(lab, peer, 60) as (tunnel, opened):
        found = {"open": opened}
        if tunnel.client is not None:
            found["open-cpu"] = cpu_seconds(tunnel.client)
            found["idle-client"] = pss(tunnel.client.pid)
        tunnel.write(b"echo\n")
        trips = round_trips(tunnel, ROUND_TRIPS)
    return found | {"rtt-p50": percentile(trips, 50), "rtt-p99": percentile(trips, 99)}
