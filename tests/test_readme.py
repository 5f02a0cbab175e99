"""The README tells the truth about names: options, variables, exit codes, scripts, links."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tunnel.client.options import OPTIONS, SHELL_OPTIONS
from tunnel.protocol.errors import CAUSES
from tunnel.server.settings import ServeSettings, flag, variable

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> dict[str, str]:
    """Return long option → variable of a section's table."""
    found = re.findall(r"^\| (?:`-\w`, )?`(--[a-z0-9-]+)[^|]*(?:\\\|[^|]*)*\| `(\w+)` \|", section(title), re.MULTILINE)
    return dict(found)


def test_the_table_of_connect_has_its_options_and_no_others() -> None:
    expected = {f"--{option.name}": option.variable for option in OPTIONS if not option.hidden}
    assert rows("Options of `connect`") == expected


def test_the_table_of_shell_has_its_options_and_no_others() -> None:
    expected = {f"--{option.flag}": option.variable for option in SHELL_OPTIONS if not option.hidden}
    assert rows("Options of `shell`") == expected


def test_the_table_of_serve_has_its_options_and_no_others() -> None:
    expected = {flag(field.name): variable(field.name) for field in dataclasses.fields(ServeSettings)}
    assert rows("Options of `serve`") == expected


def test_every_exit_code_of_a_cause_is_explained() -> None:
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert {code for code, _ in CAUSES.values()} <= explained


@pytest.mark.parametrize("name", sorted(set(re.findall(r"scripts/\w+", README))))
def test_a_script_that_is_named_exists(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)]+)\)", README))))
def test_a_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
