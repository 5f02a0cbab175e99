"""Measures ssh and raw TCP through several tunnels side by side, on this machine, over loopback.

Rounds are interleaved (every peer once per round, in a rotated order), so a neighbour's noise hits all of them alike;
read the ratios, not the absolute figures. An sshd of its own with throw-away keys, a raw TCP target and the bridges
are started on free ports; nothing is left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchlib.lab import BenchError, Lab
from benchlib.measures import MEASURES
from benchlib.peers import MIXED, PEERS, Peer
from benchlib.report import Results, closing, details, facts

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds of 256 MB instead of 1 GB: about 2 minutes")
    parser.add_argument("--only", action="append", choices=MEASURES, help="this measure only (repeatable)")
    parser.add_argument(
        "--peer", action="append", choices=[*PEERS, *MIXED], help="this peer and direct only (repeatable)"
    )
    parser.add_argument("--mixed", action="store_true", help="also our client with websocat's bridge, and the reverse")
    parser.add_argument("--tls", action="store_true", help="put an nginx with TLS between clients and bridges")
    parser.add_argument("--size", type=int, metavar="MB", help="bytes per transfer, in millions (default: 1000)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of every measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE, too")
    options = parser.parse_args()
    for name, most in (("size", 100_000), ("rounds", 1000)):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= most:
            parser.error(f"--{name} {value}: from 1 to {most}")
    if options.json:
        try:
            options.json.touch()  # said now, not after the run
        except OSError as error:
            parser.error(f"--json {options.json}: {error.strerror}")
    if platform.system() != "Linux":
        parser.error("it reads CPU clocks and memory the way Linux gives them, so it runs on Linux only")
    return options


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """End the run for a signal. Further ones are ignored, because ending everything takes seconds at most."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    print(f"\nbench: {signal.Signals(number).name}: ending what it started", file=sys.stderr)
    sys.exit(128 + number)


def warm_up(lab: Lab, peers: list[Peer], results: Results) -> list[Peer]:
    """Start every peer and use it once, uncounted (bytecode, page cache). Return those that work."""
    working = []
    for peer in peers:
        try:
            lab.open(peer)
            MEASURES["startup"].run(lab, peer, 0)
            MEASURES["raw-download"].run(lab, peer, 1000)
            working.append(peer)
        except BenchError as error:
            results.fail("start", peer.name, error)
    return working


def measure(lab: Lab, name: str, rounds: int, peers: list[Peer], size: int, results: Results) -> None:
    """Run one measure round by round, each round in another order. A peer that fails is left out of what remains."""
    order = [peer for peer in peers if MEASURES[name].fits(peer)]
    if not order:
        return
    print(f"\n{name}: {rounds} rounds of {', '.join(peer.name for peer in order)}", flush=True)
    found: set[str] = set()
    for _ in range(rounds):
        for peer in tuple(order):
            try:
                sample = MEASURES[name].run(lab, peer, size)
            except BenchError as error:
                results.fail(name, peer.name, error)
                order.remove(peer)
                continue
            results.add(peer.name, sample)
            found.update(sample)
        order = order[1:] + order[:1]
    print("\n".join(details(results, found)), flush=True)


def main() -> int:
    options = arguments()
    for number in SIGNALS:
        signal.signal(number, stop)
    size = (options.size or (256 if options.quick else 1000)) * 10**6
    wanted = {"direct", *(options.peer or [*PEERS, *(MIXED if options.mixed else ())])}
    machine = facts(tls=options.tls)
    machine["transfers"] = f"{size // 10**6} MB each, aes128-gcm{', through nginx with TLS' * options.tls}"
    print("\n".join(f"{name + ':':14}{value}" for name, value in machine.items()), flush=True)
    results = Results()
    started = time.monotonic()
    try:
        with Lab(tls=options.tls) as lab:
            everyone = (*PEERS.values(), *MIXED.values())
            peers = warm_up(lab, [peer for peer in everyone if peer.name in wanted], results)
            for name in (name for name in MEASURES if not options.only or name in options.only):
                usual = MEASURES[name].quick_rounds if options.quick else MEASURES[name].rounds
                measure(lab, name, options.rounds or usual, peers, size, results)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    machine["load after"] = " ".join(f"{load:.2f}" for load in os.getloadavg())
    machine["duration"] = f"{time.monotonic() - started:.0f} s"
    print("\n" + "\n".join(closing(results, [peer.name for peer in peers], machine)))
    if options.json:
        record = {"machine": machine, "samples": results.samples, "failures": results.failures}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if results.failures else 0
