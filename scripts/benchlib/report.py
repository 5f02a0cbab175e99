"""The report of a run: medians, spread and ratios, as text and as Markdown tables.

A ratio is a peer's time divided by direct ssh's, or direct ssh's rate divided by the peer's, so smaller is always
better. It is computed from medians, and also from the best rounds, because noise only adds time.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from benchlib.goals import goals
from benchlib.peers import MIXED, PEERS
from benchlib.quantities import QUANTITIES, Quantity
from benchlib.results import Results

TIMES, TO, NOISE = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}", "\N{ALMOST EQUAL TO}"
# What the README shows.
SUMMARY_PEERS = ("direct", "ours", "ours-plain", "wstunnel", "websocat", "chisel")
SUMMARY = ("startup", "ssh-download", "ssh-upload", "down-cpu", "up-cpu", "rtt-p50", "idle-bridge")


def shown(quantity: Quantity, value: float) -> str:
    return f"{value / quantity.scale:.{quantity.digits}f}"


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}{TIMES}"


def ratio_shown(results: Results, quantity: Quantity, peer: str) -> str:
    """The ratio of ``peer``, marked if the rounds spread more than it differs from 1."""
    if quantity.against is None or peer == quantity.against:
        return ""
    mark = NOISE if results.is_noise(quantity, peer, quantity.against) else ""
    ratio = times(results.ratio(quantity, peer, quantity.against))
    return f"{mark}{ratio}"


def details(results: Results, keys: Iterable[str]) -> list[str]:
    """The lines of one measure: every quantity in ``keys`` that was measured, with its spread, peer by peer."""
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
                row += f"{ratio_shown(results, quantity, peer):>9}"
                row += f"{times(results.ratio(quantity, peer, quantity.against, best=True)):>9}"
            lines.append(row.rstrip())
    return lines


def table(results: Results, peers: Sequence[str], keys: Iterable[str] | None = None, *, spread: bool) -> list[str]:
    """A Markdown table: medians, with ratios to direct and, with ``spread``, the smallest and largest value below."""
    columns = [peer for peer in peers if any(peer in found for found in results.samples.values())]
    head = f"median (ratio), min{TO}max" if spread else "median (ratio)"
    lines = [f"| {head} | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for quantity in QUANTITIES:
        if quantity.key not in results.samples or (keys is not None and quantity.key not in keys):
            continue
        cells = []
        for peer in columns:
            values = results.values(quantity, peer)
            if not values:
                cells.append(TO)
                continue
            cell = f"**{shown(quantity, statistics.median(values))}**"
            if ratio := ratio_shown(results, quantity, peer):
                cell += f" ({ratio})"
            if spread and len(values) > 1:
                cell += f"<br>{shown(quantity, min(values))}{TO}{shown(quantity, max(values))}"
            cells.append(cell)
        lines.append(f"| {quantity.title}, {quantity.unit} | " + " | ".join(cells) + " |")
    return lines


def closing(results: Results, peers: Sequence[str], machine: dict[str, str]) -> list[str]:
    """The Markdown report of a run: the machine, the table, the goals, and the failures."""
    says = {peer.name: peer.says for peer in (*PEERS.values(), *MIXED.values())}
    lines = ["; ".join(f"{name}: {value}" for name, value in machine.items()) + ".", ""]
    if results.samples:
        lines += [*table(results, peers, spread=True), "", *(f"- {peer}: {says[peer]}" for peer in peers)]
        lines += [f"- {NOISE}: the difference is smaller than the spread of the rounds"]
    for title, entries in (
        ("Goals (ratios of medians)", [f"- {goal}" for goal in goals(results, tls="TLS edge" in machine)]),
        ("Failed", [f"- {failure}" for failure in results.failures]),
    ):
        if entries:
            lines += ["", f"{title}:", "", *entries]
    return lines


def summary(results: Results, peers: Sequence[str]) -> list[str]:
    """The short table for the README."""
    return table(results, [peer for peer in SUMMARY_PEERS if peer in peers], SUMMARY, spread=False)
