"""The site of scripts/make-site in headless Chromium, as files: it fits a phone, asks no other host, has a search."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.bed.earlier import ROOT
from tests.bed.processes import Bed
from tests.pty.browsing import PHONE, chromium, new_context

pytestmark = pytest.mark.timeout(400)  # the first test makes the site
LIMIT = 60_000  # milliseconds; the index is searched in a worker of the page's, which has to load it first


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("site")
    with Bed(folder) as bed:
        bed.check(sys.executable, str(ROOT / "scripts" / "make-site"), str(folder / "site"), seconds=250)
    yield folder / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_no_page_is_wider_than_a_phone_or_asks_another_host(site: Path, browser: Browser) -> None:
    requests: list[str] = []
    too_wide = []
    with new_context(browser, **PHONE) as context:
        context.on("request", lambda request: requests.append(request.url))
        context.route("**/search/*", lambda route: route.abort())  # most of what a page loads
        page = context.new_page()
        for path in sorted(site.rglob("*.html")):
            page.goto(path.as_uri())
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                too_wide.append(path.name)
    assert too_wide == []
    assert len(requests) > 50
    assert {url.partition(":")[0] for url in requests} <= {"file", "data"}


def test_the_search_needs_no_server(site: Path, browser: Browser) -> None:
    with new_context(browser, viewport={"width": 1300, "height": 800}) as context:
        page = context.new_page()
        page.goto((site / "templates" / "e2b.html").as_uri())
        page.locator(".md-search__input").press_sequentially("scrollback")
        expect(page.locator(".md-search-result__meta")).to_contain_text("matching documents", timeout=LIMIT)
        page.locator(".md-search-result__link").first.click()
        expect(page.locator("article")).to_contain_text("scrollback", timeout=LIMIT)
