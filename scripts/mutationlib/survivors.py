"""The list of mutants that may live: each with the reason why no test has to notice it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Mutant:
    """A change of ``function`` (with its class) in ``module``: the line that ``was``, and what it ``becomes``."""

    module: str
    function: str
    was: str
    becomes: str

    def __str__(self) -> str:
        return f"{self.module} | {self.function} | {self.was} | {self.becomes}"


def read_list(path: Path) -> dict[str, str]:
    """Return the reason for each mutant that may live, by its text. Raises ValueError for a list that is malformed."""
    reasons: dict[str, str] = {}
    for group in tomllib.loads(path.read_text())["group"]:
        if not group["reason"].strip():
            raise ValueError(f"{path} has a group without a reason")
        for text in group["mutants"]:
            if text in reasons:
                raise ValueError(f"{path} has this one twice: {text}")
            reasons[text] = group["reason"]
    return reasons


def unexplained(survivors: Iterable[Mutant], reasons: dict[str, str]) -> list[Mutant]:
    """Return the survivors that are not in the list."""
    return sorted(mutant for mutant in set(survivors) if str(mutant) not in reasons)


def outdated(tested: Iterable[str], survivors: Iterable[Mutant], reasons: dict[str, str]) -> list[str]:
    """Return what the list has of the modules that were ``tested`` whole, though no such mutant lives."""
    alive, modules = {str(mutant) for mutant in survivors}, set(tested)
    return [text for text in reasons if text.split(" | ")[0] in modules and text not in alive]
