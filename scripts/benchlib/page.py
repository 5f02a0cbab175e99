"""Writes the figures of a run into docs/performance.md and, in short, into the README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchlib.lab import BenchError
from benchlib.peers import ROOT

PAGE, README = ROOT / "docs" / "performance.md", ROOT / "README.md"
RECORDS = ROOT / "docs" / "figures"
END = "<!-- end of the figures -->"


def beginning(what: str) -> str:
    return f"<!-- figures of scripts/bench{what} -->"


def record(*, tls: bool) -> Path:
    """Return where the run is recorded that the page shows."""
    return RECORDS / f"bench{'-tls' * tls}.json"


def replaced(text: str, mark: str, lines: Sequence[str]) -> str | None:
    """Return ``text`` with ``lines`` between ``mark`` and the next end; None if there is no such place."""
    before, begin, rest = text.partition(mark)
    _, end, after = rest.partition(END)
    return "\n".join([before + begin, *lines, end + after]) if begin and end else None


def write_figures(figures: Sequence[str], short: Sequence[str], *, tls: bool) -> None:
    """Put the figures of a run into the pages. Raises BenchError if a page has no place for them."""
    places: list[tuple[Path, str, Sequence[str]]] = [(PAGE, beginning(" --tls" * tls), ["", *figures, ""])]
    if not tls and beginning("") in README.read_text():
        places.append((README, beginning(""), ["", *short, ""]))
    for path, mark, lines in places:
        text = replaced(path.read_text(), mark, lines)
        if text is None:
            raise BenchError(f"{path.name} has no place for the figures; add these lines: {mark} {END}")
        path.write_text(text)
