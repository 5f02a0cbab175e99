"""What is said: medians, spread and ratios, as text, as a Markdown table to paste, and as JSON.

A ratio says how many times as much time (or as little rate) a peer needs as the direct way, so smaller is better
everywhere. It is taken of medians; the one of the best rounds stands beside it, because noise only ever adds.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchlib.measures import QUANTITIES, Quantity
from benchlib.peers import MIXED, PEERS, ours, program

TIMES, TO = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
LIMITS = {"startup": 1.10, "ssh-download": 1.25, "ssh-upload": 1.30}
EMBEDDED_LIMITS = {"sftp-download": 3.0, "sftp-upload": 3.0}
AHEAD = ("startup", "ssh-download", "ssh-upload", "raw-download", "raw-upload")
CPU = ("down-cpu-client", "down-cpu-bridge", "up-cpu-client", "up-cpu-bridge")


@dataclass
class Results:
    """All samples of a run: quantity → peer → one number per round, in seconds, bytes or bytes per second."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, peer: str, found: dict[str, float]) -> None:
        for key, value in found.items():
            self.samples.setdefault(key, {}).setdefault(peer, []).append(value)

    def fail(self, what: str, peer: str, error: Exception) -> None:
        self.failures.append(f"{what}, {peer}: {error}")
        print(f"failed: {self.failures[-1]}", flush=True)

    def median(self, quantity: Quantity, peer: str) -> float | None:
        values = self.samples.get(quantity.key, {}).get(peer)
        return statistics.median(values) if values else None

    def best(self, quantity: Quantity, peer: str) -> float | None:
        values = self.samples.get(quantity.key, {}).get(peer)
        return (max(values) if quantity.higher else min(values)) if values else None

    def ratio(self, quantity: Quantity, peer: str, other: str, *, best: bool = False) -> float | None:
        """Return how many times worse than ``other`` it is; None if either was not measured."""
        pick = self.best if best else self.median
        mine, theirs = pick(quantity, peer), pick(quantity, other)
        if not mine or not theirs:
            return None
        return theirs / mine if quantity.higher else mine / theirs


def shown(quantity: Quantity, value: float) -> str:
    return f"{value / quantity.scale:.{quantity.digits}f}"


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}{TIMES}"


def details(results: Results, keys: Iterable[str]) -> list[str]:
    """The lines of one measure: every quantity in ``keys`` that was found, with its spread, peer by peer."""
    lines = []
    for quantity in (quantity for quantity in QUANTITIES if quantity.key in keys):
        better = "higher" if quantity.higher else "lower"
        lines += ["", f"{quantity.title.replace('`', '')}, {quantity.unit} ({better} is better)"]
        lines.append(f"  {'':16}{'median':>9}{'min':>9}{'max':>9}{'n':>4}{'ratio':>9}{'of best':>9}")
        for peer, values in results.samples[quantity.key].items():
            numbers = (statistics.median(values), min(values), max(values))
            row = f"  {peer:16}" + "".join(f"{shown(quantity, number):>9}" for number in numbers)
            row += f"{len(values):>4}"
            if quantity.against:
                for best in (False, True):
                    row += f"{times(results.ratio(quantity, peer, quantity.against, best=best)):>9}"
            lines.append(row)
    return lines


def markdown(results: Results, peers: list[str]) -> list[str]:
    """The closing table: medians, with the ratio to direct and the smallest and largest value below them."""
    lines = [f"| median (ratio to direct), min{TO}max | " + " | ".join(peers) + " |", "|---|" + "---:|" * len(peers)]
    for quantity in QUANTITIES:
        if quantity.key not in results.samples:
            continue
        cells = []
        for peer in peers:
            values = results.samples[quantity.key].get(peer)
            if not values:
                cells.append(TO)
                continue
            cell = f"**{shown(quantity, statistics.median(values))}**"
            if quantity.against and peer != quantity.against:
                ratio = results.ratio(quantity, peer, quantity.against)
                cell += f" ({times(ratio)})" if ratio else ""
            if len(values) > 1:
                cell += f"<br>{shown(quantity, min(values))}{TO}{shown(quantity, max(values))}"
            cells.append(cell)
        lines.append(f"| {quantity.title}, {quantity.unit} | " + " | ".join(cells) + " |")
    return lines


