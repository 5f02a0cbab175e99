"""Simulates 10,000 sandboxes with 100,000 tunnels: what they need, and how clients reconnect when gateways fail.

Prints its assumptions and figures as Markdown, for docs/kubernetes.md. Clients follow the reconnection schedule of
`wstunnel-py connect`. The costs of a tunnel were measured once on real processes; --measure measures them again on this
machine. Takes less than a minute.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from simulatelib import report
from simulatelib.fleet import Costs, Fleet
from simulatelib.storm import Storm

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "kubernetes.md"
BEGIN, END = "<!-- figures of scripts/simulate -->", "<!-- end of the figures -->"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--sandboxes", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--tunnels", type=int, default=100_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--gateways", type=int, default=10, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random numbers (default: %(default)s)")
    parser.add_argument("--measure", action="store_true", help="measure the costs again, on this machine")
    parser.add_argument("--record", action="store_true", help="with --measure: save the costs")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    for name, least, most in (("sandboxes", 1, 10**6), ("tunnels", 1, 10**6), ("gateways", 2, 1000)):
        if not least <= getattr(options, name) <= most:
            parser.error(f"--{name} {getattr(options, name)}: from {least} to {most}")
    if options.record and not options.measure:
        parser.error("--record goes with --measure")
    return options


def main() -> int:
    options = arguments()
    if options.measure:
        from benchlib.lab import BenchError
        from simulatelib.measure import measure

        try:
            costs = measure()
        except BenchError as error:
            print(f"simulate: {error}", file=sys.stderr)
            return 1
        if options.record:
            costs.record()
    else:
        costs = Costs.recorded()
    fleet = Fleet(sandboxes=options.sandboxes, tunnels=options.tunnels, gateways=options.gateways)
    outcomes = [Storm(fleet, costs, scenario, options.seed).run() for scenario in report.scenarios(fleet)]
    text = report.whole(fleet, costs, options.seed, outcomes)
    print(text)
    if options.write:
        page = PAGE.read_text()
        before, begin, rest = page.partition(f"{BEGIN}\n")
        _, end, after = rest.partition(END)
        if not begin or not end:
            print(f"simulate: {PAGE} has no markers for the figures", file=sys.stderr)
            return 1
        PAGE.write_text(f"{before}{begin}{text}\n{end}{after}")
    return 0
