"""docs/terminals.md describes the terminal service: it has all its numbers, methods, headers and errors."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

import tunnel.pty
from tests.docs import constants
from tests.docs.page import (
    constants_of,
    headers,
    headers_told,
    modules,
    rows,
    text_of,
    unknown,
    unwrapped,
)

PAGE = text_of("terminals.md")


def test_every_constant_of_the_service_is_on_the_page_or_listed_as_irrelevant() -> None:
    known = [name for group in constants.TERMINALS.values() for _, name in group]
    known += [name for _, name in constants.TERMINAL_WORDS if not name.startswith("_")]
    known += constants.TERMINALS_ELSEWHERE
    scope = {module for group in constants.TERMINALS.values() for module, _ in group}
    scope |= {module for module, _ in constants.TERMINAL_WORDS}
    assert not unknown((each for module in scope for each in constants_of(module)), known)


@pytest.mark.parametrize(("module", "name"), constants.TERMINAL_WORDS)
def test_a_term_of_the_code_is_on_the_page(module: ModuleType, name: str) -> None:
    assert f"`{getattr(module, name)}" in PAGE or f" {getattr(module, name)}`" in unwrapped(PAGE)


def test_the_table_of_errors_is_complete() -> None:
    assert {
        row[0].strip("`"): int(row[1]) for row in rows(PAGE, "| code | HTTP status | for example |")
    } == constants.STATUS


def test_the_table_of_methods_is_complete() -> None:
    service = constants.ProcessService(None, None)  # type: ignore[arg-type]  # only its tables are looked at
    kinds = dict.fromkeys(service._unary, "unary") | dict.fromkeys(service._streaming, "stream")
    told = {row[0].strip("`"): row[1].split()[-1] for row in rows(PAGE, "| method | kind | request | reply |")}
    assert told == kinds


def test_every_added_header_is_documented() -> None:
    found = headers(modules(tunnel.pty))
    assert len(found) >= 6 and found == headers_told(PAGE)
    assert {row[0].strip("`") for row in rows(PAGE, "| header | of | value |")} == found


@pytest.mark.parametrize(("name", "number"), constants.SIGNALS.items())
def test_every_signal_is_documented(name: str, number: int) -> None:
    assert f"`{name}` ({number})" in PAGE


def test_the_bounds_of_keepalives_are_documented() -> None:
    least, most = constants.KEEPALIVE_BOUNDS
    assert f"{least} to {most} and by default" in unwrapped(PAGE)


def test_the_calls_of_the_browser_page_are_documented() -> None:
    script = constants.PAGE_SCRIPT.read_text()
    grace = re.search(r"^const GRACE = ([0-9]+);", script, re.MULTILINE)
    assert grace and f"`kill; grace={grace[1]}`" in unwrapped(PAGE)
    assert set(re.findall(r'"(Start|Connect|SendInput|Update|List)"', script)) == {
        "Start",
        "Connect",
        "SendInput",
        "Update",
    }


def test_the_paths_of_the_browser_page_are_documented() -> None:
    told = next(row[0] for row in rows(PAGE, "| path | method | answer |") if row[0].startswith("`/`"))
    paths = {path.strip("`") for path in told.split(", ")}
    assert paths == {
        "/vendor/…" if path.startswith("/vendor/") else re.sub(r"^/\w+\.", "/*.", path) for path in constants.PAGE_PATHS
    }


def test_the_numbers_of_the_browser_page_are_documented() -> None:
    scripts = "".join(path.read_text() for path in constants.PAGE_SCRIPT.parent.glob("*.js"))

    def number(name: str) -> str:
        found = re.search(rf"^const {name} = (.*);", scripts, re.MULTILINE)
        assert found, name
        return found[1]

    assert (number("KEEPALIVE"), number("SILENCE"), number("INPUT_LIMIT")) == ("15", "40_000", "8 << 20")
    page = unwrapped(PAGE)
    assert "keepalives every 15 s" in page and "silent for 40 s" in page and "At most 8 MiB of input" in page
