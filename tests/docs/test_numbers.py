"""docs/wire.md and docs/terminals.md have the code's numbers: each once in the table, and the same value everywhere."""

from __future__ import annotations

import pytest

from tests.docs import constants
from tests.docs.page import Constant, listed, numbers, text_of, value_of

GROUPS = (constants.WIRE, constants.TERMINALS)
VALUES = {"wire.md": constants.WIRE_VALUES, "terminals.md": constants.TERMINAL_VALUES}


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, values in VALUES.items() for name in values])
def test_each_number_is_in_the_table_once(page: str, name: str) -> None:
    assert listed(text_of(page)).count(name) == 1


@pytest.mark.parametrize(
    ("page", "name", "value"),
    [(page, name, value) for page in VALUES for name, value in sorted(set(numbers(text_of(page))))],
)
def test_a_number_has_the_codes_value_everywhere_on_the_page(page: str, name: str, value: float) -> None:
    assert value == VALUES[page].get(name), f"`{name}` is {VALUES[page].get(name)} in the code"


@pytest.mark.parametrize(
    "group",
    [group for groups in GROUPS for group in groups.values() if group[1:]],
    ids=lambda group: group[0][1],
)
def test_constants_that_mean_the_same_agree(group: tuple[Constant, ...]) -> None:
    assert len({value_of(each) for each in group}) == 1
