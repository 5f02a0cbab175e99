"""Mutations of a corpus, as many as are asked for, and the same ones at every run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tests.fuzz.targets import Target

SIZE_LIMIT = 8192  # bytes of an input
_BYTES = (0x00, 0x01, 0x0A, 0x0D, 0x20, 0x22, 0x2C, 0x3A, 0x5C, 0x7D, 0x7E, 0x7F, 0x80, 0xFF)


class Found(AssertionError):
    """An input that a target does not bear."""

    def __init__(self, target: Target, data: bytes) -> None:
        super().__init__(
            f"{target.name} does not bear {data[:200]!r}{'…' if len(data) > 200 else ''}; once it does, keep it as "
            f"tests/fuzz/corpus/{target.name}/NAME.hex: {data.hex()}"
        )


def run(target: Target, data: bytes) -> None:
    """Give ``data`` to the target. Raises Found, from what the target raised."""
    try:
        target.run(data)
    except Exception as exc:
        raise Found(target, data) from exc


def mutations(corpus: Sequence[bytes], tokens: Sequence[bytes], count: int, seed: str) -> Iterator[bytes]:
    """Yield ``count`` inputs, each made of one or two of the corpus."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            _mutate(data, corpus, tokens, chance)
        yield bytes(data[:SIZE_LIMIT])


def _mutate(data: bytearray, corpus: Sequence[bytes], tokens: Sequence[bytes], chance: random.Random) -> None:
    # Often near the end: what is wrong there has all that comes before it to be wrong about.
    at = (
        chance.randrange(len(data) + 1)
        if chance.random() < 0.6
        else len(data) - chance.randrange(min(8, len(data) + 1))
    )
    size = chance.choice((1, 2, 4, 16, 64))
    match chance.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 1 if at < len(data):
            data[at] = chance.choice(_BYTES)
        case 2:
            data[at:at] = chance.randbytes(size)
        case 3:
            del data[at : at + size]
        case 4:
            data[at:at] = data[at : at + size] * chance.choice((1, 2, 40))
        case 5:
            other = chance.choice(corpus)
            cut = chance.randrange(len(other) + 1)
            data[at:] = other[cut:]
        case 6 if tokens:
            data[at:at] = chance.choice(tokens)
        case _ if tokens:
            token = chance.choice(tokens)
            data[at : at + len(token)] = token
