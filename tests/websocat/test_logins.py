"""Users and passwords, and --ua, as websocat 1.14 has them: ours always, and the real one where it is new enough."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished
from tests.bed.targets import Target, read_exactly
from tests.bed.tunnels import NEWEST_WEBSOCAT, OURS, start_bridge, websocat_of
from tests.client.conftest import start_microsocks

WEBSOCAT_OURS = (*OURS, "websocat")
URL = "ws://127.0.0.1:{port}/"
USER = base64.b64encode(b"user:secret").decode()


@pytest.fixture(params=["ours", pytest.param(NEWEST_WEBSOCAT, marks=pytest.mark.full)])
def program(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return WEBSOCAT_OURS if request.param == "ours" else (websocat_of(request.param),)


def refuse(connection: socket.socket) -> str:
    request = b""
    while b"\r\n\r\n" not in request and (data := connection.recv(65536)):
        request += data
    connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    return request.decode()


def dial(bed: Bed, *words: str, url: str = URL, env: Mapping[str, str] | None = None) -> tuple[Finished, str]:
    """Run a program with its ``words`` against a server that refuses; return how it ended, and the request."""
    with Target(refuse) as server:
        finished = bed.run(*words, "-", url.format(port=server.port), env=env)
        request = server.result()
    return finished, str(request)


def headers_of(request: str, name: str) -> list[str]:
    return re.findall(rf"^{name}: (.*?)\r$", request, re.MULTILINE | re.IGNORECASE)


def written(folder: Path, content: bytes) -> str:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


# ---- for the server


def test_the_variable_has_user_and_password(program: tuple[str, ...], bed: Bed) -> None:
    finished, request = dial(bed, *program, "-b", env={"WEBSOCAT_BASIC_AUTH": "user:secret"})
    assert headers_of(request, "Authorization") == [f"Basic {USER}"]
    assert finished.status != 0 and "secret" not in finished.stderr


@pytest.mark.parametrize(
    ("content", "meant"),
    [
        (b"user:secret", b"user:secret"),
        (b"user:secret\n", b"user:secret"),
        (b" \t\r\nuser:secret\r\n\n", b"user:secret"),
        (b"user:with space inside:and colon\n", b"user:with space inside:and colon"),
        ("user:pässword\n".encode(), "user:pässword".encode()),
        (b"user:two\nlines\n", b"user:two\nlines"),
        (b"no colon\n", b"no colon"),
        (b":\n", b":"),
    ],
)
def test_a_file_has_user_and_password(
    program: tuple[str, ...], content: bytes, meant: bytes, bed: Bed, tmp_path: Path
) -> None:
    _, request = dial(bed, *program, "-b", "--basic-auth-file", written(tmp_path, content))
    assert headers_of(request, "Authorization") == [f"Basic {base64.b64encode(meant).decode()}"]


PLACES = ["--basic-auth", "WEBSOCAT_BASIC_AUTH", "--basic-auth-file"]


@pytest.mark.parametrize("places", [(a, b) for at, a in enumerate(PLACES) for b in PLACES[at + 1 :]])
def test_two_places_are_one_too_many(
    program: tuple[str, ...], places: tuple[str, str], bed: Bed, tmp_path: Path
) -> None:
    words = [*program, "-b"]
    if "--basic-auth" in places:
        words += ["--basic-auth", "user:secret"]
    if "--basic-auth-file" in places:
        words += ["--basic-auth-file", written(tmp_path, b"user:secret\n")]
    env = {"WEBSOCAT_BASIC_AUTH": "user:secret"} if "WEBSOCAT_BASIC_AUTH" in places else {}
    finished = bed.run(*words, "-", "ws://127.0.0.1:1/", env=env)
    if program == WEBSOCAT_OURS:
        assert finished.status == 2
        told = f"wstunnel-py: user and password are given twice: by {places[0]} and by {places[1]}\n"
        assert finished.stderr == told
    else:
        assert finished.status == 1 and "Multiple request basic auth options" in finished.stderr


def test_the_url_counts_as_a_place_too(bed: Bed) -> None:
    environ = {"WEBSOCAT_BASIC_AUTH": "user:secret"}
    finished = bed.run(*WEBSOCAT_OURS, "-b", "-", "ws://other:secret@127.0.0.1:1/", env=environ)
    assert finished.status == 2
    assert finished.stderr.endswith("given twice: by WEBSOCAT_BASIC_AUTH and by the URL\n")


def test_an_empty_variable_is_none(bed: Bed) -> None:
    _, request = dial(bed, *WEBSOCAT_OURS, "-b", "--basic-auth", "user:secret", env={"WEBSOCAT_BASIC_AUTH": ""})
    assert headers_of(request, "Authorization") == [f"Basic {USER}"]
    _, request = dial(bed, *WEBSOCAT_OURS, "-b", env={"WEBSOCAT_BASIC_AUTH": ""})
    assert headers_of(request, "Authorization") == []


def test_a_variable_of_other_bytes_than_text_is_refused_in_one_line(bed: Bed) -> None:
    environ = {"WEBSOCAT_BASIC_AUTH": b"user:\xffsecret".decode(errors="surrogateescape")}
    finished = bed.run(*WEBSOCAT_OURS, "-b", "-", "ws://127.0.0.1:1/", env=environ)
    assert finished.status == 2
    assert finished.stderr == "wstunnel-py: WEBSOCAT_BASIC_AUTH: user and password are not text in this locale\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "it is empty"), (b" \n", "it is empty"), (b"\xff:secret\n", "it is not text"), (None, "No such file")],
)
def test_a_file_that_holds_none_is_reported_without_its_content(
    content: bytes | None, reason: str, bed: Bed, tmp_path: Path
) -> None:
    path = str(tmp_path / "missing") if content is None else written(tmp_path, content)
    finished = bed.run(*WEBSOCAT_OURS, "-b", "--basic-auth-file", path, "-", "ws://127.0.0.1:1/")
    assert finished.status == 2 and finished.stderr.count("\n") == 1
    assert reason in finished.stderr and path in finished.stderr and "secret\n" not in finished.stderr


@pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o640, 1), (0o604, 1)])
def test_a_file_that_others_can_read_causes_a_warning(bed: Bed, tmp_path: Path, mode: int, count: int) -> None:
    path = written(tmp_path, b"user:hunter2\n")
    Path(path).chmod(mode)
    finished = bed.run(*WEBSOCAT_OURS, "-b", "--basic-auth-file", path, "-", "ws://127.0.0.1:1/")
    assert finished.stderr.count(f"warning: other users can read the secret in {path}: chmod 600 it") == count


# ---- User-Agent


@pytest.mark.parametrize("words", [("--ua", "agent/1.0 (x; y)"), ("--ua=agent/1.0 (x; y)",)])
def test_ua_is_the_user_agent(program: tuple[str, ...], words: tuple[str, ...], bed: Bed) -> None:
    _, request = dial(bed, *program, "-b", *words)
    assert headers_of(request, "User-Agent") == ["agent/1.0 (x; y)"]


@pytest.mark.parametrize("value", ["agent\r\nX-A: 1", "ägent"])
@pytest.mark.parametrize("option", ["--ua", "--origin"])
def test_what_no_header_can_hold_is_refused_by_the_options_name(option: str, value: str, bed: Bed) -> None:
    finished = bed.run(*WEBSOCAT_OURS, "-b", option, value, "-", "ws://127.0.0.1:1/")
    assert finished.status == 2
    assert finished.stderr.startswith(f"wstunnel-py: {option}: the value ") and finished.stderr.count("\n") == 1


# ---- for a SOCKS5 proxy


def ask_for_a_login(connection: socket.socket) -> bytes:
    """Demand user and password, refuse them, and return what came."""
    methods = read_exactly(connection, read_exactly(connection, 2)[1])
    assert 2 in methods
    connection.sendall(b"\x05\x02")
    size = read_exactly(connection, 2)
    user = size + read_exactly(connection, size[1])
    size = read_exactly(connection, 1)
    login = user + size + read_exactly(connection, size[0])
    connection.sendall(b"\x01\x01")
    return login


@pytest.mark.parametrize(
    ("word", "login"),
    [
        ("user:secret", b"\x01\x04user\x06secret"),
        ("user:with:colons@and/%41", b"\x01\x04user\x13with:colons@and/%41"),
        ("ü s e r:#?", b"\x01\x08\xc3\xbc s e r\x02#?"),
        ("user:", b"\x01\x04user\x00"),
        ("user:" + 255 * "x", b"\x01\x04user\xff" + 255 * b"x"),
    ],
)
def test_a_socks_proxy_gets_user_and_password(program: tuple[str, ...], word: str, login: bytes, bed: Bed) -> None:
    with Target(ask_for_a_login) as proxy:
        place = f"127.0.0.1:{proxy.port}"
        finished = bed.run(*program, "-b", "--socks5", place, "--socks5-user-pass", word, "-", "ws://box.example/")
        assert proxy.result() == login
    assert finished.status == (77 if program == WEBSOCAT_OURS else 1)
    assert "secret" not in finished.stderr


def test_a_real_proxy_lets_in_whoever_has_the_password(program: tuple[str, ...], bed: Bed, echo_target: Target) -> None:
    url = start_bridge(bed, "ours", echo_target.port).url
    place = f"127.0.0.1:{start_microsocks(bed, '-u', 'user', '-P', 'secret')}"

    def run(*words: str) -> Finished:
        return bed.run(*program, "-b", "--socks5", place, *words, "-", url, stdin=b"hello")

    assert run("--socks5-user-pass", "user:secret").stdout == b"hello"
    for words in (("--socks5-user-pass", "user:wrong"), ()):
        finished = run(*words)
        assert finished.status == (77 if program == WEBSOCAT_OURS else 1) and finished.stdout == b""


def test_a_proxy_that_wants_no_password_is_not_told_it(program: tuple[str, ...], bed: Bed, echo_target: Target) -> None:
    url = start_bridge(bed, "ours", echo_target.port).url
    place = f"127.0.0.1:{start_microsocks(bed)}"
    words = ("-b", "--socks5", place, "--socks5-user-pass", "user:secret", "-", url)
    assert bed.check(*program, *words, stdin=b"hello").stdout == b"hello"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--socks5-user-pass", "secret"), "--socks5-user-pass: USER:PASSWORD is expected"),
        (("--socks5-user-pass", "user:\udcffsecret"), "--socks5-user-pass: user and password are not text in"),
        (("--socks5-user-pass",), "--socks5-user-pass needs a value"),
    ],
)
def test_a_login_that_cannot_be_one_is_reported_without_it(words: tuple[str, ...], told: str, bed: Bed) -> None:
    finished = bed.run(*WEBSOCAT_OURS, "-b", "--socks5", "127.0.0.1:1", "-", "ws://box.example/", *words)
    assert finished.status == 2 and finished.stderr.count("\n") == 1
    assert told in finished.stderr and "secret" not in finished.stderr


def test_a_login_without_a_proxy_changes_nothing_and_v_says_so(bed: Bed) -> None:
    words = ("-bv", "--socks5-user-pass", "user:secret", "-", "ws://127.0.0.1:1/")
    finished = bed.run(*WEBSOCAT_OURS, *words)
    assert finished.status == 69
    assert "--socks5-user-pass has no effect without --socks5" in finished.stderr and "secret" not in finished.stderr
