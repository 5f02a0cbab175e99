"""docs/architecture.md names every package with what it may import, and only files that exist."""

from __future__ import annotations

import re

import pytest

from tests.bed.earlier import ROOT
from tests.test_package_imports import PACKAGES

PAGE = (ROOT / "docs" / "architecture.md").read_text()
TABLE = dict(re.findall(r"^\| `([a-z.]+)` \|[^|]*\| ?([^|]*?) ?\|$", PAGE, re.MULTILINE))
# Walkthroughs name a file with its package, and those that follow in the same item by their names alone.
STEPS = re.findall(r"^\d+\. (.*(?:\n   .*)*)", PAGE, re.MULTILINE)


def test_the_table_has_every_package_and_what_it_may_import() -> None:
    expected = {name: set(allowed) for name, allowed in PACKAGES.items() if name not in ("_version", "pty")}
    assert {name: set(re.findall(r"`([^`]+)`", allowed)) for name, allowed in TABLE.items()} == expected


def test_a_package_comes_after_those_that_it_may_import() -> None:
    order = list(TABLE)
    for name, allowed in PACKAGES.items():
        assert all(order.index(each) < order.index(name) for each in allowed), name


def files_of(step: str) -> list[str]:
    folder, found = "", []
    for name in re.findall(r"`([\w./-]+(?:\.py|scripts/make-docs|/))`", step):
        folder = name.rpartition("/")[0] or folder
        found.append(name if "/" in name or name in ("errors.py",) else f"{folder}/{name}")
    return found


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.partition(" ")[0].strip("`,"))
def test_a_step_of_a_walkthrough_names_files_that_exist(step: str) -> None:
    files = files_of(step)
    assert files or "make-docs" in step
    assert [name for name in files if not (ROOT / "tunnel" / name).exists() and not (ROOT / name).exists()] == []


def test_the_rest_of_the_page_names_files_that_exist() -> None:
    names = re.findall(r"`((?:tunnel|tests|scripts|[a-z]+)/[\w./-]*)`", PAGE)
    assert len(names) > 20
    assert [name for name in names if not (ROOT / name).exists() and not (ROOT / "tunnel" / name).exists()] == []
