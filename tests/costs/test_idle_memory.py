"""How much memory of the bridge an idle tunnel takes that has carried a few bytes each way."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from benchlib.links import pss
from tests.bed.earlier import ROOT
from tests.bed.processes import Bed
from tests.bed.tunnels import OURS
from tests.costs.bounds import IDLE_TUNNEL, SLACK
from tests.costs.target import start_target

CROWD = str(ROOT / "scripts" / "benchlib" / "crowd.py")
TUNNELS = 500
SUBPROTOCOLS = {"ours": "binary,v1.resume.wstunnel-py", "ours-plain": "binary"}


def open_tunnels(bed: Bed, port: str, offer: str, count: int, target: int) -> None:
    """Open tunnels that last as long as the bed."""
    crowd = bed.start(sys.executable, CROWD, "rest", port, offer, str(count), str(target), stdin=subprocess.PIPE)
    crowd.wait_for_line(r'\{"seconds": ', 90)


@pytest.mark.parametrize("kind", SUBPROTOCOLS)
def test_an_idle_tunnel_takes_no_more_memory_than_allowed(kind: str, bed: Bed) -> None:
    target = start_target(bed)
    listening = ("--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}", "--drain", "0")
    bridge = bed.start(*OURS, "serve", *listening, "--resume-memory", "100000")
    port = bridge.wait_for_line(r"ready on ws://[^\s,]+?:(\d+)", 60)[1]
    open_tunnels(bed, port, SUBPROTOCOLS[kind], 20, target)  # what is loaded once is no tunnel's
    time.sleep(0.3)
    before = pss(bridge.pid)
    open_tunnels(bed, port, SUBPROTOCOLS[kind], TUNNELS, target)
    time.sleep(0.3)
    each = (pss(bridge.pid) - before) / TUNNELS
    print(f"counted: {each:.0f} bytes", file=sys.stderr)
    assert each <= SLACK * IDLE_TUNNEL[kind]
