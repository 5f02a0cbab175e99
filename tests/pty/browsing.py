"""The terminal's page in headless Chromium: what tests do with it, and what they wait for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.bed.processes import Bed, ticks
from tests.pty.beds import LIMIT, Service, start_service

TOKEN = "a-token-of-this-test"
# Without Chromium's sandbox, because tests run as root, and without its requests to the internet.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP box.test 127.0.0.1",
)
MILLISECONDS = LIMIT * 1000
expect.set_options(timeout=MILLISECONDS)  # also where a test gives none
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@contextmanager
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "chromium is missing: scripts/test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def new_context(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    """Open a context; fails if a script of one of its pages fails or the policy is violated."""
    context = browser.new_context(**{"viewport": {"width": 900, "height": 500}, **options})
    context.set_default_timeout(MILLISECONDS)
    complaints: list[str] = []
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("console", lambda message: complaints.append(message.text))
    yield context
    # The browser reports every failed request, and these tests make some fail; and what it leaves out without https.
    expected = ("Failed to load resource", "Cross-Origin-Opener-Policy header has been ignored")
    assert [text for text in complaints if not any(each in text for each in expected)] == []
    context.close()


def log_in(page: Page, url: str, token: str = TOKEN) -> None:
    page.goto(url)
    page.fill("#token", token)
    page.keyboard.press("Enter")
    wait_for_prompt(page)


def wait_for_prompt(page: Page) -> None:
    expect(page.locator(".xterm-rows")).to_contain_text(re.compile("[#$]"), timeout=MILLISECONDS)


def wait_for_state(page: Page, state: str) -> None:
    expect(page.locator("body")).to_have_attribute("data-state", state, timeout=MILLISECONDS)


def run(page: Page, command: str) -> None:
    page.keyboard.type(command)
    page.keyboard.press("Enter")


def start_page_service(bed: Bed, folder: Path, *options: str, token: str = TOKEN) -> Service:
    """Start a service with its page, which keeps its ``token`` in ``folder``."""
    tokens = folder / "tokens"
    tokens.write_text(f"{token}\n")
    return start_service(bed, "--web", "--pty-token-file", str(tokens), *options)


def screen(page: Page) -> str:
    return page.inner_text(".xterm-rows")


def wait_until(page: Page, condition: Callable[[], bool]) -> None:
    """Wait for ``condition``; Playwright's own ``wait_for_function`` needs an eval, which the page's policy forbids."""
    for _ in ticks(LIMIT):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"it did not come true in {LIMIT} s")


def wait_for_text(page: Page, pattern: str, of: Callable[[Page], str] = screen) -> str:
    """Wait until ``pattern`` is in the text ``of`` the page; return what it has found."""
    for _ in ticks(LIMIT):
        found = re.search(pattern, of(page))
        if found:
            return found[0]
        page.wait_for_timeout(50)
    raise AssertionError(f"no {pattern!r} in\n{of(page)}")
