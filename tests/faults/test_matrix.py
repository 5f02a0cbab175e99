"""docs/reliability.md has the outcome of every fault at every stage, and a run of each shows that it is so."""

from __future__ import annotations

import queue
import re
import threading
import time
from dataclasses import fields
from pathlib import Path

import pytest

from tests.bed.edges import Authority
from tests.faults.matrix.faults import FAULTS
from tests.faults.matrix.scene import STAGES, Lane, Outcome, Scene
from tests.faults.matrix.table import GOES_ON, KILLED, KINDS, REASONS, ROWS, cells, rendered
from tunnel.client.options import OPTIONS
from tunnel.errors import CODES
from tunnel.protocol.keepalive import STALL_LIMIT
from tunnel.protocol.liveness import SILENCE_AFTER_REQUEST, SILENCE_BEFORE_REQUEST
from tunnel.protocol.plain_stream import CLOSE_LIMIT
from tunnel.server.settings import ServeSettings

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- tables of tests/faults/matrix/table.py -->\n", "<!-- end of the tables -->\n"
LANES = 8  # runs at a time, as most of a run is waiting
# What our client may say of a fault that it got over.
TOLD = re.compile(r"wstunnel-py: (connection lost, trying again|connected again|cannot write to the log file)")

Cell = tuple[str, str, str, str]


def usual() -> list[Cell]:
    """The cells of the usual run: of each fault and stage one kind, and every outcome that another kind has instead."""
    chosen: list[Cell] = []
    seen: set[tuple[str, str, str]] = set()
    for fault, kind, stage, outcome in sorted(cells(), key=lambda cell: cell[1] != "resumable"):
        if stage not in ROWS[fault].slow and (fault, stage, outcome) not in seen:
            seen.add((fault, stage, outcome))
            chosen.append((fault, kind, stage, outcome))
    return chosen


def told(scene: Scene, outcome: Outcome, expected: str) -> str:
    """Return the outcome as the table would have it; where it has not, as it was."""
    lines = [line for line in outcome.lines if not TOLD.match(line)]
    if outcome.status == -9 and outcome.target in (None, "reset", "whole" if scene.stage == "end" else "reset"):
        return KILLED
    whole = outcome.came == len(scene.down) and outcome.target == "whole"
    if outcome.status == 0 and not lines and whole:
        return expected if GOES_ON in expected.split(" or ") else GOES_ON
    for part in expected.split(" or "):
        code = part.partition(" ")[2]
        if code in CODES and len(lines) == 1:
            status, text = CODES[code]
            pattern = "wstunnel-py: " + re.sub(r"\\\{[^}]*\\\}", ".*", re.escape(text))
            if outcome.status == status and re.match(pattern, lines[0]):
                return expected
    return f"{outcome.status} {' / '.join(lines)} ({outcome.came} of {len(scene.down)} bytes, {outcome.target})"


def run(wanted: list[Cell], folder: Path, seconds: float) -> tuple[dict[Cell, str], list[str]]:
    """Run cells in several lanes; return what became of each, and what went wrong beside that."""
    waiting: queue.SimpleQueue[Cell] = queue.SimpleQueue()
    for cell in wanted:
        waiting.put(cell)
    authority = Authority(folder / "authority")
    found: dict[Cell, str] = {}
    wrong: list[str] = []

    def work(number: int) -> None:
        try:
            with Lane(folder / f"lane-{number}", authority.ca_file, authority.certificate) as lane:
                while not waiting.empty():
                    try:
                        cell = waiting.get_nowait()
                    except queue.Empty:
                        break
                    found[cell] = run_one(lane, cell)
                wrong.extend(lane.left_behind())
        except Exception as exc:
            wrong.append(f"lane {number}: {exc!r}")

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(LANES)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"not done within {seconds} s: {set(wanted) - set(found)}"
    return found, wrong


def run_one(lane: Lane, cell: Cell) -> str:
    fault, kind, stage, expected = cell
    try:
        with Scene(lane, kind, stage) as scene:
            if stage in ROWS[fault].slow:
                scene.patience = 1000.0
            return told(scene, FAULTS[fault](scene), expected)
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"


def assert_as_told(wanted: list[Cell], folder: Path, seconds: float) -> None:
    found, wrong = run(wanted, folder, seconds)
    other = [f"{' / '.join(cell)}, but: {outcome}" for cell, outcome in found.items() if outcome != cell[3]]
    assert set(found) == set(wanted)
    assert not other + wrong, "\n".join(other + wrong)


def test_the_page_has_the_table() -> None:
    _, begin, rest = PAGE.read_text().partition(BEGIN)
    tables, end, _ = rest.partition(END)
    assert begin and end and tables.strip() == rendered(), "python -m tests.faults.test_matrix puts it there"


def test_every_fault_has_a_row_and_every_row_a_fault() -> None:
    assert list(ROWS) == list(FAULTS)


def test_a_cell_is_an_outcome_or_has_a_reason() -> None:
    codes = {f"{status} {code}" for code, (status, _) in CODES.items()}
    for row in ROWS.values():
        assert set(row.cells) == set(KINDS) and set(row.slow) <= set(STAGES)
        for cell in (cell for kind in KINDS for cell in row.cells[kind]):
            assert cell in {GOES_ON, KILLED, *REASONS} or {*cell.split(" or ")} <= {GOES_ON, *codes}, cell


def test_limits_are_those_of_the_code() -> None:
    named = set(re.findall(r"`--([a-z-]+)`", rendered()))
    known = {option.name for option in OPTIONS} | {field.name.replace("_", "-") for field in fields(ServeSettings)}
    assert named and named <= known
    assert "15 min" in rendered() and STALL_LIMIT == 15 * 60
    assert "60 s" in rendered() and CLOSE_LIMIT == 60
    assert "13 s" in rendered() and SILENCE_BEFORE_REQUEST + SILENCE_AFTER_REQUEST == 13


@pytest.mark.timeout(300)
def test_each_outcome_is_what_happens(tmp_path: Path) -> None:
    assert_as_told(usual(), tmp_path, 280)


@pytest.mark.full
@pytest.mark.timeout(2400)
def test_every_cell_is_what_happens(tmp_path: Path) -> None:
    quick = [cell for cell in cells() if cell[2] not in ROWS[cell[0]].slow]
    slow = [cell for cell in cells() if cell not in quick]
    assert_as_told([*slow, *quick], tmp_path, 2300)


def write() -> None:
    """Put the table into the page."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    PAGE.write_text(f"{before}{begin}\n{rendered()}\n\n{end}{after}")


if __name__ == "__main__":
    write()
