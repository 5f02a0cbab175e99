"""scripts/make-site builds the documentation: every page, every link and anchor, and nothing from other hosts."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from markdown_it import MarkdownIt

from buildlib.source import copy_source
from sitelib.hooks import address, sources
from tests.bed.earlier import ROOT
from tests.bed.processes import Bed, Finished

PAGES = [each for each in sources() if each.endswith(".md")]
PICTURES = sorted((ROOT / "docs" / "pictures").iterdir())
LARGEST_PICTURE = 300_000  # bytes
ASSETS = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}
pytestmark = pytest.mark.timeout(300)  # the site is made by the first test that looks at it
PARTS = {  # of a page: what Markdown calls it, and HTML
    "heading_open": "h", "list_item_open": "li", "table_open": "table", "tr_open": "tr", "fence": "pre",
    "code_block": "pre",
}  # fmt: skip


def make_site(bed: Bed, root: Path, *words: str) -> Finished:
    return bed.run(sys.executable, str(root / "scripts" / "make-site"), *words, seconds=250)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("site")
    with Bed(folder) as bed:
        finished = make_site(bed, ROOT, str(folder / "site"))
    assert finished.status == 0, finished.last_words()
    assert "WARNING" not in finished.stderr
    yield folder / "site"


class Parts(HTMLParser):
    """What a built page consists of: how many of each part, the texts of its code, and what it loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.code: list[str] = []
        self.assets: list[str] = []
        self._in_article = self._in_code = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.assets += [values[name] or "" for kind, name in ASSETS if kind == tag and name in values]
        if tag == "article":
            self._in_article = True
        if self._in_article:
            self.counts[re.sub(r"h\d", "h", tag)] += 1
            if tag == "code":
                self._in_code = True
                self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self._in_article = False
        if tag == "code":
            self._in_code = False

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.code[-1] += data


def code_in(tokens: list[Any]) -> Iterator[str]:
    for token in tokens:
        if token.type in ("fence", "code_block", "code_inline"):
            yield token.content
        yield from code_in(token.children or [])


def test_every_page_is_in_the_navigation_once() -> None:
    settings = (ROOT / "mkdocs.yml").read_text()
    assert Counter(re.findall(r"[\w./-]+\.md\b", str(yaml.safe_load(settings)["nav"]))) == Counter(PAGES)
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_same_parts_as_on_github(site: Path, page: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text())
    built = Parts((site / address(page)).read_text())
    expected = Counter(PARTS[token.type] for token in tokens if token.type in PARTS)
    assert {name: built.counts[name] for name in set(PARTS.values())} == {
        name: expected[name] for name in set(PARTS.values())
    }
    assert [text.split() for text in built.code] == [text.split() for text in code_in(tokens)]


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) == len(PAGES) + 1  # that for addresses which do not exist
    for page in pages:
        built = Parts(page.read_text())
        assets = [each for each in built.assets if not each.startswith("data:")]
        assert len(assets) > 4
        # The canonical address is no asset: it tells search engines where the page is.
        others = [each for each in assets if re.match(r"(\w+:)?//", each)]
        assert [each for each in others if not each.startswith("https://wstunnel-py.github.io/")] == [], page
        # The theme's script asks an API of GitHub's if it finds this.
        assert 'data-md-component="source"' not in page.read_text()
    for sheet in site.rglob("*.css"):
        text = sheet.read_text()
        assert re.findall(r"@import|url\(['\"]?(?:https?:)?//[^)]*", text) == [], sheet


def test_a_link_to_a_file_that_is_no_page_leads_to_the_repository(site: Path) -> None:
    text = (site / "templates" / "docker.html").read_text()
    assert 'href="https://github.com/wstunnel-py/wstunnel-py/blob/main/templates/docker/compose.yaml"' in text


def test_a_link_that_leads_nowhere_and_a_page_that_is_not_in_the_navigation_are_errors(bed: Bed) -> None:
    tree = bed.folder / "tree"
    copy_source(ROOT, tree)
    with (tree / "SECURITY.md").open("a") as page:
        page.write("\n[one](docs/nowhere.md) [two](docs/wire.md#nowhere) [three](docs/nowhere.yaml)\n")
    (tree / "docs" / "new.md").write_text("# New\n")
    finished = make_site(bed, tree)
    assert finished.status == 1
    warnings = finished.stderr[finished.stderr.index("WARNING") :]
    assert [
        what for what in ("docs/nowhere.md", "#nowhere", "docs/nowhere.yaml", "docs/new.md") if what not in warnings
    ] == []


def test_a_folder_with_other_files_is_not_replaced(bed: Bed) -> None:
    (bed.folder / "home").mkdir()
    (bed.folder / "home" / "letter").touch()
    finished = make_site(bed, ROOT, str(bed.folder / "home"))
    assert finished.status == 2 and finished.stderr.count("\n") == 1
    assert (bed.folder / "home" / "letter").exists()


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_small_and_says_what_it_shows(picture: Path) -> None:
    assert picture.stat().st_size < LARGEST_PICTURE
    root = ElementTree.parse(picture).getroot()
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None and title.text and len(title.text) > 20
    assert re.findall(r"(?:href|src)=\"(?!#)[^\"]*|url\([^)]*", picture.read_text()) == []
    shown = [
        each
        for each in PAGES
        if re.search(rf"!\[[^\]]{{20,}}\]\([\w/]*pictures/{picture.name}\)", (ROOT / each).read_text())
    ]
    assert shown != [], "no page shows it with a text in its place"
