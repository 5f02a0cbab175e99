"""The samples of a run, and what follows from them: medians, ratios, and which differences are below the noise."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchlib.quantities import Quantity


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

    def values(self, quantity: Quantity, peer: str) -> list[float]:
        return self.samples.get(quantity.key, {}).get(peer, [])

    def median(self, quantity: Quantity, peer: str) -> float | None:
        values = self.values(quantity, peer)
        return statistics.median(values) if values else None

    def best(self, quantity: Quantity, peer: str) -> float | None:
        values = self.values(quantity, peer)
        return (max(values) if quantity.higher else min(values)) if values else None

    def ratio(self, quantity: Quantity, peer: str, other: str, *, best: bool = False) -> float | None:
        """Return how many times worse than ``other`` it is; None if either was not measured."""
        pick = self.best if best else self.median
        mine, theirs = pick(quantity, peer), pick(quantity, other)
        if not mine or not theirs:
            return None
        return theirs / mine if quantity.higher else mine / theirs

    def spread(self, quantity: Quantity, peer: str) -> float | None:
        """Return how far apart the middle half of the rounds is, as a share of the median; None if fewer than 3."""
        values, middle = self.values(quantity, peer), self.median(quantity, peer)
        if len(values) < 3 or not middle:
            return None
        first, _, third = statistics.quantiles(values, n=4, method="inclusive")
        return (third - first) / middle

    def is_noise(self, quantity: Quantity, peer: str, other: str) -> bool:
        """Return whether two peers differ by less than the rounds of either spread, or too few were made."""
        ratio = self.ratio(quantity, peer, other)
        spreads = [self.spread(quantity, name) for name in (peer, other)]
        known = [spread for spread in spreads if spread is not None]
        return ratio is not None and (len(known) < 2 or abs(ratio - 1) < max(known))
