"""Calls to E2B's API and the use of its answers. A stand-in answers, because tests cannot reach the cloud."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.bed.processes import Bed, Finished
from tests.templates.e2b.programs import LANGUAGES, build, make_key

pytestmark = pytest.mark.timeout(300)  # Node is slow to start


class Api(ThreadingHTTPServer):
    """Answers as E2B's API would; ``requests`` are what was asked: method, path, JSON."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.requests: list[tuple[str, str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def environment(self) -> dict[str, str]:
        return {"E2B_API_KEY": "e2b_" + "0" * 40, "E2B_API_URL": self.url, "E2B_SANDBOX_URL": self.url}


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path, json.loads(body) if body else None))
        status, kind, answer = 404, "application/json", b'{"code": 404, "message": "there is no\\nsuch thing"}'
        if (self.command, path) == ("POST", "/v2/sandboxes"):
            private = not json.loads(body)["network"]["allowPublicTraffic"]
            made = {"sandboxID": "i5b0x", "templateID": "t", "clientID": "c", "envdVersion": "0.4.0", "domain": None}
            status, answer = 201, json.dumps(made | ({"trafficAccessToken": "s3cret"} if private else {})).encode()
        elif (self.command, path) == ("GET", "/files"):
            status, kind, answer = 200, "application/octet-stream", b"ssh-ed25519 AAAAhostkey root@sandbox\n"
        elif (self.command, path) == ("DELETE", "/sandboxes/i5b0x"):
            status, answer = 204, b""
        elif path == "/v3/templates":
            status, answer = 401, b'{"code": 401, "message": "Invalid\\nAPI key"}'
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_DELETE = _answer  # the names that http.server looks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as api:
        thread = Thread(target=api.serve_forever, args=(0.05,))
        thread.start()
        yield api
        api.shutdown()
        thread.join()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_build_needs_an_api_key_that_e2b_takes(bed: Bed, folder: Path, api: Api, language: str) -> None:
    options = ("--public-key", str(make_key(folder, bed)), "--bridge", "wstunnel-py")
    finished = build(bed, folder, language, *options)
    assert (finished.status, finished.stderr.count("\n")) == (2, 1)
    assert "E2B_API_KEY is not set" in finished.stderr
    finished = build(bed, folder, language, *options, env=api.environment())
    assert finished.status == 77
    assert re.search(r": E2B rejects E2B_API_KEY: .*Invalid API key", finished.stderr)
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_build_without_network_is_reported_in_one_line(bed: Bed, folder: Path, language: str) -> None:
    options = ("--public-key", str(make_key(folder, bed)), "--bridge", "wstunnel-py")
    finished = build(bed, folder, language, *options, env={"E2B_API_KEY": "k", "E2B_API_URL": "http://127.0.0.1:1"})
    assert (finished.status, finished.stderr.count("\n")) == (69, 1)


def connect(bed: Bed, folder: Path, *options: str, env: dict[str, str]) -> Finished:
    return bed.run(sys.executable, str(folder / "connect.py"), *options, env={"E2B_API_KEY": "", **env})


def test_a_sandbox_is_private_and_ends_with_the_command(bed: Bed, folder: Path, api: Api) -> None:
    process = bed.start(sys.executable, str(folder / "connect.py"), env=api.environment())
    process.wait_for_line(r"(?m)^ssh ")
    process.send_signal(2)
    assert process.wait(60) == 0, process.log()
    first, *lines, last = process.out.read_text().splitlines()
    assert re.fullmatch(r"# sandbox i5b0x runs until \d\d:\d\d:\d\d or longer; Ctrl-C ends it", first)
    assert lines == [
        "# on the machine that runs ssh, E2B_API_KEY must be set as it is here",
        f"export E2B_API_URL={api.url}",
        "echo 'ssh-ready ssh-ed25519 AAAAhostkey' >> ~/.ssh/known_hosts",
        "ssh -o ProxyCommand='wstunnel-py connect -- %h' -o HostKeyAlias=ssh-ready user@i5b0x",
    ]
    assert last == "# ending sandbox i5b0x"
    created, *_, ended = api.requests
    assert created[:2] == ("POST", "/v2/sandboxes")
    assert (created[2]["templateID"], created[2]["timeout"]) == ("ssh-ready", 3600)
    assert created[2]["network"] == {"allowPublicTraffic": False}
    assert ended[:2] == ("DELETE", "/sandboxes/i5b0x")


def test_a_public_sandbox_elsewhere_ends_after_its_time(bed: Bed, folder: Path, api: Api) -> None:
    options = ("--public", "--timeout", "1", "--name", "mine")
    finished = connect(bed, folder, *options, env={**api.environment(), "E2B_DOMAIN": "sandboxes.example.com"})
    assert finished.status == 0, finished.stderr
    assert f"\nexport E2B_DOMAIN=sandboxes.example.com\nexport E2B_API_URL={api.url}\n" in finished.text
    assert api.requests[0][2]["network"] == {"allowPublicTraffic": True}
    assert api.requests[-1][:2] == ("DELETE", "/sandboxes/i5b0x")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "connect.py: E2B_API_KEY is not set: create a key in E2B's dashboard, under API keys\n"),
        (("--timeout", "0"), "connect.py: --timeout 0: from 1 to 86400 seconds\n"),
        (("--timeout", "soon"), "connect.py: argument --timeout: invalid int value: 'soon'\n"),
        (("--sandbox", "../x"), "connect.py: --sandbox ../x: letters, digits and -\n"),
        (
            ("--sandbox", "x", "--public"),
            "connect.py: --public is for a new sandbox: this cannot be changed later\n",
        ),
        (("--name", "a b"), "connect.py: --name a b: letters, digits, - and _\n"),
    ],
)
def test_a_wrong_call_of_connect_is_reported_in_one_line(
    bed: Bed, folder: Path, options: tuple[str, ...], line: str
) -> None:
    finished = connect(bed, folder, *options, env={})
    assert (finished.status, finished.stderr) == (2, line)
