"""How much memory of the bridge an idle tunnel takes that has carried a few bytes each way."""

from __future__ import annotations

import sys
import time

import pytest

from benchlib.links import pss
from tests.bed.processes import Bed
from tests.costs.bounds import IDLE_TUNNEL, SLACK
from tests.costs.target import SUBPROTOCOLS, open_tunnels, start_idle_bridge, start_target

TUNNELS = 500


@pytest.mark.parametrize("kind", SUBPROTOCOLS)
def test_an_idle_tunnel_takes_no_more_memory_than_allowed(kind: str, bed: Bed) -> None:
    target = start_target(bed)
    bridge, port = start_idle_bridge(bed, target)
    open_tunnels(bed, port, SUBPROTOCOLS[kind], 20, target)  # what is loaded once is no tunnel's
    time.sleep(0.3)
    before = pss(bridge.pid)
    open_tunnels(bed, port, SUBPROTOCOLS[kind], TUNNELS, target)
    time.sleep(0.3)
    each = (pss(bridge.pid) - before) / TUNNELS
    print(f"counted: {each:.0f} bytes", file=sys.stderr)
    assert each <= SLACK * IDLE_TUNNEL[kind]
