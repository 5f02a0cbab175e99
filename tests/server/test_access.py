"""Who is admitted: bearer tokens and their rotation, origins of browsers, limits in number."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.bed.processes import Bed, free_port
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tests.conftest import StartBridge
from tests.server.clients import UPGRADE, Answer, ask, assert_echo, open_tunnel
from tunnel.errors import UsageError
from tunnel.server.access import Origins, Tokens
from tunnel.server.http import Refusal


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("# the bridge's tokens\n\nfirst-token\n  second.token==  \n")
    return path


def refused_start(bed: Bed, *options: str) -> str:
    finished = bed.run(*OURS, "serve", "--listen", "127.0.0.1:0", *options, seconds=20)
    assert finished.status == 2, finished.stderr
    assert finished.stderr.count("\n") == 1
    return finished.stderr.strip()


# ---- tokens


def test_any_token_of_any_file_opens_a_tunnel(start: StartBridge, token_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("third-token")
    bridge = start("--token-file", str(token_file), "--token-file", str(other))
    bridge.process.wait_for_line("auth: token")
    for token in ("first-token", "second.token==", "third-token"):
        with open_tunnel(bridge.url, headers=bearer(token)) as tunnel:
            assert_echo(tunnel)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic Zmlyc3QtdG9rZW46"},
        {"Authorization": "first-token"},
        {"Authorization": "Bearer first-toke"},
        {"Authorization": "Bearer first-tokenx"},
        {"Authorization": "Bearer FIRST-TOKEN"},
        {"Authorization": "Bearer # the bridge's tokens"},
        {"Authorization": "Bearer f\u00fcrst"},
    ],
)
def test_a_client_without_a_valid_token_is_refused(token_bridge: str, headers: dict[str, str]) -> None:
    answer = ask(token_bridge, headers={**UPGRADE, **headers})
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["wstunnel-error"] == answer.json["error"] == "unauthorized"


@pytest.fixture(scope="module")
def token_bridge(shared_bed: Bed, echo_target: Target, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a bridge that wants the token ``first-token``."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("first-token\n")
    process = shared_bed.start(
        *(*OURS, "serve", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{echo_target.port}"),
        *("--token-file", str(path)),
    )
    return process.wait_for_line(r"ready on (ws://[^\s,]+)")[1]


def test_the_scheme_is_compared_without_case(token_bridge: str) -> None:
    with open_tunnel(token_bridge, headers={"Authorization": "bearer  first-token"}) as tunnel:
        assert_echo(tunnel)


def test_health_needs_no_token(token_bridge: str) -> None:
    assert ask(token_bridge, "/healthz", headers={}).status == 200


def test_a_token_never_reaches_the_log(start: StartBridge, token_file: Path) -> None:
    bridge = start("--token-file", str(token_file))
    assert ask(bridge.url, headers={**UPGRADE, **bearer("wrong-secret")}).status == 401
    with open_tunnel(bridge.url, headers=bearer("first-token")) as tunnel:
        assert_echo(tunnel)
    bridge.process.wait_for_line("tunnel client=")
    assert "refused client=" in bridge.process.log()
    assert "secret" not in bridge.process.log() and "first-token" not in bridge.process.log()


def test_tokens_are_rotated_by_sighup_while_tunnels_go_on(start: StartBridge, token_file: Path) -> None:
    bridge = start("--token-file", str(token_file))
    with open_tunnel(bridge.url, headers=bearer("first-token")) as tunnel:
        token_file.write_text("next-token\n")
        bridge.process.send_signal(signal.SIGHUP)
        bridge.process.wait_for_line("reloaded what=tokens")
        assert ask(bridge.url, headers={**UPGRADE, **bearer("first-token")}).status == 401
        with open_tunnel(bridge.url, headers=bearer("next-token")) as other:
            assert_echo(other)
        assert_echo(tunnel)


@pytest.mark.parametrize("content", [None, "", "# nothing\n", "two words\n"])
def test_a_file_that_cannot_be_used_keeps_the_old_tokens(
    start: StartBridge, token_file: Path, content: str | None
) -> None:
    bridge = start("--token-file", str(token_file))
    if content is None:
        token_file.unlink()
    else:
        token_file.write_text(content)
    bridge.process.send_signal(signal.SIGHUP)
    bridge.process.wait_for_line('reload-failed what=tokens reason=".*" kept="those in use"')
    assert ask(bridge.url).status == 401
    with open_tunnel(bridge.url, headers=bearer("first-token")) as tunnel:
        assert_echo(tunnel)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "there is no token in it"),
        (b"# only this\n\n", "there is no token in it"),
        (b"good\nnot so good\n", "line 2 is not a token: only letters, digits and -._~+/ are allowed"),
        (b"\xff\xfe", "it is not text"),
        (b"x" * (1 << 20) + b"y", "it is longer than 1048576 characters"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start(
    bed: Bed, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    assert refused_start(bed, "--token-file", str(path)) == f"wstunnel-py: --token-file: cannot use {path}: {reason}"


def test_a_failing_reload_of_several_files_changes_none(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a\n")
    two.write_text("b\n")
    tokens = Tokens([str(one), str(two)])
    one.write_text("c\n")
    two.write_text("")
    with pytest.raises(UsageError):
        tokens.reload()
    tokens.admit(["Bearer a"])
    with pytest.raises(Refusal):
        tokens.admit(["Bearer c"])
    with pytest.raises(Refusal):
        tokens.admit(["Bearer a", "Bearer a"])


# ---- origins


def asked_from(url: str, origin: str) -> Answer:
    return ask(url, headers={**UPGRADE, "Origin": origin})


@pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://127.0.0.1:8081", ""])
def test_web_pages_open_no_tunnels(start: StartBridge, origin: str) -> None:
    answer = asked_from(start().url, origin)
    assert answer.status == 403
    assert answer.headers["wstunnel-error"] == answer.json["error"] == "origin"


def test_listed_origins_open_tunnels(start: StartBridge) -> None:
    bridge = start("--allow-origin", "https://App.test", "--allow-origin", "http://localhost:3000")
    for origin in ("https://app.test", "http://localhost:3000"):
        with open_tunnel(bridge.url, headers={"Origin": origin}) as tunnel:
            assert_echo(tunnel)
    for origin in ("https://app.test:444", "http://app.test", "https://app.test.evil.test", "null"):
        assert asked_from(bridge.url, origin).status == 403


def test_a_star_allows_every_origin(start: StartBridge) -> None:
    with open_tunnel(start("--allow-origin", "*").url, headers={"Origin": "null"}) as tunnel:
        assert_echo(tunnel)


@pytest.mark.parametrize("origin", ["app.test", "https://app.test/", "https://app.test/page", "https://", ""])
def test_an_invalid_origin_stops_the_start(origin: str) -> None:
    with pytest.raises(UsageError, match=r"allow_origin: .* is not an origin such as"):
        Origins([origin])


# ---- limits


def test_no_more_tunnels_than_allowed_and_one_more_when_one_has_ended(start: StartBridge) -> None:
    bridge = start("--max-tunnels", "2")
    with open_tunnel(bridge.url) as first, open_tunnel(bridge.url) as second:
        assert_echo(first)
        assert_echo(second)
        with pytest.raises(InvalidStatus) as failure:
            open_tunnel(bridge.url)
        response = failure.value.response
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "5"
        assert json.loads(response.body or b"") == {
            "error": "full",
            "message": "2 tunnels are open, which is the limit (--max-tunnels)",
        }
        assert_echo(first)
        second.close()
        bridge.process.wait_for_line("tunnel client=")
        with open_tunnel(bridge.url) as third:
            assert_echo(third)


def test_a_failed_connection_to_the_target_occupies_no_slot(start: StartBridge, unused_target: str) -> None:
    bridge = start("--max-tunnels", "1", "--target", unused_target)
    for _ in range(3):
        assert ask(bridge.url).status == 502


@pytest.fixture
def unused_target() -> str:
    return f"127.0.0.1:{free_port()}"
