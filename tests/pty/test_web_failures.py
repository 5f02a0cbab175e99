"""What the page says when something fails: in plain words, and with what to do next."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.bed.nginx import nginx
from tests.bed.processes import Bed
from tests.pty.beds import Service
from tests.pty.browsing import (
    MILLISECONDS,
    TOKEN,
    log_in,
    new_context,
    run,
    start_page_service,
    wait_for_prompt,
    wait_for_state,
    wait_for_text,
)
from tests.pty.cutting import CuttingProxy
from tests.server.clients import ask

CALLS = "**/process.Process/*"
# What an edge answers in place of the service, and words that tell what it is and what to do.
EDGES = {
    401: ("refused the request (HTTP 401)", "Reload this page to sign in"),
    403: ("refused the request (HTTP 403)", "let POST requests to /process.Process/ through"),
    404: ("does not know this machine (HTTP 404)", "address may have changed"),
    413: ("does not accept requests of this size (HTTP 413)", "Paste less"),
    429: ("too many requests (HTTP 429)", "Wait a minute"),
    500: ("answered HTTP 500", "log may say why"),
    502: ("the terminal service behind it does not (HTTP 502)", "wstunnel-py serve runs there"),
    503: ("the terminal service behind it does not (HTTP 503)", "wstunnel-py serve runs there"),
    504: ("the terminal service behind it does not (HTTP 504)", "wstunnel-py serve runs there"),
}


def over(page: Page) -> str:
    """Wait until the page reports that it cannot continue; return its message."""
    wait_for_state(page, "over")
    text = page.inner_text("#over p")
    assert not re.search(r"Failed to fetch|NetworkError|TypeError|undefined|\[object", text)
    return text


def test_what_an_edge_answers_is_reported_in_words(web: Service, page: Page) -> None:
    status = 0

    def refuse(route: Route) -> None:
        route.fulfill(status=status, content_type="text/html", body="<h1>Sorry</h1>")

    page.goto(web.url)
    page.route(CALLS, refuse)
    page.fill("#token", TOKEN)
    for status in EDGES:
        if status == next(iter(EDGES)):
            page.keyboard.press("Enter")
        else:
            page.click("#retry")
        what, next_step = EDGES[status]
        expect(page.locator("#over p")).to_contain_text(what, timeout=MILLISECONDS)
        assert next_step in over(page)
    page.unroute(CALLS)
    page.click("#retry")
    wait_for_prompt(page)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 302, "headers": {"Location": "/login"}}, "Reload this page and sign in."),
        (
            {"status": 200, "content_type": "text/html", "body": "<h1>Log in</h1>"},
            "perhaps a proxy requires you to sign in",
        ),
        ({"status": 502, "body": '{"code": 502, "message": "no sandbox"}'}, "wstunnel-py serve runs there"),
        ({"status": 403, "body": '{"code": "Forbidden"}'}, "refused the request (HTTP 403)"),
    ],
)
def test_an_edge_that_is_misleading_is_seen_through(
    web: Service, page: Page, answer: dict[str, Any], words: str
) -> None:
    page.route(CALLS, lambda route: route.fulfill(**answer))
    page.goto(f"{web.url}/#token={TOKEN}")
    assert words in over(page)


@pytest.mark.parametrize(
    ("status", "code", "message", "words"),
    [
        (403, "permission_denied", "web pages of this origin may not use the service", "pass on the Host header"),
        (403, "permission_denied", "unknown host name", "start it with --pty-host 127.0.0.1"),
        (429, "resource_exhausted", "too many processes", "--pty-max-processes"),
        (503, "unavailable", "the service is stopping", "once it has been started again"),
        (500, "internal", "out of pseudo-terminals", "out of pseudo-terminals"),
    ],
)
def test_what_the_service_refuses_is_reported_in_words(
    web: Service, page: Page, status: int, code: str, message: str, words: str
) -> None:
    body = json.dumps({"code": code, "message": message})
    page.route(CALLS, lambda route: route.fulfill(status=status, content_type="application/json", body=body))
    page.goto(f"{web.url}/#token={TOKEN}")
    assert words in over(page)


def test_a_proxy_that_changes_the_host_header_is_blamed(bed: Bed, web: Service, page: Page) -> None:
    """That is what nginx does by itself."""
    folder = bed.folder / "nginx"
    folder.mkdir()
    plain = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {url}; proxy_buffering off; }} }}"
    _, port = bed.start_on_free_port(lambda port: nginx(folder, plain.format(port=port, url=web.url)))
    page.goto(f"http://127.0.0.1:{port}/#token={TOKEN}")
    expect(page.locator(".stuck")).to_contain_text("proxy_set_header Host $http_host")
    assert page.locator(".stuck").evaluate("element => getComputedStyle(element).animationName") == "none"
    page.goto("about:blank")  # closes the connections before nginx ends


def test_a_machine_that_does_not_answer_at_first_can_be_tried_again(web: Service, page: Page) -> None:
    with CuttingProxy(web.url) as proxy:
        page.goto(proxy.url)
        proxy.away = True
        proxy.cut()
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        text = over(page)
        assert f"127.0.0.1:{proxy.port} does not answer." in text and "wstunnel-py serve runs there" in text
        expect(page.locator("#state")).to_have_text("Not connected")
        assert page.title().startswith("Not connected \u2013 ")
        proxy.away = False
        page.click("#retry")
        wait_for_prompt(page)
        page.goto("about:blank")


def test_a_lost_connection_and_its_return_are_reported(web: Service, page: Page) -> None:
    with CuttingProxy(web.url) as proxy:
        log_in(page, proxy.url)
        run(page, "before=$((6*7))")
        proxy.away = True
        proxy.cut()
        lost = page.locator("#lost")
        expect(lost).to_contain_text("Connection lost.", timeout=MILLISECONDS)
        expect(page.locator("#state")).to_have_text("Disconnected")
        assert page.title().startswith("Connection lost \u2013 ")
        expect(lost).to_contain_text("does not answer. Check that the machine is on", timeout=MILLISECONDS)
        page.locator(".xterm-helper-textarea").focus()
        run(page, "echo typed-meanwhile-$before")
        expect(page.locator("#now")).to_be_visible()
        proxy.away = False
        page.dispatch_event("#now", "click")  # even if it has just been tried by itself, and the button is hidden
        wait_for_text(page, "typed-meanwhile-42")
        expect(lost).to_be_hidden()
        expect(page.locator("#state")).to_have_text("Connected")
        assert not page.title().startswith("Connection lost")
        page.goto("about:blank")


def test_a_device_without_a_network_gets_a_message_that_says_so(web: Service, page: Page) -> None:
    with CuttingProxy(web.url) as proxy:
        log_in(page, proxy.url)
        page.context.set_offline(True)
        proxy.cut()
        expect(page.locator("#lost")).to_contain_text("This device is offline.", timeout=MILLISECONDS)
        page.context.set_offline(False)
        wait_for_state(page, "connected")
        page.goto("about:blank")


def test_a_machine_that_falls_silent_is_noticed(bed: Bed, tmp_path: Path, page: Page) -> None:
    """No connection breaks when a machine is suspended or a network goes away."""
    service = start_page_service(bed, tmp_path)
    page.clock.install()
    log_in(page, service.url)
    service.process.send_signal(signal.SIGSTOP)
    try:
        page.clock.fast_forward("00:41")
        wait_for_state(page, "lost")
        page.clock.fast_forward("00:05")  # the next attempt begins, and hears nothing either
        page.clock.fast_forward("00:11")
        expect(page.locator("#lost")).to_contain_text("has gone silent", timeout=MILLISECONDS)
        expect(page.locator("#now")).to_be_visible()
    finally:
        service.process.send_signal(signal.SIGCONT)
    page.dispatch_event("#now", "click")  # even if it has just been tried by itself, and the button is hidden
    run(page, "echo alive-$((40+2))")
    wait_for_text(page, "alive-42")


def test_a_proxy_that_wants_a_login_in_between_does_not_cost_the_terminal(web: Service, page: Page) -> None:
    with CuttingProxy(web.url) as proxy:
        log_in(page, proxy.url)
        run(page, "before=$((6*7)); echo set-$before")
        wait_for_text(page, "set-42")
        page.route(CALLS, lambda route: route.fulfill(status=401, body="who are you?"))
        proxy.cut()
        assert "sign in" in over(page)
        page.unroute(CALLS)
        page.click("#retry")
        wait_for_prompt(page)
        run(page, "echo still-$before")
        wait_for_text(page, "still-42")
        page.goto("about:blank")


def test_a_token_that_was_withdrawn_is_asked_for_again_and_the_terminal_is_kept(
    bed: Bed, tmp_path: Path, page: Page
) -> None:
    service = start_page_service(bed, tmp_path)
    with CuttingProxy(service.url) as proxy:
        log_in(page, proxy.url)
        run(page, "before=$((6*7)); echo set-$before")
        wait_for_text(page, "set-42")
        (tmp_path / "tokens").write_text("another-token\n")
        service.process.send_signal(signal.SIGHUP)
        service.process.wait_for_line("reloaded")
        proxy.cut()
        problem = page.locator("#problem")
        expect(problem).to_contain_text("no longer accepts this token. Enter the new one.", timeout=MILLISECONDS)
        page.fill("#token", "another-token")
        page.keyboard.press("Enter")
        wait_for_prompt(page)
        run(page, "echo still-$before")
        wait_for_text(page, "still-42")
        page.goto("about:blank")


def test_how_a_terminal_ended_is_reported(bed: Bed, tmp_path: Path, page: Page) -> None:
    service = start_page_service(bed, tmp_path)
    log_in(page, service.url)
    for command, words in (
        ("exit 0", "The shell ended."),
        ("kill -KILL $$", "The terminal was killed. Somebody killed it (wstunnel-py pty kill)"),
        ("trap - TERM; kill -TERM $$; kill -ABRT $$", "The terminal was ended by a signal ("),
    ):
        run(page, command)
        assert words in over(page)
        assert page.title().startswith("Ended \u2013 ")
        page.click("#again")
        wait_for_prompt(page)
    service.process.send_signal(signal.SIGTERM)
    assert "The terminal was hung up. This happens when the service stops" in over(page)


def test_a_terminal_that_is_gone_after_a_reload_is_reported(web: Service, page: Page) -> None:
    log_in(page, web.url)
    page.evaluate("""sessionStorage.setItem("terminal", '{"pid": 1, "process": "00000000000000000000000000000000"}')""")
    page.reload()
    assert "This terminal no longer exists." in over(page)
    page.click("#again")
    wait_for_prompt(page)


@pytest.mark.parametrize("how", ["browser", "retry", "reload"])
def test_a_terminal_whose_start_was_not_answered_is_not_started_twice(
    bed: Bed, tmp_path: Path, page: Page, how: str
) -> None:
    service = start_page_service(bed, tmp_path)
    with CuttingProxy(service.url) as proxy:
        # If a connection that was used before breaks, Chromium repeats the request without a word.
        proxy.lose_answers["Start"] = 1 if how == "browser" else 100
        page.goto(proxy.url)
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        if how != "browser":
            over(page)
            proxy.lose_answers["Start"] = 0
            page.click("#retry") if how == "retry" else page.reload()
        wait_for_prompt(page)
        run(page, "echo typed-$((40+2))")
        wait_for_text(page, "typed-42")
        headers = {"Content-Type": "application/json", "X-Access-Token": TOKEN}
        listed = ask(service.url, "/process.Process/List", "POST", headers, b"{}").json
        assert len(listed["processes"]) == 1
        assert proxy.lose_answers["Start"] == 0
        page.goto("about:blank")


def test_input_that_cannot_be_sent_is_bounded_and_reported(web: Service, page: Page) -> None:
    with CuttingProxy(web.url) as proxy:
        log_in(page, proxy.url)
        proxy.away = True
        proxy.cut()
        wait_for_state(page, "lost")
        page.evaluate(
            """() => {
              const clipboardData = new DataTransfer();
              clipboardData.setData("text/plain", "x".repeat(9 << 20));
              document.activeElement.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
            }"""
        )
        expect(page.locator("#hint")).to_contain_text("Too much input is waiting to be sent.", timeout=MILLISECONDS)
        page.goto("about:blank")


def test_a_browser_without_scripts_or_storage_is_helped(web: Service, browser: Browser) -> None:
    with new_context(browser, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(web.url)
        assert "needs JavaScript" in (page.locator("noscript p").text_content() or "")
        expect(page.locator("#loading-what")).to_be_hidden()
    with new_context(browser) as context:
        context.add_init_script(
            """for (const name of ["localStorage", "sessionStorage"])
              Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });"""
        )
        page = context.new_page()
        log_in(page, web.url)
        run(page, "echo unkept-$((40+2))")
        wait_for_text(page, "unkept-42")
