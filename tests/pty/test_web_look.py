"""How the page looks and is used: title, theme, font, widths, clipboard, keyboard, contrast."""

from __future__ import annotations

import ctypes
import re
import sys
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.pty.beds import Service
from tests.pty.browsing import (
    MILLISECONDS,
    TOKEN,
    log_in,
    new_context,
    run,
    screen,
    wait_for_prompt,
    wait_for_text,
    wait_until,
)

CONTRAST = 4.5  # what WCAG 2.2 asks for (1.4.3)


def test_the_tab_bears_the_title_that_a_program_sets(web: Service, page: Page) -> None:
    log_in(page, web.url)
    tail = f" \u2013 {web.url.removeprefix('http://')} \u2013 wstunnel-py"
    for sequence, title in (
        (r"\033]0;vim notes\007", "vim notes"),
        (r"\033]2;héllo 世界\033\\", "héllo 世界"),
        (r"\033]2;tidy\xe2\x80\xae me\007", "tidy me"),
        (rf"\033]2;{'x' * 300}\007", "x" * 100),
    ):
        run(page, rf"printf '{sequence}'; sleep 1000")
        expect(page).to_have_title(title + tail, timeout=MILLISECONDS)
        page.keyboard.press("Control+c")


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.querySelector('.xterm-scrollable-element')).backgroundColor"))


def test_theme_and_font_size_are_chosen_and_kept(web: Service, browser: Browser) -> None:
    with new_context(browser, color_scheme="dark") as context:
        page = context.new_page()
        log_in(page, web.url)
        dark = background(page)
        page.emulate_media(color_scheme="light")
        wait_until(page, lambda: background(page) != dark)
        light = background(page)
        rows = page.locator(".xterm-rows > div").count()
        page.click("#menu-button")
        page.get_by_text("Dark", exact=True).click()
        for _ in range(5):
            page.get_by_role("button", name="Larger").click()
        expect(page.locator("#size")).to_have_text("20")
        page.keyboard.press("Escape")
        wait_until(page, lambda: page.locator(".xterm-rows > div").count() < rows)
        assert background(page) == dark != light
        page.close()
        later = context.new_page()
        log_in(later, web.url)
        assert background(later) == dark
        assert later.evaluate("getComputedStyle(document.querySelector('.xterm-rows')).fontSize") == "20px"
        later.click("#menu-button")
        expect(later.get_by_label("Dark")).to_be_checked()


def test_stored_settings_that_are_no_longer_valid_are_ignored(web: Service, page: Page) -> None:
    page.goto(web.url)
    page.evaluate("Object.assign(localStorage, {theme: 'pink', fontSize: '1e9'})")
    page.reload()
    expect(page.locator("#size")).to_have_text("32", use_inner_text=False)
    assert page.evaluate("document.documentElement.dataset.theme") in ("dark", "light")


def test_characters_are_as_wide_as_the_c_library_believes(web: Service, page: Page) -> None:
    page.goto(web.url)
    ours = page.evaluate(
        """async () => {
          const { width } = await import("/widths.js");
          return Array.from({ length: 0x110000 }, (_, code) => width(code)).join("");
        }"""
    )
    library = ctypes.CDLL(None)
    library.wcwidth.argtypes = [ctypes.c_wchar]
    different = [
        code for code in range(0x20, sys.maxunicode + 1)
        if not 0xD800 <= code < 0xE000 and 0 <= library.wcwidth(chr(code)) != int(ours[code])
    ]  # fmt: skip
    # Both follow Unicode, of some year each.
    assert len(different) < 200, list(map(hex, different))


def test_wide_characters_take_two_columns_and_marks_none(web: Service, page: Page) -> None:
    log_in(page, web.url)
    run(page, r"clear; printf '%s|\n' 123456 世界你 日本語 한국어 '😀🚀🎉' 'éé́ñ456'")
    wait_for_text(page, r"ñ456\|")
    edges = page.evaluate(
        """() => {
          const edges = [];
          for (const row of document.querySelectorAll(".xterm-rows > div")) {
            const walker = document.createTreeWalker(row, NodeFilter.SHOW_TEXT);
            for (let node; (node = walker.nextNode()); ) {
              const at = node.data.indexOf("|");
              if (at < 0 || row.textContent.includes("printf")) continue;
              const range = document.createRange();
              range.setStart(node, at);
              range.setEnd(node, at + 1);
              edges.push(range.getBoundingClientRect().right);
            }
          }
          return edges;
        }"""
    )
    assert len(edges) == 6 and max(edges) - min(edges) < 3, edges  # px


def test_the_font_of_the_users_language_goes_first(web: Service, page: Page) -> None:
    page.goto(web.url)
    families = page.evaluate(
        """async () => {
          const { fontFamily } = await import("/look.js");
          return [["de-DE"], ["ja-JP", "en"], ["ko"], ["zh-TW"], ["en", "zh-Hant-HK"], ["zh-CN"]].map(fontFamily);
        }"""
    )
    first = [re.findall(r"CJK (..)", family)[0] for family in families]
    assert first == ["SC", "JP", "KR", "TC", "TC", "SC"]
    assert all(family.index("monospace") < family.index("CJK") < family.index("Emoji") for family in families)


# ---- the clipboard


def choose(page: Page, action: str) -> None:
    page.click("#menu-button")
    page.click(f"#menu [data-action={action}]")


