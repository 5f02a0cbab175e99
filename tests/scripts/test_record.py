"""scripts/record makes its picture from a real session, which outlives the cut."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.bed.earlier import ROOT
from tests.bed.processes import Bed

RECORD = str(ROOT / "scripts" / "record")


@pytest.mark.full
def test_the_recording_shows_every_number_and_the_same_shell_after_the_cut(bed: Bed) -> None:
    bed.check(RECORD, str(bed.folder / "cut.svg"))
    made, kept = ((folder / "cut.svg").read_text() for folder in (bed.folder, ROOT / "docs" / "pictures"))
    for picture in (made, kept):
        lines = [each.text for each in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
        assert " ".join(map(str, range(1, 25))) in lines
        assert {"connected", "connection cut"} < set(lines)
        assert re.search(r"session resumed \d\.\d s after the cut", picture)
        assert len(picture) < 100_000


@pytest.mark.parametrize("words", [("one", "two"), ("--fast",)])
def test_a_wrong_call_is_told_how_to_call_it(bed: Bed, words: tuple[str, ...]) -> None:
    finished = bed.run(RECORD, *words)
    assert finished.status == 2 and "scripts/record [FILE]" in finished.stderr