def verdict(met: bool) -> str:
    return "target met" if met else "target not met"


def targets(results: Results) -> list[str]:
    """How `ours` stands against the design's targets, as far as this run measured what they need."""
    lines = []
    rows = {quantity.key: quantity for quantity in QUANTITIES}
    for peer, limits in (("ours", LIMITS), ("embedded", EMBEDDED_LIMITS)):
        for key, limit in limits.items():
            ratio = results.ratio(rows[key], peer, "direct")
            best = results.ratio(rows[key], peer, "direct", best=True)
            if ratio is not None:
                told = f"{rows[key].title} of {peer} at most {limit:.2f}{TIMES} direct: {times(ratio)}"
                lines.append(f"- {told} (best rounds: {times(best)}): {verdict(ratio <= limit)}")
    for key in AHEAD:
        ratio = results.ratio(rows[key], "ours", "websocat")
        if ratio is not None:
            lines.append(f"- {rows[key].title} ahead of websocat: {times(ratio)} of it: {verdict(ratio < 1)}")
    for direction in ("down", "up"):
        keys = [key for key in CPU if key.startswith(direction)]
        ours_cpu = [results.median(rows[key], "ours") for key in keys]
        its_cpu = [results.median(rows[key], "websocat") for key in keys]
        mine, theirs = sum(value or 0 for value in ours_cpu), sum(value or 0 for value in its_cpu)
        if mine and theirs:
            told = f"CPU of both ends per GB {direction} ahead of websocat: {mine:.2f} s to {theirs:.2f} s"
            lines.append(f"- {told}: {verdict(mine < theirs)}")
    return lines


def closing(results: Results, peers: list[str], machine: dict[str, str]) -> list[str]:
    """The Markdown that ends a run: the machine, the table, the targets, and what failed."""
    says = {peer.name: peer.says for peer in (*PEERS.values(), *MIXED.values())}
    lines = ["## Benchmark", "", "; ".join(f"{name}: {value}" for name, value in machine.items()) + ".", ""]
    if peers:
        lines += [*markdown(results, peers), "", *(f"- {peer}: {says[peer]}" for peer in peers)]
    for title, entries in (
        ("Targets (ratios of medians)", targets(results)),
        ("Failed", [f"- {failure}" for failure in results.failures]),
    ):
        if entries:
            lines += ["", f"{title}:", "", *entries]
    return lines


def told_by(argv: list[str]) -> str:
    """The first line that a program prints (on either stream) when asked for its version."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({type(error).__name__})"
    return ((done.stdout + done.stderr).decode(errors="replace").splitlines() or ["unknown"])[0].strip()


def processor() -> str:
    """The processor's own name where the kernel tells it, else the machine's architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def facts(*, tls: bool) -> dict[str, str]:
    """What of this machine decides the figures. Versions and numbers only, no paths."""
    try:
        release = version("wstunnel-py")
    except PackageNotFoundError:
        release = "this checkout"
    started_as = "python -m tunnel" if len(ours()) > 1 else "the installed wstunnel-py"
    found = {
        "cores": f"{len(os.sched_getaffinity(0))} ({processor()})",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "OpenSSH": told_by(["ssh", "-V"]).partition(",")[0],
        "ours": f"{release}, started as {started_as}",
        "websocat": told_by([program("websocat") or "websocat", "--version"]).removeprefix("websocat "),
        "websockets": version("websockets"),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
    if tls:
        found["TLS edge"] = told_by(["nginx", "-v"])
    return found