def test_text_is_copied_and_pasted(web: Service, browser: Browser) -> None:
    with new_context(browser, permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        log_in(page, web.url)
        run(page, r"printf 'wr%s-%s\n' apped $((40+2)); printf '%0.sx' $(seq 150); echo")
        wait_for_text(page, "wrapped-42")
        wait_for_text(page, "x{30}")
        choose(page, "copy")
        expect(page.locator("#hint")).to_contain_text("the whole screen was copied", timeout=MILLISECONDS)
        text = page.evaluate("navigator.clipboard.readText()")
        assert "wrapped-42\n" in text and "x" * 150 in text
        box = page.locator(".xterm-rows > div", has_text=re.compile("^wrapped-42$")).bounding_box()
        assert box
        page.mouse.dblclick(box["x"] + 20, box["y"] + 8)
        page.keyboard.press("Control+Shift+C")
        expect(page.locator("#hint")).to_have_text("Selection copied.", timeout=MILLISECONDS)
        assert page.evaluate("navigator.clipboard.readText()") in ("wrapped", "wrapped-42")
        page.evaluate("navigator.clipboard.writeText('echo pasted-$((40+2))')")
        choose(page, "paste")
        wait_for_text(page, r"echo pasted-\$")
        page.keyboard.press("Enter")
        wait_for_text(page, "pasted-42")


def test_a_refused_clipboard_is_reported_with_what_to_do(web: Service, browser: Browser) -> None:
    with new_context(browser, permissions=[]) as context:
        page = context.new_page()
        log_in(page, web.url)
        choose(page, "paste")
        expect(page.locator("#hint")).to_contain_text("refused to paste. Allow the clipboard", timeout=MILLISECONDS)
        # Without https there is no clipboard to ask for; copying works in the older way.
        page.goto(f"{web.url.replace('127.0.0.1', 'box.test')}/#token={TOKEN}")
        wait_for_prompt(page)
        choose(page, "paste")
        expect(page.locator("#hint")).to_contain_text("Press Ctrl+Shift+V", timeout=MILLISECONDS)
        choose(page, "copy")
        expect(page.locator("#hint")).to_contain_text("copied", timeout=MILLISECONDS)


# ---- for everybody


def test_everything_has_a_name_and_the_keyboard_gets_everywhere(web: Service, page: Page) -> None:
    log_in(page, web.url)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea")]
          .filter((each) => !(each.ariaLabel || each.labels?.[0]?.textContent.trim() || each.textContent.trim()))
          .map((each) => each.outerHTML)"""
    )
    assert nameless == []
    page.keyboard.press("Tab")
    expect(page.get_by_label(re.compile("Control F6 leaves it"))).to_be_focused()
    page.keyboard.press("Control+F6")
    expect(page.get_by_role("button", name="Menu")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("System")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Menu")).to_be_focused()
    page.keyboard.press("Tab")
    run(page, "echo back-$((40+2))")
    wait_for_text(page, "back-42")


def test_a_screen_reader_gets_the_output(web: Service, page: Page) -> None:
    log_in(page, web.url)
    page.click("#menu-button")
    page.get_by_label("Read output to screen readers").check()
    page.keyboard.press("Escape")
    page.locator(".xterm-helper-textarea").focus()
    run(page, "echo spoken-$((40+2))")
    expect(page.locator(".xterm-accessibility")).to_contain_text("spoken-42", timeout=MILLISECONDS)


def test_nothing_moves_for_users_who_prefer_reduced_motion(web: Service, browser: Browser) -> None:
    with new_context(browser, reduced_motion="reduce") as context:
        page = context.new_page()
        log_in(page, web.url)
        assert page.locator(".xterm-cursor-blink").count() == 0
        moving = "getComputedStyle(document.querySelector('.spinner')).animationName"
        assert page.evaluate(moving) == "none"


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_text_stands_out_from_what_is_behind_it(web: Service, browser: Browser, theme: Any) -> None:
    with new_context(browser, color_scheme=theme) as context:
        page = context.new_page()
        page.goto(web.url)
        ratios = page.evaluate(
            """async () => {
              const { look } = await import("/look.js");
              const probe = document.body.appendChild(document.createElement("i"));
              const light = (colour) => {
                probe.style.color = colour;
                const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
                const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const ratio = (...pair) => {
                const [low, high] = pair.map(light).sort((a, b) => a - b);
                return (high + 0.05) / (low + 0.05);
              };
              const ratios = {};
              for (const pair of ["text page", "text bar", "text card", "text key", "soft bar", "soft card", "bad card",
                "on-accent accent", "accent key", "warn warn-page", "soft warn-page", "text warn-page"]) {
                ratios[pair] = ratio(...pair.split(" ").map((name) => `var(--${name})`));
              }
              const { background, ...colours } = look.options.theme;
              for (const name of ["selectionBackground", "cursorAccent", "black"]) delete colours[name];
              for (const [name, colour] of Object.entries(colours)) ratios[name] = ratio(colour, background);
              probe.remove();
              return ratios;
            }"""
        )
        assert {name: round(ratio, 2) for name, ratio in ratios.items() if ratio < CONTRAST} == {}
        assert len(ratios) > 25


def test_the_page_is_whole_in_a_small_window(web: Service, browser: Browser) -> None:
    with new_context(browser, viewport={"width": 320, "height": 256}) as context:  # WCAG 2.2, 1.4.10
        page = context.new_page()
        page.goto(web.url)
        page.get_by_role("button", name="Open terminal").scroll_into_view_if_needed()
        expect(page.get_by_role("button", name="Open terminal")).to_be_in_viewport()
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        wait_for_prompt(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        assert screen(page).strip()
