"""The project's performance goals, and whether a run meets those that it measured."""

from __future__ import annotations

from dataclasses import dataclass

from benchlib.peers import RIVALS
from benchlib.quantities import ROWS
from benchlib.results import Results

IDLE_KIB = {"ours": 8.0, "ours-plain": 6.0}
OPENED_PER_SECOND = 2500.0


@dataclass(frozen=True)
class Goal:
    """``value`` must be at most ``limit``, or at least with ``at_least``; ``in_noise``: the difference is noise."""

    says: str
    value: float
    limit: float
    at_least: bool = False
    in_noise: bool = False

    @property
    def met(self) -> bool:
        return self.in_noise or (self.value >= self.limit if self.at_least else self.value <= self.limit)

    def __str__(self) -> str:
        bound = f"{'at least' if self.at_least else 'at most'} {self.limit:.5g}"
        verdict = ("met" if self.met else "not met") + ", equal within the noise" * self.in_noise
        return f"{self.says}: {self.value:.3g} (goal: {bound}), {verdict}"


def _ratio(results: Results, key: str, peer: str, other: str | None, limit: float) -> list[Goal]:
    """The goal that ``peer`` takes at most ``limit`` times what ``other`` takes."""
    row = ROWS[key]
    ratio = results.ratio(row, peer, other) if other else None
    if other is None or ratio is None:
        return []
    level = limit == 1.0 and ratio > 1 and results.is_noise(row, peer, other) and results.spread(row, peer) is not None
    named = "an interpreter" if key == "request" else other
    return [Goal(f"{row.title.replace('`', '')}, {peer} to {named}", ratio, limit, in_noise=level)]


def _value(results: Results, key: str, peer: str, limit: float, *, at_least: bool = False) -> list[Goal]:
    row = ROWS[key]
    value = results.median(row, peer)
    if value is None:
        return []
    return [Goal(f"{row.title}, {row.unit}, {peer}", value / row.scale, limit, at_least)]


def _best(results: Results, key: str) -> str | None:
    """The rival that is best in a quantity."""
    ratios = {name: results.ratio(ROWS[key], name, "ours") for name in RIVALS}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    return min(known, key=lambda name: known[name]) if known else None


def goals(results: Results, *, tls: bool) -> list[Goal]:
    found: list[Goal] = []
    if tls:
        found += _ratio(results, "ssh-download", "ours", _best(results, "ssh-download"), 1.0)
        found += _ratio(results, "ssh-upload", "ours", _best(results, "ssh-upload"), 0.9)
    else:
        found += _ratio(results, "ssh-download", "ours", "direct", 1.08)
        found += _ratio(results, "ssh-download", "ours", "wstunnel", 1.0)
        found += _ratio(results, "ssh-upload", "ours", "direct", 1.25)
        found += _ratio(results, "ssh-upload", "ours", "wstunnel", 0.95)
        for key in ("down-cpu", "up-cpu"):
            found += _ratio(results, key, "ours", _best(results, key), 1.0)
        for key in ("rtt-p50", "rtt-p99"):
            found += _ratio(results, key, "ours", "websocat", 1.1 if key == "rtt-p50" else 1.0)
    for key in ("down-cpu", "up-cpu", "ssh-download", "ssh-upload"):
        found += _ratio(results, key, "ours-32k", "ours", 1.25)
    found += _ratio(results, "startup", "ours", "direct", 1.10)
    found += _ratio(results, "request", "ours", "direct", 1.15)
    for peer, limit in IDLE_KIB.items():
        found += _value(results, "idle-bridge", peer, limit)
        found += _value(results, "open-rate", peer, OPENED_PER_SECOND, at_least=True)
    found += _value(results, "key-ratio", "ours", 4.0)
    for key in ("fair-down", "fair-up"):
        found += _value(results, key, "ours", 2.0)
    for key in ("pty-create", "pty-echo"):
        found += _ratio(results, key, "ours", "envd", 1.6)
    own, theirs = (results.median(ROWS[key], peer) for key, peer in (("pty-echo-own", "ours"), ("pty-echo", "envd")))
    if own and theirs:
        found.append(Goal("terminal echo, this project's client to E2B's SDK with envd", own / theirs, 1.2))
    for key in ("sftp-download", "sftp-upload"):
        found += _ratio(results, key, "embedded", "direct", 3.0)
    return found
