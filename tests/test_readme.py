"""The README and the pages in docs tell the truth: commands, exit codes, scripts, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tunnel.cli.main import RESERVED
from tunnel.errors import CODES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CLIENT = (ROOT / "docs" / "client.md").read_text()
PAGES = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))


def test_the_reference_and_the_manual_pages_are_what_the_commands_say(bed: Bed) -> None:
    bed.check(str(ROOT / "scripts" / "make-docs"), "--check")


def test_the_manual_pages_are_fit_to_be_read(bed: Bed) -> None:
    pages = sorted((ROOT / "docs" / "man").iterdir())
    assert len(pages) > 20
    for page in pages:
        shown = bed.check("man", "--warnings", "-Tutf8", "-l", str(page))
        assert shown.stderr == "" and "wstunnel-py" in shown.text


def test_every_reserved_name_is_documented() -> None:
    told = re.search(r"host names that are also commands need it \(`([^`]+)`\)", " ".join(CLIENT.split()))
    assert told and set(told[1].split()) == RESERVED


def test_every_exit_code_of_an_error_is_explained() -> None:
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", CLIENT, re.MULTILINE)}
    assert {code for code, _ in CODES.values()} <= explained


def test_the_readme_is_short_and_in_the_order_in_which_a_newcomer_needs_it() -> None:
    before, links, _ = README.partition("\n## More\n")
    words = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", before).split()  # without what stands for a picture
    assert links and len(words) <= 700
    steps = (
        "survive outages", "bearer tokens", "works with websocat",
        "scripts/quickstart",
        "pip install .\n", "```diff", "ssh -o ProxyCommand='wstunnel-py %h' user@SANDBOX-ID",
        "pip install wstunnel_py-*.whl", "authorized_keys\n", "wstunnel-py serve\n", "keys token",
        "config-ssh --write", "wstunnel-py doctor", "They do not survive",
    )  # fmt: skip
    places = [before.find(step) for step in steps]
    assert -1 not in places and places == sorted(places)


def test_every_page_of_the_docs_is_linked() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"scripts/[\w-]+", README))))
def test_a_script_that_is_named_exists(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize(
    ("page", "target"),
    [
        (page, target)
        for page in PAGES
        for target in sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", (ROOT / page).read_text())))
    ],
)
def test_every_link_has_a_target(page: Path, target: str) -> None:
    assert (ROOT / page.parent / target).exists()
