"""Each fuzz target passes its corpus and a fixed number of its mutations; in the long form, also what atheris finds."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.fuzz import corpus_files, mutation
from tests.fuzz.targets import NAMES, load

RUNS = 3000  # of each target: a second or two
SECONDS = 120  # of each target under atheris
FULL = [pytest.mark.full, pytest.mark.timeout(SECONDS + 120)]


@pytest.mark.parametrize("name", NAMES)
def test_no_target_fails_on_its_corpus(name: str) -> None:
    target, corpus = load(name), corpus_files.read(name)
    assert corpus
    for data in corpus.values():
        mutation.run(target, data)


@pytest.mark.parametrize("name", NAMES)
def test_no_target_fails_on_mutations_of_its_corpus(name: str) -> None:
    target = load(name)
    corpus = list(corpus_files.read(name).values())
    for data in mutation.mutations(corpus, target.tokens, RUNS, name):
        mutation.run(target, data)


@pytest.mark.parametrize("name", [pytest.param(name, marks=FULL) for name in NAMES])
def test_atheris_finds_nothing(bed: Bed, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("there is no atheris for this platform")
    folder = tmp_path / "atheris"
    finished = bed.run(
        sys.executable, "-m", "tests.fuzz.guided", name, str(folder), str(SECONDS),
        env={"PYTHONPATH": os.pathsep.join((os.environ["PYTHONPATH"], *sys.path))}, seconds=SECONDS + 90,
    )  # fmt: skip
    faults = {path.name: path.read_bytes().hex() for path in folder.glob("fault-*")}
    assert finished.status == 0 and not faults, f"{faults}\n{finished.stderr[-5000:]}"
    runs = next(line for line in finished.stderr.splitlines() if "number_of_executed_units" in line)
    with capsys.disabled():
        print(f"\n{name}: {runs.split()[-1]} runs, {len(list((folder / 'inputs').iterdir()))} inputs kept")
