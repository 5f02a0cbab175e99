"""docs/examples/go follows docs/wire.md: its constants have the page's values, and its comments name sections of it."""

from __future__ import annotations

import re
from math import prod

import pytest

from tests.docs import constants
from tests.docs.page import ROOT, text_of

SOURCES = {path.name: path.read_text() for path in (ROOT / "docs" / "examples" / "go").glob("*.go")}
_CONSTANT = re.compile(r"^\t([a-z]\w+) += ([\w. <*]+)$", re.MULTILINE)
_UNITS = {"time.Second": 1.0, "time.Millisecond": 0.001}


def named_as_in_go(name: str) -> str:
    """Return what the client calls a number of the page: ``ack-delay`` is ``ackDelay``."""
    first, *others = name.split("-")
    return first + "".join(map(str.capitalize, others))


def value_in_go(expression: str) -> float:
    base, _, shift = expression.partition(" << ")
    return prod(_UNITS.get(factor) or float(factor) for factor in base.split(" * ")) * (1 << int(shift or 0))


def listed() -> list[tuple[str, str]]:
    block = SOURCES["main.go"].partition('// The names and values are those of the page. See "Numbers".\nconst (\n')[2]
    return _CONSTANT.findall(block.partition("\n\n")[0])


def test_there_are_constants_and_sections() -> None:
    assert len(listed()) >= 40 and len(sections_named()) >= 15


@pytest.mark.parametrize(("name", "expression"), listed())
def test_a_constant_has_the_value_of_the_page(name: str, expression: str) -> None:
    values = {named_as_in_go(each): value for each, value in constants.WIRE_VALUES.items()}
    assert value_in_go(expression) == values[name]


def sections_named() -> list[str]:
    found = []
    for source in SOURCES.values():
        comments = re.sub(r"\n\t*// ", " ", source)
        for names in re.findall(r'See ("[^"]+"(?: and "[^"]+")*)', comments):
            found += re.findall(r'"([^"]+)"', names)
    return found


def test_a_section_that_a_comment_names_is_on_the_page() -> None:
    headings = set(re.findall(r"^##+ (.*)$", text_of("wire.md"), re.MULTILINE))
    assert [name for name in sections_named() if name not in headings] == []
