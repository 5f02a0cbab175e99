"""How the token gets into the page, where it is kept, and what the service prints for that at its start."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS
from tests.pty.beds import Service
from tests.pty.browsing import (
    MILLISECONDS,
    TOKEN,
    log_in,
    run,
    start_page_service,
    wait_for_prompt,
    wait_for_state,
    wait_for_text,
)
from tests.pty.typist import Typist
from tunnel.pty.web.invitation import invitation, may_show_secrets, page_address


def stored(page: Page) -> str:
    return str(
        page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, history.state])")
    )


def test_a_link_with_the_token_opens_the_terminal_and_leaves_no_token_behind(web: Service, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url + request.headers.get("referer", "")))
    page.goto(f"{web.url}/#token={TOKEN}")
    wait_for_prompt(page)
    assert page.url == f"{web.url}/"
    assert len(asked) > 10 and not any(TOKEN in url for url in asked)
    assert page.evaluate("document.documentElement.outerHTML.includes(sessionStorage.token)") is False
    assert page.evaluate("Object.values(localStorage).length") == 0 and page.evaluate("document.cookie") == ""
    page.go_back()
    assert TOKEN not in page.url


def test_a_token_with_every_character_that_one_may_have(bed: Bed, tmp_path: Path, page: Page) -> None:
    service = start_page_service(bed, tmp_path, token="aZ09._~+/-x==")
    page.goto(f"{service.url}/#token=aZ09._~+/-x==")
    wait_for_prompt(page)
    page.evaluate("sessionStorage.clear()")
    page.goto("about:blank")
    page.goto(f"{service.url}/#token=aZ09._~%2B%2F-x%3D%3D")
    wait_for_prompt(page)


def test_a_link_is_followed_while_the_page_is_open(web: Service, page: Page) -> None:
    page.goto(web.url)
    wait_for_state(page, "login")
    page.evaluate(f"location.hash = '#token={TOKEN}'")
    wait_for_prompt(page)
    assert page.url == f"{web.url}/"


def test_a_wrong_token_in_a_link_is_reported_and_removed_as_well(web: Service, page: Page) -> None:
    for token, problem in (("wrong", "does not accept this token"), ("%E0%A4%A", "That is not a token")):
        page.goto("about:blank")
        page.goto(f"{web.url}/#token={token}")
        expect(page.locator("#problem")).to_contain_text(problem, timeout=MILLISECONDS)
        assert page.url == f"{web.url}/"


def test_an_impossible_token_is_reported_before_it_is_sent(web: Service, page: Page) -> None:
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url))
    page.goto(web.url)
    for text in ("two words", "schlüssel", "令牌", f"{web.url}/#token={TOKEN}"):
        page.fill("#token", text)
        page.keyboard.press("Enter")
        expect(page.locator("#problem")).to_contain_text("That is not a token", timeout=MILLISECONDS)
    assert not any("process.Process" in url for url in calls)


def test_a_token_is_forgotten_on_request_and_the_terminal_waits(web: Service, page: Page) -> None:
    log_in(page, web.url)
    run(page, "before=$((6*7)); echo set-$before")
    wait_for_text(page, "set-42")
    page.click("#menu-button")
    page.click("#menu [data-action=leave]")
    wait_for_state(page, "login")
    assert TOKEN not in stored(page)
    page.reload()
    wait_for_state(page, "login")
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    wait_for_prompt(page)
    run(page, "echo still-$before")
    wait_for_text(page, "still-42")


def test_the_form_says_where_it_is_and_whether_that_is_safe(web: Service, page: Page) -> None:
    page.goto(web.url)
    host = web.url.removeprefix("http://")
    expect(page.locator("h1")).to_have_text(f"Terminal on {host}")
    assert page.title() == f"{host} \u2013 wstunnel-py"
    expect(page.get_by_label("Access token")).to_be_focused()
    expect(page.get_by_text("Not encrypted.")).to_be_hidden()  # loopback
    page.goto(web.url.replace("127.0.0.1", "box.test"))
    expect(page.get_by_text("Not encrypted.")).to_be_visible()


# ---- what the service prints


SERVE = (*OURS, "serve", "--listen", "none", "--pty", "127.0.0.1:0", "--web", "--pty-token-file")


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# for the page\n{TOKEN}\nanother\n")
    return path


def test_a_terminal_gets_a_link_that_opens_the_page(
    tokens: Path, tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    log = tmp_path / "log"
    with Typist(*SERVE, str(tokens), "--log-file", str(log), cols=200) as typist:
        typist.output.wait_for_match(rb"open http://\S+ in a browser on this machine")
        found = re.search(rb"open (http://\S+) in", typist.output.data)
        assert found and found[1].decode().endswith(f"/#token={TOKEN}")
        page.goto(found[1].decode())
        wait_for_prompt(page)
        page.goto("about:blank")
        typist.send_signal(signal.SIGTERM)
        typist.wait()
    assert TOKEN not in log.read_text()


@pytest.mark.parametrize("kept", ["a file", "JSON", "a CI job"])
def test_a_log_gets_no_token(tokens: Path, bed: Bed, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kept == "a CI job":  # whose terminal is kept as a log
        monkeypatch.setenv("CI", "true")
        with Typist(*SERVE, str(tokens), cols=200) as typist:
            typist.see(f"asks for the token in {tokens}")
            text = typist.output.data.decode()
    else:
        process = bed.start(*SERVE, str(tokens), *(("--log-format", "json") if kept == "JSON" else ()))
        process.wait_for_line("terminals-ready" if kept == "JSON" else re.escape(f"asks for the token in {tokens}"))
        text = process.log()
    assert TOKEN not in text and "another" not in text and "#token" not in text
    assert (kept == "JSON") or "open http://127.0.0.1:" in text


@pytest.mark.parametrize(
    ("urls", "address"),
    [
        (["http://127.0.0.1:80"], "http://127.0.0.1:80/"),
        (["http://[::1]:49983"], "http://[::1]:49983/"),
        (["http://0.0.0.0:49983"], "http://127.0.0.1:49983/"),
        (["http://[::]:49983"], "http://[::1]:49983/"),
        (["http://192.0.2.1:49983"], "http://192.0.2.1:49983/"),
        (["unix:/run/page"], None),
    ],
)
def test_the_address_is_one_that_a_browser_can_open(urls: list[str], address: str | None) -> None:
    assert page_address(urls) == address


def test_those_who_are_elsewhere_are_told_how_to_get_there() -> None:
    def lines(*hosts: str, url: str = "http://127.0.0.1:9", token: str | None = "T", **environ: str) -> list[str]:
        return invitation([url], hosts, token=token, token_file="FILE", environ=environ)

    here = "open http://127.0.0.1:9/#token=T in a browser on this machine"
    assert lines() == [here]
    tunnelled = "from another machine: ssh -L 9:127.0.0.1:9 to this one, then open the same address there"
    assert lines(SSH_CONNECTION="1.2.3.4 5 6.7.8.9 22") == [here, tunnelled]
    with_proxy = "with a reverse proxy that has TLS: open https://box.example.org/#token=T"
    assert lines("box.example.org", SSH_CONNECTION="x") == [here, with_proxy]
    assert lines("*.example.org") == [
        here, "with a reverse proxy: open its address for this service, with #token=…"
    ]  # fmt: skip
    direct = "open http://box.example.org:9/#token=T on another machine (not encrypted)"
    assert lines("box.example.org", url="http://0.0.0.0:9") == [here, direct, with_proxy]
    assert lines(url="http://[::]:9")[1] == "open http://IP-ADDRESS:9/#token=T on another machine (not encrypted)"
    assert lines("box.example.org", "*.example.org", token=None, url="unix:/run/page") == [
        "with a reverse proxy that has TLS: open https://box.example.org/", "the page asks for the token in FILE"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("terminal", "session", "environment", "shown"),
    [
        (True, 4711, {}, True),
        (False, 4711, {}, False),
        (True, 1, {}, False),  # docker run --tty, whose terminal is kept as a log
        (True, 4711, {"CI": "true"}, False),
    ],
)
def test_a_token_is_shown_on_a_terminal_that_somebody_sits_at_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, session: int, environment: dict[str, str], shown: bool
) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: terminal and descriptor == 2)
    monkeypatch.setattr(os, "getsid", lambda pid: session)
    monkeypatch.delenv("CI", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert may_show_secrets() is shown
