"""The page on a touch screen: the row of keys, scrolling with a finger, the keyboard on the screen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.bed.processes import ticks
from tests.pty.beds import LIMIT, Service
from tests.pty.browsing import (
    PHONE,
    TOKEN,
    log_in,
    new_context,
    run,
    screen,
    wait_for_prompt,
    wait_for_text,
    wait_until,
)


@pytest.fixture
def phone(web: Service, browser: Browser) -> Iterator[Page]:
    """A terminal on a phone, ready to be typed into."""
    with new_context(browser, **PHONE) as context:
        page = context.new_page()
        page.goto(f"{web.url}/#token={TOKEN}")
        wait_for_prompt(page)
        page.tap(".xterm-screen")
        yield page


def tap(page: Page, name: str) -> None:
    page.locator("#keys").get_by_role("button", name=name, exact=True).tap()


def test_the_row_has_the_keys_that_touch_screens_lack(phone: Page) -> None:
    run(phone, "cat -v")
    for name in ("Escape", "Pipe", "Tilde", "Slash", "Hyphen", "Left", "Up", "Down", "Right"):
        tap(phone, name)
    run(phone, "!")
    wait_for_text(phone, r"(?m)^\^\[\|~/-\^\[\[D\^\[\[A\^\[\[B\^\[\[C!$")
    assert phone.evaluate("document.activeElement.className") == "xterm-helper-textarea"  # its keyboard stays open
    tap(phone, "Control")
    phone.keyboard.type("c")
    run(phone, r"clear; printf '\033[?1h'; echo ready-$((40+2)); cat -v")
    wait_for_text(phone, "ready-42")
    tap(phone, "Up")  # as programs that asked for other arrows get it
    run(phone, "!")
    wait_for_text(phone, r"\^\[OA!")


def test_control_and_alt_apply_to_the_next_key_or_stay_on(phone: Page) -> None:
    control = phone.locator("#keys").get_by_role("button", name="Control")
    run(phone, "cat -v")
    tap(phone, "Control")
    expect(control).to_have_attribute("aria-pressed", "mixed")
    tap(phone, "Up")
    expect(control).to_have_attribute("aria-pressed", "false")
    tap(phone, "Alt")
    phone.keyboard.type("xx")
    tap(phone, "Alt")
    tap(phone, "Control")
    tap(phone, "Left")
    run(phone, "!")
    wait_for_text(phone, r"\^\[\[1;5A\^\[xx\^\[\[1;7D!")
    tap(phone, "Control")
    tap(phone, "Control")
    expect(control).to_have_attribute("aria-pressed", "true")
    phone.keyboard.type("cl")  # interrupts, and clears the screen
    tap(phone, "Control")
    run(phone, "echo typed-$((40+2))")
    wait_for_text(phone, "typed-42")


def test_tab_completes(phone: Page) -> None:
    phone.keyboard.type("ls /etc/hostn")
    tap(phone, "Tab")
    wait_for_text(phone, r"ls /etc/hostname")


def test_a_finger_scrolls_the_output_and_the_program(phone: Page) -> None:
    run(phone, "seq 1 300")
    wait_for_text(phone, r"\b300\b")

    def swipe(start: int, end: int) -> None:
        session = phone.context.new_cdp_session(phone)
        steps = [{"x": 100, "y": start + (end - start) * step / 10} for step in range(11)]
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": steps[:1]})
        for step in steps[1:]:
            session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [step]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def swipe_until(pattern: str, start: int, end: int) -> None:
        for _ in ticks(LIMIT, 0.2):
            if re.search(pattern, screen(phone)):
                return
            swipe(start, end)
        raise AssertionError(f"no {pattern!r} in\n{screen(phone)}")

    swipe_until(r"\b200\b", 200, 500)
    swipe_until(r"\b300\b", 500, 200)
    run(phone, "clear; seq 1 300 | less")
    wait_for_text(phone, r"(?m)^1$")
    swipe_until(r"\b100\b", 500, 200)


def test_the_terminal_ends_where_the_keyboard_begins(web: Service, browser: Browser) -> None:
    """There is no keyboard on the screen of a headless browser: what it would report is made up."""
    with new_context(browser, **PHONE) as context:
        context.add_init_script(
            """const viewport = Object.assign(new EventTarget(), { height: 844, offsetTop: 0, scale: 1 });
            Object.defineProperty(window, "visualViewport", { value: viewport });
            window.show = (height, scale) => {
              Object.assign(viewport, { height, scale });
              viewport.dispatchEvent(new Event("resize"));
            };"""
        )
        page = context.new_page()
        page.goto(f"{web.url}/#token={TOKEN}")
        wait_for_prompt(page)

        def lowest() -> float:
            box = page.locator("#keys").bounding_box()
            assert box
            return box["y"] + box["height"]

        assert abs(lowest() - 844) < 2
        rows = page.locator(".xterm-rows > div").count()
        page.evaluate("show(430, 1)")
        wait_until(page, lambda: page.locator(".xterm-rows > div").count() < rows)
        assert abs(lowest() - 430) < 2
        page.evaluate("show(220, 1)")  # in landscape: the terminal needs the header's place
        expect(page.locator("header")).to_be_hidden()
        page.evaluate("show(422, 2)")  # zoomed by the user, who wants no other layout then
        assert abs(lowest() - 220) < 2


def test_a_device_with_a_mouse_gets_no_row_of_keys(web: Service, page: Page) -> None:
    log_in(page, web.url)
    expect(page.locator("#keys")).to_be_hidden()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (844, 390), (320, 568)])
def test_everything_is_on_the_screen_and_large_enough_for_a_finger(
    web: Service, browser: Browser, width: int, height: int
) -> None:
    with new_context(browser, **{**PHONE, "viewport": {"width": width, "height": height}}) as context:
        page = context.new_page()
        page.goto(f"{web.url}/#token={TOKEN}")
        wait_for_prompt(page)
        boxes = [each.bounding_box() for each in page.locator("#keys button").all()]
        assert len(boxes) == 14
        for box in boxes:
            assert box and box["width"] >= 36 and box["height"] >= 36
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
