"""The command blocks of a page: those marked ``sh`` and ``json``, unchanged."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks_of(page: str, language: str) -> list[str]:
    return [text for name, text in _FENCE.findall(page) if name == language]


def languages_of(page: str) -> set[str]:
    return {name for name, _ in _FENCE.findall(page)}
