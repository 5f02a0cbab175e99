"""One module for each target; the names are those of the corpus' folders, too."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NAMES = (
    "authorized_keys",
    "bridge_request",
    "config",
    "control",
    "frames",
    "plain_stream",
    "pty_framing",
    "pty_messages",
    "resumable_stream",
    "upgrade",
    "upgrade_answer",
)


@dataclass(frozen=True)
class Target:
    """A function to be given bytes, and ``tokens``: pieces that random bytes would take too long to hit upon."""

    name: str
    run: Callable[[bytes], None]
    tokens: Sequence[bytes]


def load(name: str) -> Target:
    module = importlib.import_module(f"{__name__}.{name}")
    return Target(name, module.target, module.TOKENS)
