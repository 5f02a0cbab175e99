"""The user of a soak with a terminal in a browser: each line that is typed is answered once, in order."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time

from playwright.sync_api import Browser, Page
from playwright.sync_api import Error as BrowserError

from soaklib.lab import Lab
from soaklib.sessions import STEP, Clients, Lost, NotBegun
from tests.bed.processes import ticks
from tests.pty import browsing

KIND = "terminal in a browser"
PATIENCE = 10.0  # seconds after which a user reloads a page that does not come up


def use_page(lab: Lab, clients: Clients, seed: str, browser: Browser, over: threading.Event) -> None:
    """Visit the page again and again until ``over``. Raises BrowserError if the browser has crashed."""
    chance = random.Random(f"{seed} page")
    while not over.is_set():
        try:
            with contextlib.closing(browser.new_context(viewport={"width": 900, "height": 500})) as context:
                size = _visit(lab, context.new_page(), chance)
        except NotBegun:
            clients.ended_otherwise(KIND, "not begun")
        except Exception as exc:  # any error counts as a loss, and is reported
            if not browser.is_connected():
                raise BrowserError("it has crashed") from exc
            clients.was_lost(KIND, f"{type(exc).__name__}: {str(exc)[-1500:]}")
        else:
            clients.whole(KIND, size)


def _visit(lab: Lab, page: Page, chance: random.Random) -> int:
    """Start a shell, type into it for some seconds, and leave it. Returns the number of bytes of its answers."""
    _open(lab, page)
    browsing.run(page, "PS1='box> ' exec bash --norc --noprofile")
    _wait_for(page, r"(?m)^box>\s*\Z")
    until = time.monotonic() + chance.uniform(4, 10)
    answers: list[str] = []
    while time.monotonic() < until:
        word = f"{len(answers)}-{chance.randrange(10**9):09}"
        browsing.run(page, f"clear; echo got-'{word}'")
        _wait_for(page, rf"\Agot-{word}\s*\n+box>\s*\Z")
        answers.append(word)
        page.wait_for_timeout(chance.uniform(0, 500))
    browsing.run(page, "exit 7")
    _wait_for_state(page, "over")
    return sum(len(word) + 6 for word in answers)


def _open(lab: Lab, page: Page) -> None:
    """Open the page and log in. If the page is missing or has failed, reload it, as its user would.

    Raises NotBegun if it does not come up: then there is no terminal to lose.
    """
    for _ in ticks(STEP):
        with contextlib.suppress(BrowserError):
            page.goto(f"http://127.0.0.1:{lab.service.port}", timeout=PATIENCE * 1000)
            loaded = time.monotonic()
            for _ in ticks(STEP, 0):
                state = page.get_attribute("body", "data-state", timeout=PATIENCE * 1000)
                if state == "connected":
                    _wait_for(page, "[#$]$")
                    return
                if state == "login":
                    page.fill("#token", lab.token)
                    page.keyboard.press("Enter")
                elif state != "connecting" and (state == "over" or time.monotonic() - loaded > PATIENCE):
                    break  # while it connects, it may already have a terminal, which another page would not find
                page.wait_for_timeout(200)
        if page.is_closed():  # the browser has crashed
            break
    raise NotBegun


def _wait_for(page: Page, pattern: str) -> None:
    for _ in ticks(STEP):
        if re.search(pattern, _screen(page)):
            return
        page.wait_for_timeout(50)
    raise Lost(f"no {pattern!r} in\n{page.inner_text('body')[-500:]}")


def _wait_for_state(page: Page, state: str) -> None:
    for _ in ticks(STEP):
        if page.get_attribute("body", "data-state") == state:
            return
        page.wait_for_timeout(50)
    raise Lost(f"the page is {page.get_attribute('body', 'data-state')}, not {state}")


def _screen(page: Page) -> str:
    return "\n".join(line.rstrip() for line in browsing.screen(page).splitlines()).rstrip()
