"""Compares ssh and raw TCP through several tunnels, on this machine, over loopback.

Rounds are interleaved (every peer once per round, in a rotated order), so noise affects all peers alike; read the
ratios, not the absolute figures. The script starts its own sshd with throw-away keys, a raw TCP target and the bridges
on free ports, and leaves nothing behind. Peers are programs on the PATH (websocat, wstunnel, chisel, envd); missing
ones are left out. See docs/performance.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchlib.goals import goals
from benchlib.lab import BenchError, Lab
from benchlib.machine import facts, load, noise, processor_time, stolen
from benchlib.measures import MEASURES
from benchlib.page import record, write_figures
from benchlib.peers import MIXED, PEERS, Peer, missing
from benchlib.plot import svg
from benchlib.report import closing, details, summary
from benchlib.results import Results
from benchlib.scale import BUSY, MOST_TUNNELS, allow_descriptors

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FAILURES = 3  # of a peer in one measure, after which it is left out of what remains


@dataclass
class Run:
    """A run as it is recorded: the machine, the peers, and all samples."""

    machine: dict[str, str]
    peers: list[str] = field(default_factory=list)
    results: Results = field(default_factory=Results)

    def write(self, path: Path) -> None:
        run = {
            "machine": self.machine,
            "peers": self.peers,
            "samples": self.results.samples,
            "failures": self.results.failures,
            "goals": [
                {"goal": goal.says, "value": goal.value, "limit": goal.limit, "met": goal.met}
                for goal in goals(self.results, tls="TLS edge" in self.machine)
            ],
        }
        path.write_text(json.dumps(run, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Run:
        """Raises OSError, or another error, now or when it is reported, if the file is not what `write` writes."""
        run = json.loads(path.read_text())
        return cls(run["machine"], run["peers"], Results(run["samples"], run["failures"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds of 256 MB instead of 1 GB")
    parser.add_argument(
        "--only",
        action="append",
        choices=MEASURES,
        metavar="MEASURE",
        help=f"run only this measure (repeatable): {', '.join(MEASURES)}",
    )
    parser.add_argument(
        "--peer",
        action="append",
        choices=[*PEERS, *MIXED],
        metavar="PEER",
        help=f"measure only this peer and direct (repeatable): {', '.join((*PEERS, *MIXED))}",
    )
    parser.add_argument(
        "--mixed", action="store_true", help="also measure our client with websocat's bridge, and the reverse"
    )
    parser.add_argument("--tls", action="store_true", help="put an nginx with TLS between clients and bridges")
    parser.add_argument("--size", type=int, metavar="MB", help="MB per transfer (default: 1000, with --quick 256)")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="rounds of every measure (default: depends on the measure)"
    )
    parser.add_argument(
        "--tunnels", type=int, default=100, metavar="N", help="idle tunnels of a bridge (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the ratios into FILE.svg")
    parser.add_argument(
        "--from",
        type=Path,
        metavar="FILE",
        dest="recorded",
        help="measure nothing, report the run that --json wrote to FILE",
    )
    parser.add_argument("--write", action="store_true", help="write the figures into docs/performance.md")
    options = parser.parse_args()
    for name, most in (("size", 100_000), ("rounds", 1000), ("tunnels", MOST_TUNNELS)):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= most:
            parser.error(f"--{name} {value}: from 1 to {most}")
    for name in ("json", "plot"):
        path = getattr(options, name)
        if path is None:
            continue
        try:
            try_to_write(path)  # said now, not after the run
        except OSError as error:
            parser.error(f"--{name} {path}: {error.strerror}")
    if platform.system() != "Linux" and not options.recorded:
        parser.error("it runs on Linux only, because it reads CPU time and memory from /proc")
    return options


def try_to_write(path: Path) -> None:
    """Raises OSError if ``path`` cannot be written. Nothing is left there, as the run may be stopped."""
    existed = path.exists()
    with path.open("ab"):
        pass
    if not existed:
        path.unlink()


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """End the run for a signal. Further ones are ignored, because ending everything takes seconds at most."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    print(f"\nbench: {signal.Signals(number).name}: stopping what it started", file=sys.stderr)
    sys.exit(128 + number)


def warm_up(lab: Lab, peers: Sequence[Peer], results: Results) -> list[Peer]:
    """Start every peer and use it once, uncounted (bytecode, page cache). Return those that work."""
    working = []
    for peer in peers:
        if not peer.is_tunnel:
            working.append(peer)
            continue
        try:
            lab.open(peer)
            MEASURES["startup"].run(lab, peer, 0)
            MEASURES["raw-download"].run(lab, peer, 1000)
            working.append(peer)
        except (BenchError, OSError) as error:
            results.fail("start", peer.name, error)
    return working


