"""The benchmark's target and its idle tunnels, for what is counted here."""

from __future__ import annotations

import subprocess
import sys

from tests.bed.earlier import ROOT
from tests.bed.processes import Bed, Process
from tests.bed.tunnels import OURS

PROGRAM = str(ROOT / "scripts" / "benchlib" / "target.py")
CROWD = str(ROOT / "scripts" / "benchlib" / "crowd.py")
SUBPROTOCOLS = {"ours": "binary,v1.resume.wstunnel-py", "ours-plain": "binary"}


def start_target(bed: Bed) -> int:
    """Start it; return its port."""
    return bed.start_on_free_port(lambda port: (sys.executable, PROGRAM, str(port)))[1]


def start_idle_bridge(bed: Bed, target: int) -> tuple[Process, str]:
    """Start a bridge to the target on this port, which has memory for many sessions; return its port, too."""
    listening = ("--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}", "--drain", "0")
    bridge = bed.start(*OURS, "serve", *listening, "--resume-memory", "100000")
    return bridge, bridge.wait_for_line(r"ready on ws://[^\s,]+?:(\d+)", 60)[1]


def open_tunnels(bed: Bed, port: str, offer: str, count: int, target: int) -> None:
    """Open tunnels that last as long as the bed."""
    crowd = bed.start(sys.executable, CROWD, "rest", port, offer, str(count), str(target), stdin=subprocess.PIPE)
    crowd.wait_for_line(r'\{"seconds": ', 90)
