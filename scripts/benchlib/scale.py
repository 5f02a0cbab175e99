"""Many tunnels of one bridge: idle ones, how fast they open, a keystroke beside busy ones, and who gets how much.

The tunnels come from one lean process (`crowd`), so that it is the bridge that is measured. Busy ones are plain.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchlib.lab import BenchError, Lab, end_group, last_line
from benchlib.latency import percentile, round_trips
from benchlib.links import between_pipes, cpu_seconds, deadline, link, pss
from benchlib.peers import PLAIN, Peer
from tests.bed.processes import free_port

CROWD = str(Path(__file__).with_name("crowd.py"))
MOST_TUNNELS = 9000
OTHERS = 1000  # descriptors of a bridge besides the two of each tunnel
DESCRIPTORS = 2 * MOST_TUNNELS + OTHERS
NEIGHBOURS = 20  # saturated tunnels beside a keystroke
KEYSTROKES = 400
PAUSE = 0.004  # seconds between keystrokes
BUSY = 500
WARM_UP, COUNTED = 1.0, 4.0  # seconds
SETTLING = 0.5  # seconds until an idle bridge has cleaned up


class Crowd:
    """A running `crowd`; ``opening`` is how many seconds its tunnels took to open."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, limit: float) -> None:
        self._process = process
        self._log = log
        self.opening = float(self._told(limit)["seconds"])

    def _told(self, limit: float) -> dict[str, float]:
        assert self._process.stdout is not None
        with deadline(limit, self._process.kill):
            line = self._process.stdout.readline()
            if not line:
                raise BenchError(last_line(self._log.read_text(errors="replace")))
        told: dict[str, float] = json.loads(line)
        return told

    def still_open(self) -> float:
        """Return how many idle tunnels have not been closed."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"count\n")
        return self._told(20)["open"]

    def count(self, seconds: float) -> tuple[list[int], float]:
        """Let the tunnels run, and return how many bytes went through each in how many seconds. They end."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"count\n")
        time.sleep(seconds)
        self._process.stdin.close()
        told = self._told(20)
        return list(told["moved"]), told["seconds"]  # type: ignore[call-overload]


@contextmanager
def crowd(lab: Lab, kind: str, port: int, offer: tuple[str, ...] | None, count: int) -> Iterator[Crowd]:
    """Open ``count`` tunnels at ``port`` and keep them; see `crowd`. No ``offer``: the port is the target's own."""
    log = lab.directory / "crowd.log"
    command = [sys.executable, CROWD, kind, str(port), ",".join(offer) if offer else "-", str(count)]
    command.append(str(lab.target_port))
    with ExitStack() as life:
        process = between_pipes(lab, command, log)
        assert process.stdin is not None and process.stdout is not None
        life.callback(end_group, process, 3.0)
        life.enter_context(process.stdout)
        life.callback(process.stdin.close)
        yield Crowd(process, log, 60 + count / 50)


def allow_descriptors(tunnels: int) -> None:
    """Let this process's children open as many files as the most tunnels take; at least what ``tunnels`` take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        except (OSError, ValueError) as error:
            needed = 2 * tunnels + OTHERS
            if hard < needed:
                raise BenchError(f"ulimit -Hn is {hard}; {tunnels} tunnels need {needed}") from error
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    elif soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))


def idle_tunnels(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    """Open tunnels at a fresh bridge and leave them idle; memory of the kernel's sockets is not in it.

    The bridge's CPU time per tunnel stands beside the rate, which the other processes of this machine limit, too.
    """
    assert peer.bridge is not None
    port, tunnels = free_port(), lab.tunnels
    with ExitStack() as life:
        command = [*peer.bridge(port, lab.target_port), *peer.roomy]
        bridge = lab.start(f"the {peer.name} bridge", command, port)
        life.callback(bridge.end)
        life.enter_context(crowd(lab, "rest", port, peer.offer, 10))  # what is loaded once is no tunnel's
        time.sleep(SETTLING)
        memory, cpu = pss(bridge.pid), cpu_seconds(bridge)
        idle = life.enter_context(crowd(lab, "rest", port, peer.offer, tunnels))
        cpu = cpu_seconds(bridge) - cpu
        time.sleep(SETTLING)
        memory = pss(bridge.pid) - memory
        if idle.still_open() != tunnels:
            raise BenchError(f"only {idle.still_open():g} of {tunnels} idle tunnels lasted")
        return {"idle-bridge": memory / tunnels, "open-rate": tunnels / idle.opening, "open-cpu-bridge": cpu / tunnels}


def keystrokes(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    """Type over one tunnel, alone and then beside saturated ones, half of which upload."""
    with link(lab, peer, 60) as (tunnel, _):
        tunnel.write(b"echo\n")
        alone = percentile(round_trips(tunnel, KEYSTROKES, PAUSE), 99)
        with crowd(lab, "mixed", lab.bridge_ports[peer.name], busy_offer(peer), NEIGHBOURS) as neighbours:
            time.sleep(WARM_UP)
            crowded = percentile(round_trips(tunnel, KEYSTROKES, PAUSE), 99)
            moved, _ = neighbours.count(0.5)
            if not all(moved):
                raise BenchError(f"{moved.count(0)} of {NEIGHBOURS} busy tunnels stood still")
    return {"key-alone": alone, "key-crowded": crowded, "key-ratio": crowded / alone}


def fairness(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    """Saturate 500 tunnels in either direction; compare the one that got most with the one that got least."""
    found = {}
    for kind in ("down", "up"):
        with crowd(lab, kind, lab.bridge_ports[peer.name], busy_offer(peer), BUSY) as busy:
            time.sleep(WARM_UP)
            moved, seconds = busy.count(COUNTED)
        if len(moved) < BUSY or not all(moved):
            raise BenchError(f"only {sum(map(bool, moved))} of {BUSY} tunnels moved anything ({kind})")
        found[f"fair-{kind}"] = max(moved) / min(moved)
        found[f"busy-{kind}"] = sum(moved) / seconds
    return found


def busy_offer(peer: Peer) -> tuple[str, ...] | None:
    return PLAIN if peer.bridge else None
