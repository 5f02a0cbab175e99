"""A terminal that the browser page rejoins after a reload: no answer is typed by itself, and no mode is lost."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request

from tests.bed.processes import Bed
from tests.pty import browsing
from tests.pty.beds import Service
from tests.pty.browsing import log_in, run, start_page_service, wait_until
from tests.pty.replayed import ASK, QUERIES

SCROLLBACK = 65536  # bytes


@pytest.fixture
def short(bed: Bed, tmp_path: Path) -> Service:
    """A service with a page that keeps little output."""
    return start_page_service(bed, tmp_path, "--pty-scrollback", str(SCROLLBACK))


def screen(page: Page) -> str:
    """The screen without the blanks at the ends of its lines."""
    return "\n".join(line.rstrip() for line in browsing.screen(page).splitlines()).rstrip() + "\n"


def wait_for_text(page: Page, pattern: str) -> str:
    return browsing.wait_for_text(page, pattern, of=screen)


class Typed:
    """The calls that carry input, from now on."""

    def __init__(self, page: Page) -> None:
        self.inputs: list[str] = []
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        if request.url.endswith("/SendInput"):
            self.inputs.append(request.post_data or "")


def reload(page: Page, pattern: str, *, asks: bool = False) -> None:
    """Reload the page, wait for a text, and see that nothing is typed, unless a program ``asks`` as it draws again."""
    typed = Typed(page)
    page.reload()
    wait_for_text(page, pattern)
    page.wait_for_timeout(1000)
    assert asks or typed.inputs == []


def plain_shell(page: Page, url: str) -> None:
    log_in(page, url)
    run(page, "PS1='box> ' exec bash --norc --noprofile")
    wait_for_text(page, "(?m)^box>$")


def test_after_vim_a_reload_types_nothing(web: Service, page: Page) -> None:
    plain_shell(page, web.url)
    run(page, "vim -u NONE -N -c 'au TermResponse * set laststatus=2 statusline=answered | redraw!'")
    wait_for_text(page, "(?m)^answered")  # what is answered after its end would be typed
    page.wait_for_timeout(500)
    run(page, ":q")
    wait_for_text(page, r"(?m)^box>\n\Z")
    reload(page, r"(?m)^box>$")
    run(page, "echo after-$((40+2))")
    wait_for_text(page, r"(?m)^box> echo after-\$\(\(40\+2\)\)\s*\n+after-42")
    assert "not found" not in screen(page)


def test_no_query_of_any_kind_is_answered_after_a_reload(web: Service, page: Page, bed: Bed) -> None:
    (bed.folder / "ask.py").write_text(ASK)
    (bed.folder / "queries").write_bytes(b"\r\n".join(QUERIES))
    plain_shell(page, web.url)
    run(page, f"cd {bed.folder}; {sys.executable} ask.py queries")
    wait_for_text(page, "answers True")
    reload(page, "answers True")
    run(page, "clear; echo after-$((40+2))")
    assert "not found" not in wait_for_text(page, r"(?s)\A.*after-42")


def test_queries_after_an_outage_are_answered(web: Service, page: Page) -> None:
    plain_shell(page, web.url)
    run(page, "read -s -d R -p $'\\e[6n' where; echo answered-${#where}")
    wait_for_text(page, r"answered-\d")
    page.context.set_offline(True)
    page.context.set_offline(False)
    run(page, "read -s -d R -p $'\\e[6n' where; echo again-${#where}")
    wait_for_text(page, r"again-\d")


def test_vim_goes_on_after_a_reload(web: Service, page: Page, bed: Bed) -> None:
    text = bed.folder / "text"
    text.write_text("".join(f"line {n}\n" for n in range(1, 101)))
    plain_shell(page, web.url)
    run(page, f"vim -u NONE -N {text}")
    wait_for_text(page, "(?m)^line 1$")
    reload(page, "(?m)^line 1$", asks=True)
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.type("dd")
    run(page, ":wq")
    wait_for_text(page, r"(?m)^box>$")
    assert "line 4\n" not in text.read_text() and "line 5\n" in text.read_text()


def test_a_full_screen_program_comes_back_although_its_beginning_is_lost(short: Service, page: Page, bed: Bed) -> None:
    text = bed.folder / "text"
    text.write_text("".join(f"line {n}\n" for n in range(1, 20001)))
    plain_shell(page, short.url)
    run(page, f"LESS= less {text}")
    wait_for_text(page, "(?m)^line 1$")
    page_length = len(re.findall(r"(?m)^line \d+$", screen(page)))
    pages = SCROLLBACK // 400
    for _ in range(pages):
        page.keyboard.press("Space")
    top = pages * page_length  # also after one line back: then the last output is one line only
    wait_for_text(page, rf"\Aline {top + 1}\n")
    page.keyboard.press("k")
    wait_for_text(page, rf"\Aline {top}\n")
    after = re.findall(r"(?m)^line \d+$", screen(page))
    reload(page, f"(?m)^{after[3]}$")
    wait_until(page, lambda: re.findall(r"(?m)^line \d+$", screen(page)) == after)
    page.keyboard.press("ArrowUp")
    wait_for_text(page, f"(?m)^line {int(after[0].split()[1]) - 1}$")
    page.keyboard.type("q")
    wait_for_text(page, r"(?m)^box>$")
    assert not re.search(r"(?m)^line \d+$", screen(page))  # it had the alternate screen


def test_modes_that_the_scrollback_has_lost_are_restored(short: Service, page: Page) -> None:
    plain_shell(page, short.url)
    run(page, r"printf '\e[?1h\e[?2004h\e[?25l\e[32m\e(0'; head -c 300000 /dev/zero | tr '\0' '\n'; echo qqq; cat -v")
    wait_for_text(page, "───")
    reload(page, "───")
    page.keyboard.press("ArrowUp")
    page.evaluate(
        "document.querySelector('textarea').dispatchEvent(Object.assign(new Event('paste', {bubbles: true}), "
        "{clipboardData: {getData: () => 'pasted'}}))"
    )
    page.keyboard.press("Enter")
    # In the character set of lines "[" stays as it is, and letters become lines.
    wait_for_text(page, r"\[O.*\[2")
    rows = page.locator(".xterm-rows")
    assert rows.locator(".xterm-cursor").count() == 0
    assert rows.locator("span.xterm-fg-2").count() > 0
