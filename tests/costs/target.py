"""The benchmark's target, for what is counted here."""

from __future__ import annotations

import sys

from tests.bed.earlier import ROOT
from tests.bed.processes import Bed

PROGRAM = str(ROOT / "scripts" / "benchlib" / "target.py")


def start_target(bed: Bed) -> int:
    """Start it; return its port."""
    return bed.start_on_free_port(lambda port: (sys.executable, PROGRAM, str(port)))[1]
