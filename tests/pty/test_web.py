"""The terminal in the browser, in headless Chromium."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from tests.bed.processes import Bed, ticks
from tests.bed.tunnels import OURS
from tests.pty.beds import LIMIT, Service, start_service
from tests.pty.browsing import MILLISECONDS, TOKEN, log_in, run, screen, wait_for_prompt, wait_for_text, wait_until
from tests.pty.cutting import CuttingProxy
from tests.server.clients import ask


def test_what_is_typed_is_run_and_colours_are_shown(web: Service, page: Page) -> None:
    log_in(page, web.url)
    run(page, r"printf '\033[31m%s\033[0m\n' red-$((40+2)); echo héllo-✓; tty")
    wait_for_text(page, "héllo-✓\n(.|\n)*/dev/pts/")
    red = page.locator(".xterm-rows span", has_text=re.compile("^red-42$"))
    assert red.evaluate("element => getComputedStyle(element).color") != page.locator(".xterm-rows").evaluate(
        "element => getComputedStyle(element).color"
    )


def test_the_terminal_has_the_size_of_the_window(web: Service, page: Page) -> None:
    log_in(page, web.url)
    sizes = []
    for width, height in ((900, 500), (600, 300)):
        page.set_viewport_size({"width": width, "height": height})
        for _ in ticks(LIMIT):
            run(page, "clear; stty size")
            rows, columns = map(int, wait_for_text(page, r"\b\d+ \d+\b").split())
            if abs(columns * 9 - width) < 60:
                break
            page.wait_for_timeout(100)
        sizes.append((rows, columns))
    assert sizes[0][0] > sizes[1][0] and sizes[0][1] > sizes[1][1]
    assert page.locator(".xterm-rows > div").count() == sizes[1][0]


def test_a_reload_finds_the_same_shell_with_what_it_wrote(web: Service, page: Page) -> None:
    log_in(page, web.url)
    run(page, "secret=$((6*7)); echo before-$secret")
    wait_for_text(page, "before-42")
    page.reload()
    wait_for_text(page, "before-42")
    run(page, "echo after-$secret")
    wait_for_text(page, "after-42")


def test_a_lost_connection_comes_back_and_nothing_is_missing_or_doubled(web: Service, page: Page) -> None:
    with CuttingProxy(web.url) as proxy:
        log_in(page, proxy.url)
        run(page, "for i in $(seq 1 8); do echo line-$i-; sleep 0.3; done; echo done-$((40+2))")
        wait_for_text(page, "line-2-")
        proxy.cut()
        wait_for_text(page, "line-4-")
        proxy.cut()
        wait_for_text(page, "done-42")
        lines = re.findall(r"^line-(\d)-$", screen(page), re.MULTILINE)
        assert lines == list("12345678")
        # The second cut may have come when everything was shown already.
        wait_until(page, lambda: proxy.calls.count("Connect") >= 2)
        assert re.findall(r"^line-(\d)-$", screen(page), re.MULTILINE) == lines
        page.goto("about:blank")  # closes the connections before the proxy does


def test_what_is_typed_while_a_call_is_on_its_way_goes_together(web: Service, page: Page) -> None:
    log_in(page, web.url)
    held: list[Route] = []
    page.route("**/SendInput", lambda route: held.append(route))
    page.keyboard.type("echo ")
    wait_until(page, lambda: len(held) == 1)
    page.keyboard.type("0123456789" * 5 + "-$((40+2))")
    page.keyboard.press("Enter")
    held[0].continue_()
    wait_until(page, lambda: len(held) == 2)
    held[1].continue_()
    wait_for_text(page, "(?m)^" + "0123456789" * 5 + "-42")
    assert len(held) == 2
    page.unroute("**/SendInput")


def test_a_wrong_token_is_reported_and_can_be_corrected(web: Service, page: Page) -> None:
    page.goto(web.url)
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_contain_text("does not accept this token", timeout=MILLISECONDS)
    expect(page.locator("#help")).to_contain_text("a line of the file that --pty-token-file names")
    expect(page.locator("#token")).to_be_focused()
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    wait_for_prompt(page)
    run(page, "echo in-$((40+2))")
    wait_for_text(page, "in-42")
    assert TOKEN not in page.url


def test_the_end_of_the_shell_is_told_and_another_can_be_opened(web: Service, page: Page) -> None:
    log_in(page, web.url)
    run(page, "exit 7")
    expect(page.locator("#over-what")).to_have_text("The shell ended with exit code 7.", timeout=MILLISECONDS)
    page.click("#again")
    wait_for_prompt(page)
    run(page, "echo again-$((40+2))")
    wait_for_text(page, "again-42")


def test_a_flood_is_shown_to_its_end(web: Service, page: Page) -> None:
    log_in(page, web.url)
    run(page, "seq 1 200000; echo flooded-$((40+2))")
    wait_for_text(page, "199999\n200000\nflooded-42")


# ---- who may


def test_the_page_lets_scripts_come_from_itself_only(web: Service) -> None:
    answer = ask(web.url, headers={})
    headers = answer.headers
    assert answer.status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"


def test_other_pages_and_other_names_are_refused(web: Service) -> None:
    assert ask(web.url, headers={"Origin": "https://evil.example"}).status == 403
    refused = ask(web.url, headers={"Host": "evil.example"})
    assert refused.status == 403 and refused.headers["content-type"] == "application/json"
    refused = ask(web.url, headers={"Host": "evil.example", "Accept": "text/html,*/*;q=0.8"})
    assert refused.status == 403 and refused.headers["content-type"].startswith("text/plain")
    assert refused.body.decode() == "unknown host name: start the service with --pty-host NAME, or use its IP address\n"
    assert ask(web.url, "/files?path=/etc/passwd", headers={}).status == 401
    assert ask(web.url, "/vendor/LICENSE", headers={}).status == 200
    assert ask(web.url, "/vendor/../settings.py", headers={}).status in (401, 404)


def test_without_a_token_file_there_is_no_page(bed: Bed, tmp_path: Path) -> None:
    def refusal(*options: str) -> str:
        done = bed.run(*OURS, "serve", "--listen", "127.0.0.1:0", *options)
        assert done.status == 2 and done.stderr.count("\n") == 1
        return done.stderr

    empty = tmp_path / "empty"
    empty.touch()
    assert "--web: the web page requires --pty-token-file" in refusal("--pty", "127.0.0.1:0", "--web")
    assert "--web: the web page requires --pty\n" in refusal("--web")
    assert "there is no token in it" in refusal("--pty", "127.0.0.1:0", "--web", "--pty-token-file", str(empty))


def test_a_service_without_the_page_has_none(bed: Bed) -> None:
    assert ask(start_service(bed).url, headers={}).status == 404
