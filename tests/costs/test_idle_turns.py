"""How often an idle tunnel wakes the bridge."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.bed.processes import Bed, ticks
from tests.costs.target import SUBPROTOCOLS, open_tunnels, start_idle_bridge, start_target

SECONDS = 2.0  # fewer than any limit that an idle tunnel has; whoever is slow sees no more of them
ALLOWED = 6


def waits(pid: int) -> int:
    """Return how often a process has begun to wait for something."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))


@pytest.mark.parametrize("kind", SUBPROTOCOLS)
def test_the_bridge_sleeps_while_its_tunnels_are_idle(kind: str, bed: Bed) -> None:
    target = start_target(bed)
    bridge, port = start_idle_bridge(bed, target)
    open_tunnels(bed, port, SUBPROTOCOLS[kind], 1, target)
    before = -1
    for _ in ticks(30, 0.5):  # an ack may still be due
        last, before = before, waits(bridge.pid)
        if before == last:
            break
    time.sleep(SECONDS)
    counted = waits(bridge.pid) - before
    print(f"counted: {counted} in {SECONDS} s", file=sys.stderr)
    assert counted <= ALLOWED
