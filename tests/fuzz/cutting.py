"""Cuts of one input, chosen by itself: however bytes arrive, they must mean the same."""

from __future__ import annotations

import random
from collections.abc import Iterator


def split(data: bytes) -> tuple[random.Random, bytes]:
    """Return a source of chance that the first two bytes decide, and the rest."""
    return random.Random(data[:2]), data[2:]


def pieces(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield ``data`` in pieces: mostly small ones, as their edges are what matters."""
    at = 0
    while at < len(data):
        size = chance.choice((1, 1, 2, 3, 7, 50, 700, 5000))
        yield data[at : at + size]
        at += size
