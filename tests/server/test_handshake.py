"""The opening handshake: what opens a tunnel, and the answer to everything else."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.bed.tunnels import Bridge
from tests.conftest import StartBridge
from tests.server.clients import (
    UPGRADE,
    Answer,
    ask,
    ask_raw,
    assert_echo,
    dial,
    open_tunnel,
    read_answer,
    request_head,
)


def without(*names: str) -> dict[str, str]:
    return {key: value for key, value in UPGRADE.items() if key not in names}


def assert_refused(answer: Answer, status: int, code: str) -> None:
    """A refusal has its code in a header and in a JSON body, and ends the connection."""
    assert answer.status == status, answer
    assert answer.json["error"] == code == answer.headers["wstunnel-error"]
    assert answer.json["message"].isprintable()
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert "close" in answer.headers["connection"]


# ---- what opens a tunnel


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (None, None),
        ("binary", "binary"),
        ("chat", None),
        ("chat, binary", "binary"),
        ("binary, v9.unknown", "binary"),
    ],
)
def test_binary_is_selected_where_it_is_offered_and_nothing_else(
    bridge: Bridge, offered: str | None, selected: str | None
) -> None:
    headers = UPGRADE if offered is None else {**UPGRADE, "Sec-WebSocket-Protocol": offered}
    with dial(bridge.url) as sock:
        sock.sendall(request_head(headers=headers))
        head = sock.recv(65536).decode().split("\r\n")
    assert head[0] == "HTTP/1.1 101 Switching Protocols"
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455 section 1.3
    assert [line for line in head if line.startswith("Sec-WebSocket-Protocol")] == (
        [f"Sec-WebSocket-Protocol: {selected}"] if selected else []
    )


def test_extensions_are_never_agreed_to(bridge: Bridge) -> None:
    headers = {**UPGRADE, "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    with dial(bridge.url) as sock:
        sock.sendall(request_head(headers=headers))
        head = sock.recv(65536).decode()
    assert head.startswith("HTTP/1.1 101 ") and "Sec-WebSocket-Extensions" not in head


@pytest.mark.parametrize("path", ["/", "/any/where", "/?query=1"])
def test_a_request_for_any_path_opens_a_tunnel(bridge: Bridge, path: str) -> None:
    with open_tunnel(bridge.url + path) as tunnel:
        assert_echo(tunnel)


def test_a_head_may_come_byte_by_byte_and_frames_right_behind_it(bridge: Bridge) -> None:
    frame = bytes([0x82, 0x80 | 5, 0, 0, 0, 0]) + b"hello"
    with dial(bridge.url) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = request_head() + frame
        for n in range(len(data) - len(frame) - 1):
            sock.sendall(data[n : n + 1])
        sock.sendall(data[len(data) - len(frame) - 1 :])
        received = b""
        while not received.endswith(b"\x82\x05hello"):
            chunk = sock.recv(65536)
            assert chunk, received
            received += chunk
    assert received.startswith(b"HTTP/1.1 101 ")


def test_names_of_headers_and_tokens_are_compared_without_case(bridge: Bridge) -> None:
    headers = {key.lower(): value for key, value in UPGRADE.items()} | {
        "upgrade": "WebSocket",
        "connection": "keep-alive, upgrade",
    }
    with dial(bridge.url) as sock:
        sock.sendall(request_head(headers=headers))
        assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")


# ---- what does not


def test_a_browser_is_told_what_this_is(bridge: Bridge) -> None:
    answer = ask(bridge.url, headers={})
    assert_refused(answer, 426, "upgrade-required")
    assert answer.headers["upgrade"] == "websocket"
    assert "ProxyCommand" in answer.json["message"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_other_methods_are_not_possible(bridge: Bridge, method: str) -> None:
    answer = ask(bridge.url, method=method, body=b"x" * 1000)
    assert_refused(answer, 405, "method")
    assert answer.headers["allow"] == "GET"


def test_a_client_gets_to_read_the_answer_though_it_sends_more(bridge: Bridge) -> None:
    """Without a lingering close, a reset would overtake the answer now and then."""
    for _ in range(10):
        assert ask(bridge.url, method="POST", body=b"x" * 60_000).status == 405


def test_a_client_that_never_stops_sending_is_hung_up_on(bridge: Bridge) -> None:
    with dial(bridge.url) as sock, pytest.raises(OSError):
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(1000):
            sock.sendall(b"x" * 65536)
    assert ask(bridge.url, "/healthz").status == 200


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (without("Sec-WebSocket-Key"), "missing Sec-WebSocket-Key header"),
        (UPGRADE | {"Sec-WebSocket-Key": "short"}, "invalid Sec-WebSocket-Key header"),
        (without("Sec-WebSocket-Version"), "missing Sec-WebSocket-Version header"),
        (UPGRADE | {"Sec-WebSocket-Version": "8"}, "invalid Sec-WebSocket-Version header"),
        (UPGRADE | {"Sec-WebSocket-Protocol": "a b"}, "invalid Sec-WebSocket-Protocol header"),
        (UPGRADE | {"Content-Length": "5"}, "unsupported request body"),
        (UPGRADE | {"Transfer-Encoding": "chunked"}, "transfer codings aren't supported"),
    ],
)
def test_an_upgrade_that_breaks_rfc_6455_gets_an_error_that_says_how(
    bridge: Bridge, headers: dict[str, str], problem: str
) -> None:
    answer = ask_raw(bridge.url, request_head(headers=headers))
    assert_refused(answer, 400, "bad-request")
    assert problem in answer.json["message"]
    assert answer.headers.get("sec-websocket-version") == ("13" if "Version" in problem else None)


@pytest.mark.parametrize("missing", ["Upgrade", "Connection"])
def test_an_upgrade_must_say_that_it_is_one(bridge: Bridge, missing: str) -> None:
    assert_refused(ask(bridge.url, headers=without(missing)), 426, "upgrade-required")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "the first line is not an HTTP/1.1 request line"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "this is TLS, but this port speaks plain HTTP: use ws://, not wss://"),
        (b"GET / HTTP/2.0\r\n\r\n", "the first line is not an HTTP/1.1 request line"),
        (b"GET /\r\n\r\n", "the first line is not an HTTP/1.1 request line"),
        (b"GET  / HTTP/1.1\r\n\r\n", "the first line is not an HTTP/1.1 request line"),
        ("GET /ü HTTP/1.1\r\n\r\n".encode(), "the first line is not an HTTP/1.1 request line"),
        (b"GET / HTTP/1.1\n\n", "the first line is not an HTTP/1.1 request line"),
        (b"\r\n\r\n", "the first line is not an HTTP/1.1 request line"),
        (b"GET / HTTP/1.0\r\n\r\n", "a WebSocket needs HTTP/1.1, this request is HTTP/1.0"),
        (b"GET / HTTP/1.1\r\n\r\n", "a request must have exactly one Host field"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "a request must have exactly one Host field"),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "a header line does not end with CR LF"),
        (b"GET / HTTP/1.1\r\nHost a\r\n\r\n", "invalid HTTP header line: Host a"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "invalid HTTP header name:  folded"),
    ],
)  # fmt: skip
def test_garbage_is_answered_at_once(bridge: Bridge, data: bytes, problem: str) -> None:
    started = time.monotonic()
    answer = ask_raw(bridge.url, data)
    assert_refused(answer, 400, "bad-request")
    assert problem in answer.json["message"] or problem.startswith("invalid HTTP header")
    assert time.monotonic() - started < 10  # the time that it has for its request


def test_a_request_that_ends_in_the_middle_gets_an_error_that_says_so(bridge: Bridge) -> None:
    with dial(bridge.url) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        sock.shutdown(socket.SHUT_WR)
        answer = read_answer(sock)
    assert_refused(answer, 400, "bad-request")
    assert answer.json["message"] == "the request ends in the middle of its head"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3000, 431, "head-too-large"),
        (b"GET /" + b"x" * 20_000, 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n", 400, "bad-request"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 12_000 + b"\r\n\r\n", 400, "bad-request"),
    ],
)
def test_a_head_that_is_too_large_is_refused(bridge: Bridge, data: bytes, status: int, code: str) -> None:
    assert_refused(ask_raw(bridge.url, data), status, code)


def test_a_client_has_a_limited_time_for_its_request(start: StartBridge) -> None:
    bridge = start("--handshake-timeout", "0.5")
    with dial(bridge.url) as silent, dial(bridge.url) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\n")
        for sock in (silent, slow):
            answer = read_answer(sock)
            assert_refused(answer, 408, "timeout")
            assert answer.json["message"] == "no request was received within 0.5 s"


def test_idle_connections_lock_out_nobody(start: StartBridge) -> None:
    bridge = start("--handshake-timeout", "600")  # nobody is saved by the end of that time
    idle = [dial(bridge.url) for _ in range(400)]  # more than there may be handshakes at once
    with open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel)
    for sock in idle:
        sock.close()


# ---- the path


def test_with_a_path_there_is_a_tunnel_nowhere_else(start: StartBridge) -> None:
    bridge = start("--path", "/ssh")
    base = bridge.url.removesuffix("/ssh")
    assert bridge.url == f"{base}/ssh"
    with open_tunnel(f"{base}/ssh?x=1") as tunnel:
        assert_echo(tunnel)
    for path in ("/", "/ssh/", "/ssh/x", "/SSH", "/%73sh"):
        assert_refused(ask(base, path), 404, "not-found")
    assert ask(base, "/healthz").status == 200


# ---- health


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_healthz_needs_no_credentials(bridge: Bridge, version: str) -> None:
    answer = ask_raw(bridge.url, f"GET /healthz HTTP/{version}\r\nHost: x\r\n\r\n".encode())
    assert answer.status == 200
    assert json.loads(answer.body) == {"status": "ok", "tunnels": 0, "detached": 0, "draining": False}
    assert "wstunnel-error" not in answer.headers


def test_health_counts_the_tunnels(start: StartBridge) -> None:
    bridge = start()
    with open_tunnel(bridge.url), open_tunnel(bridge.url):
        assert ask(bridge.url, "/healthz?verbose").json["tunnels"] == 2
    bridge.process.wait_for_line("tunnel client=(.|\n)*tunnel client=")
    assert ask(bridge.url, "/healthz").json["tunnels"] == 0


def test_health_may_be_asked_for_without_its_body(bridge: Bridge) -> None:
    answer = ask_raw(bridge.url, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.status == 200 and answer.body == b"" and answer.headers["content-length"] == "65"


def test_healthz_refuses_post(bridge: Bridge) -> None:
    assert_refused(ask(bridge.url, "/healthz", method="POST"), 405, "method")


def test_a_port_scan_leaves_no_trace_and_no_harm(start: StartBridge) -> None:
    bridge = start()
    for _ in range(50):
        dial(bridge.url).close()
    with open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel)
    bridge.process.wait_for_line("tunnel client=")
    assert "refused" not in bridge.process.log() and "error" not in bridge.process.log()