def measure(lab: Lab, name: str, rounds: int, peers: Sequence[Peer], size: int, results: Results) -> None:
    """Run one measure round by round, each round in another order.

    A peer that fails three times (websocat's transfers stall now and then) is left out of what remains.
    """
    order = [peer for peer in peers if MEASURES[name].fits(peer)]
    if not order:
        print(f"\nleft out: {name}, because it fits none of {', '.join(peer.name for peer in peers)}", flush=True)
        return
    print(f"\n{name}: {rounds} rounds of {', '.join(peer.name for peer in order)}", flush=True)
    found: set[str] = set()
    failed: Counter[str] = Counter()
    for _ in range(rounds):
        for peer in tuple(order):
            try:
                sample = MEASURES[name].run(lab, peer, size)
            except (BenchError, OSError) as error:
                results.fail(name, peer.name, error)
                failed[peer.name] += 1
                if failed[peer.name] == FAILURES:
                    order.remove(peer)
                continue
            results.add(peer.name, sample)
            found.update(sample)
        order = order[1:] + order[:1]
    print("\n".join(details(results, found)), flush=True)


def run(options: argparse.Namespace) -> Run:
    """Measure what ``options`` ask for. Raises BenchError and OSError."""
    names = [name for name in MEASURES if not options.only or name in options.only]
    allow_descriptors(max(options.tunnels * ("memory" in names), BUSY * ("fairness" in names)))
    size = (options.size or (256 if options.quick else 1000)) * 10**6
    wanted = {"direct", *(options.peer or [*PEERS, *(MIXED if options.mixed else ())])}
    everyone = [peer for peer in (*PEERS.values(), *MIXED.values()) if peer.name in wanted]
    told = Run(facts(tls=options.tls))
    machine, results = told.machine, told.results
    machine["transfers"] = f"{size // 10**6} MB each, aes128-gcm{', through nginx with TLS' * options.tls}"
    machine["idle tunnels"] = str(options.tunnels)
    print("\n".join(f"{name + ':':14}{value}" for name, value in machine.items()), flush=True)
    absent = missing(everyone)
    for peer, program in absent.items():
        print(f"left out: {peer}, because there is no {program} on the PATH", flush=True)
    if "terminals" in names and importlib.util.find_spec("e2b") is None:
        names.remove("terminals")
        print("left out: terminals, because Python's package e2b is missing: scripts/test installs it", flush=True)
    started, ticks = time.monotonic(), processor_time()
    with Lab(tls=options.tls, tunnels=options.tunnels) as lab:
        peers = warm_up(lab, [peer for peer in everyone if peer.name not in absent], results)
        told.peers = [peer.name for peer in peers]
        for name in names:
            usual = MEASURES[name].quick_rounds if options.quick else MEASURES[name].rounds
            measure(lab, name, options.rounds or usual, peers, size, results)
    machine["load after"] = load()
    machine["duration"] = f"{time.monotonic() - started:.0f} s"
    machine["the machine was"] = noise(results, stolen(ticks), machine["load before"])
    return told


def main() -> int:
    options = arguments()
    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        told = Run.read(options.recorded) if options.recorded else run(options)
        figures = closing(told.results, told.peers, told.machine)
        short = summary(told.results, told.peers)
        picture = svg(told.results, told.peers) if options.plot else ""
    except (BenchError, OSError) as error:
        print(f"bench: {'--from: ' if options.recorded else ''}{error}", file=sys.stderr)
        return 2 if options.recorded else 1
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if not options.recorded:
            raise
        print(f"bench: --from {options.recorded}: not a run that --json has written ({error!r})", file=sys.stderr)
        return 2
    if not (told.results.samples or told.results.failures):
        print("bench: nothing was measured: choose another --only or --peer", file=sys.stderr)
        return 1
    print("\n" + "\n".join(["## Benchmark", "", *figures, "", "In short:", "", *short]), flush=True)
    try:
        if options.json:
            told.write(options.json)
        if options.plot:
            options.plot.write_text(picture)
        if options.write:
            is_tls = "TLS edge" in told.machine
            write_figures(figures, short, tls=is_tls)
            path = record(tls=is_tls)
            path.parent.mkdir(exist_ok=True)
            told.write(path)
    except (BenchError, OSError) as error:
        print(f"bench: cannot write the figures: {error}", file=sys.stderr)
        return 1
    return 1 if told.results.failures and not options.recorded else 0
