"""Which URL gets which credentials, and that no error shows any of them."""

from __future__ import annotations

import base64
import itertools
import json
import socket
from pathlib import Path

import pytest

import tunnel
from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tests.client.conftest import Serve, failure_of, read_head, wait_for_end
from tests.client.test_settings import settings_of
from tunnel.client.options import SHELL_OPTIONS, parse_command_line
from tunnel.pty.shell.settings import resolve as resolve_shell

TOKEN = "t0p-s3cret-token"

ENVIRONMENT, FILE = {"env-token", "env-header"}, {"file-header"}
LITERAL, TEMPLATE = "ws://literal.test/", "ws://{host}.test/"
HOSTS = """
headers = { X-File = "file-header" }
[hosts.exact]
headers = { X-Table = "exact-header" }
[hosts."*.pattern"]
headers = { X-Table = "pattern-header" }
[hosts.own]
url = "ws://own.test/"
headers = { X-Table = "own-header" }
[hosts."literal.test"]
headers = { X-Table = "literal-header" }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.touch(mode=0o600)
    path.write_text(HOSTS)
    return path


def bare(values: list[str]) -> set[str]:
    return {value.removeprefix("Bearer ") for value in values}


# Command line, WSTUNNEL_PY_URL, and what is sent beside what the command line says itself.
TABLE: list[tuple[list[str], str | None, set[str]]] = [
    (["box"], None, ENVIRONMENT | FILE),
    (["box"], TEMPLATE, ENVIRONMENT | FILE),
    (["box"], "ws://127.0.0.1:1/", ENVIRONMENT | FILE),  # the environment's own URL
    (["exact"], None, ENVIRONMENT | FILE | {"exact-header"}),
    (["a.pattern"], None, ENVIRONMENT | FILE | {"pattern-header"}),
    (["own"], None, {"own-header"}),
    (["ws://other.test/"], None, set()),
    (["ws://other.test/"], TEMPLATE, set()),
    (["ws://other.test/"], "ws://other.test/", set()),
    ([LITERAL], None, {"literal-header"}),
    (["WS://LITERAL.test:99/x"], None, {"literal-header"}),
    (["--url", TEMPLATE, "box"], None, ENVIRONMENT | FILE),
    (["--url", TEMPLATE, "own"], None, ENVIRONMENT | FILE | {"own-header"}),
    (["--url", "ws://{host}/", "literal.test"], None, ENVIRONMENT | FILE | {"literal-header"}),
    (["--url", "ws://other.test/", "box"], None, set()),
    (["--url", "ws://other.test/", "box"], TEMPLATE, set()),
    (["--url", "ws://other.test/", "box"], "ws://other.test/", set()),
    (["--url", "ws://other.test:{port}/", "box"], None, set()),
    (["--url", LITERAL, "box"], None, {"literal-header"}),
    (["--url", "ws://literal.test:{port}/", "box"], None, {"literal-header"}),
    (["--url", "ws://other.test/", LITERAL], None, set()),
    (["--url", "ws://other.test/", "exact"], None, {"exact-header"}),
    (["--url", "ws://other.test/", "a.pattern"], None, set()),
    (["--url", LITERAL, "a.pattern"], None, {"literal-header"}),
    (["--url", "ws://other.test/", "own"], None, {"own-header"}),
]


@pytest.mark.parametrize(("words", "url", "expected"), TABLE)
def test_each_url_gets_only_the_credentials_meant_for_it(
    config: Path, words: list[str], url: str | None, expected: set[str]
) -> None:
    environ = {"WSTUNNEL_PY_TOKEN": "env-token", "WSTUNNEL_PY_HEADER": "X-Env: env-header"}
    environ |= {} if url is None else {"WSTUNNEL_PY_URL": url}
    settings = settings_of("--config", str(config), *words, **environ)
    assert bare([value for _, value in settings.headers]) == expected
    explicit = settings_of("--config", str(config), "-H", "X-Own: mine", *words, **environ)
    assert bare([value for _, value in explicit.headers]) == expected | {"mine"}


@pytest.mark.parametrize(("words", "url", "expected"), TABLE)
def test_each_terminal_service_gets_only_the_credentials_meant_for_it(
    config: Path, words: list[str], url: str | None, expected: set[str]
) -> None:
    def as_http(word: str) -> str:
        return word.replace("ws://", "http://").replace("WS://", "HTTP://")

    config.write_text(as_http(HOSTS).replace("url =", "pty-url ="))
    environ = {"WSTUNNEL_PY_PTY_TOKEN": "env-token", "WSTUNNEL_PY_HEADER": "X-Env: env-header"}
    environ |= {} if url is None else {"WSTUNNEL_PY_PTY_URL": as_http(url)}
    given, operands = parse_command_line(["--config", str(config), *map(as_http, words)], SHELL_OPTIONS, "shell")
    settings = resolve_shell(operands[0], given, environ=environ)
    assert bare([value for _, value in settings.place.headers]) == expected


def test_a_terminal_service_without_a_host_gets_the_environments_token_unless_its_url_is_literal() -> None:
    def headers(*words: str, **environ: str) -> set[str]:
        given, _ = parse_command_line(list(words), SHELL_OPTIONS, "shell")
        settings = resolve_shell(None, given, environ={"WSTUNNEL_PY_PTY_TOKEN": "env-token", **environ})
        return bare([value for _, value in settings.place.headers])

    assert headers() == {"env-token"}
    assert headers(WSTUNNEL_PY_PTY_URL="http://x.test/") == {"env-token"}
    assert headers("--url", "http://x.test/") == set()


def test_client_certificates_are_credentials_too(tmp_path: Path) -> None:
    environ = {"WSTUNNEL_PY_CLIENT_CERT": "cert", "WSTUNNEL_PY_CLIENT_KEY": "key"}
    assert settings_of("box", **environ).client_cert == "cert"
    settings = settings_of("--url", "ws://other.test/", "box", **environ)
    assert (settings.client_cert, settings.client_key) == (None, None)


def test_what_a_literal_url_does_not_get_is_reported_on_request(bed: Bed) -> None:
    words = ("connect", "-v", "--url", "ws://127.0.0.1:1/", "box")
    finished = bed.run(*OURS, *words, stdin=b"", env={"WSTUNNEL_PY_TOKEN": TOKEN})
    assert "not sent to a literal URL: token from the environment" in finished.stderr


def test_programs_follow_the_same_rule(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    def refuse(connection: socket.socket) -> None:
        heads.append(read_head(connection))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    monkeypatch.setenv("WSTUNNEL_PY_TOKEN", TOKEN)
    url = f"ws://127.0.0.1:{serve(refuse).port}/"
    for arguments in ((url, {}), ("box", {"url": url})):
        with pytest.raises(tunnel.DialError):
            tunnel.open_socket(arguments[0], **arguments[1])  # type: ignore[arg-type]
    assert len(heads) == 2 and not any(TOKEN.encode() in head for head in heads)


# ---- servers that send back what they got

HEADERS = ["Authorization: Bearer " + TOKEN, "X-Api-Key: " + TOKEN, "e2b-traffic-access-token: " + TOKEN]


def echoing(line: str, *, kind: str, body: str) -> object:
    """A server that answers with a body, or a first line, in which @ stands for the secret."""

    def script(connection: socket.socket) -> None:
        read_head(connection)
        payload = body.replace("@", TOKEN).encode()
        head = f"{line.replace('@', TOKEN)}\r\nContent-Type: {kind}\r\nContent-Length: {len(payload)}\r\n\r\n"
        connection.sendall(head.encode() + payload)
        wait_for_end(connection)

    return script


ECHOES = {
    "json": echoing("HTTP/1.1 401 No", kind="application/json", body='{"message": "Bearer @ is not known"}'),
    "cut": echoing("HTTP/1.1 401 No", kind="text/plain", body="." * 290 + "@"),
    "text": echoing("HTTP/1.1 403 No", kind="text/plain", body="Authorization: Bearer @"),
    "title": echoing("HTTP/1.1 400 No", kind="text/html", body="<title>400 bad @</title>"),
    "reason": echoing("HTTP/1.1 502 cannot use @", kind="text/plain", body=""),
    "location": echoing("HTTP/1.1 302 Found\r\nLocation: https://x.test/?t=@", kind="text/plain", body=""),
    "malformed": echoing("HTTP/1.1 200 OK\r\nAuthorization Bearer @", kind="text/plain", body=""),
    "half": echoing("HTTP/1.1 200 OK\r\n" + "y" * 50 + " @", kind="text/plain", body=""),
    "nothing": echoing("Bearer @", kind="text/plain", body=""),
    "subprotocol": echoing(
        "HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Protocol: @",
        kind="text/plain",
        body="",
    ),
}


@pytest.mark.parametrize(("header", "echo"), [*itertools.product(HEADERS, ECHOES)])
def test_no_error_shows_what_the_server_sends_back(serve: Serve, header: str, echo: str) -> None:
    url = f"ws://127.0.0.1:{serve(ECHOES[echo]).port}"  # type: ignore[arg-type]
    line = failure_of("-H", header, url).line
    assert not any(TOKEN[at : at + 6] in line for at in range(len(TOKEN) - 5)), line


@pytest.mark.parametrize("command", ["connect", "doctor", "doctor --json", "websocat"])
def test_no_command_shows_a_token_that_the_server_sends_back(bed: Bed, tmp_path: Path, command: str) -> None:
    log = tmp_path / "log"
    with Target(ECHOES["json"]) as target:  # type: ignore[arg-type]
        environ = {"WSTUNNEL_PY_URL": f"ws://127.0.0.1:{target.port}/", "WSTUNNEL_PY_TOKEN": TOKEN}
        words = [*command.split(), "-v", "--log-file", str(log), "box"]
        if command == "websocat":
            words = ["websocat", "-v", "-H", f"Authorization: Bearer {TOKEN}", "-", environ["WSTUNNEL_PY_URL"]]
        finished = bed.run(*OURS, *words, stdin=b"", env=environ)
    assert finished.status == 77
    shown = finished.text + finished.stderr + (log.read_text() if log.exists() else "")
    assert "401" in shown and "is not known" in shown and TOKEN not in shown


def test_basic_credentials_are_known_in_all_their_forms(serve: Serve) -> None:
    login = base64.b64encode(b"user:hunter2-hunter2").decode()

    def script(connection: socket.socket) -> None:
        read_head(connection)
        body = json.dumps({"message": f"user:hunter2-hunter2, hunter2-hunter2, {login}"}).encode()
        connection.sendall(b"HTTP/1.1 403 No\r\nContent-Type: application/json\r\n\r\n" + body)

    url = f"ws://127.0.0.1:{serve(script).port}"
    line = failure_of("-H", f"Authorization: Basic {login}", url).line
    assert "hunter2" not in line and login not in line


@pytest.mark.parametrize(
    "header",
    [
        f"Authorization: Token token={TOKEN}",
        f'Authorization: Digest username="me", response="{TOKEN}"',
        f'Cookie: lang=en; session="{TOKEN}"',
        f"X-Auth-Token: Bearer {TOKEN}",
        f"X-Traffic: Bearer {TOKEN}",
    ],
)
def test_a_part_of_a_header_is_not_shown_either(serve: Serve, header: str) -> None:
    line = failure_of("-H", header, f"ws://127.0.0.1:{serve(ECHOES['text']).port}").line  # type: ignore[arg-type]
    assert "403" in line and TOKEN not in line


def test_a_password_that_a_proxy_sends_back_is_not_shown(serve: Serve) -> None:
    def script(connection: socket.socket) -> None:
        head = read_head(connection)
        sent = head.partition(b"Basic ")[2].partition(b"\r\n")[0]
        body = b"hunter2:2 is wrong: " + sent
        connection.sendall(b"HTTP/1.1 407 No\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body)
        wait_for_end(connection)

    proxy = f"http://user:hunter2%3A2@127.0.0.1:{serve(script).port}"
    line = failure_of("--proxy", proxy, "ws://h.test/").line
    assert "407" in line and "hunter2" not in line and base64.b64encode(b"user:hunter2:2").decode() not in line


def test_the_query_of_the_url_is_not_shown_when_it_comes_back(serve: Serve) -> None:
    def script(connection: socket.socket) -> None:
        path = read_head(connection).split(b" ")[1]
        connection.sendall(b"HTTP/1.1 301 No\r\nLocation: https://x.test" + path + b"\r\nContent-Length: 0\r\n\r\n")
        wait_for_end(connection)

    line = failure_of(f"ws://127.0.0.1:{serve(script).port}/a?token=hunter2&x=hunter2-hunter2").line
    assert "points to https://x.test/a?token=" in line and "hunter2" not in line


def test_a_short_value_and_the_own_address_leave_errors_readable(serve: Serve) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 403 this is 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
        wait_for_end(connection)

    url = f"ws://127.0.0.1:{serve(script).port}"
    assert (
        failure_of("-H", "X-Key: i", "-H", "X-Place: 127.0.0.1", url).line == f"{url} answered 403: this is 127.0.0.1"
    )


def test_a_template_with_a_password_is_not_repeated() -> None:
    for word in ("ws://u:hunter2@{hots}/", "ws://{hots}/?token=hunter2"):
        with pytest.raises(tunnel.UsageError) as caught:
            settings_of("--url", word, "box")
        assert "hunter2" not in str(caught.value)
