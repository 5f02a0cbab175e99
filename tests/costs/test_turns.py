"""How much Python runs for one keystroke: function calls at both ends for a byte that goes there and back.

The calls of a run with many round trips, less those of a run with few, leave out start and end.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, ticks
from tests.costs import profiled
from tests.costs.bounds import SLACK, TURN_CALLS
from tests.costs.target import start_target

FEW, MANY = 100, 500
RUNS = 3  # at most
OPTIONS = {"ours": (), "ours-plain": ("--no-resume",)}


def type_over(client: Process, trips: int) -> None:
    """Have ``trips`` bytes sent back, one after the other."""
    came = 1  # the greeting
    client.feed(b"echo\n")
    for _ in range(trips):
        client.feed(b"x")
        came += 1
        for _ in ticks(30, 0.0005):
            if client.out.stat().st_size >= came:
                break
        assert client.out.stat().st_size == came


def calls(bed: Bed, folder: Path, kind: str, trips: int) -> dict[str, int]:
    """Return how many functions each end calls from its start to its end, with so many round trips."""
    counts = {end: folder / f"{end}-{trips}" for end in ("client", "bridge")}
    target = f"127.0.0.1:{start_target(bed)}"
    listening = ("--listen", "127.0.0.1:0", "--target", target, "--drain", "0")
    bridge = bed.start(sys.executable, profiled.__file__, str(counts["bridge"]), "serve", *listening)
    url = bridge.wait_for_line(r"ready on (ws://[^\s,]+)", 60)[1]
    command = (sys.executable, profiled.__file__, str(counts["client"]), "connect", *OPTIONS[kind], url)
    client = bed.start("sh", "-c", '"$@" | cat', "sh", *command, stdin=subprocess.PIPE)  # pipes, as ssh has them
    type_over(client, trips)
    client.end_input()
    assert client.wait(30) == 0
    bridge.end(30)
    return {end: int(path.read_text()) for end, path in counts.items()}


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_keystroke_costs_no_more_calls_than_allowed(kind: str, tmp_path: Path) -> None:
    allowed = {end: SLACK * TURN_CALLS[kind, end] for end in ("client", "bridge")}
    found = dict.fromkeys(allowed, float("inf"))
    for run in range(RUNS):  # a timer that rings, a byte that needs two turns: noise only adds
        folder = tmp_path / str(run)
        folder.mkdir()
        with Bed(folder) as bed:
            many, few = calls(bed, folder, kind, MANY), calls(bed, folder, kind, FEW)
        found = {end: min(found[end], (many[end] - few[end]) / (MANY - FEW)) for end in found}
        if all(found[end] <= allowed[end] for end in found):
            break
    print(f"counted: {found}", file=sys.stderr)
    assert all(found[end] <= allowed[end] for end in found), found
