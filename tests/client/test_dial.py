"""Dialling real sockets: how a tunnel opens, and the one line for each way in which it fails."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from typing import Any

import pytest

from tests.bed.processes import free_port
from tests.bed.targets import reset
from tests.client.conftest import (
    Failure,
    Serve,
    answer,
    failure_of,
    open_tunnel,
    read_head,
    upgrade,
    wait_for_end,
)
from tests.client.test_settings import settings_of
from tunnel.client.dial import dial
from tunnel.client.trace import Trace
from tunnel.errors import TRY_LATER, DialError


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A resolver that knows just these names, and addresses."""
    known: dict[str, list[str]] = {}
    ask = socket.getaddrinfo

    def getaddrinfo(host: bytes, port: int, family: int, kind: int, proto: int = 0, flags: int = 0) -> list[Any]:
        if flags & socket.AI_NUMERICHOST or host.decode() not in known:
            return ask(host, port, family, kind, proto, socket.AI_NUMERICHOST)
        return [found for address in known[host.decode()] for found in ask(address, port, family, kind)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def upgrade_one(listener: socket.socket) -> threading.Thread:
    """Let ``listener``, at an address of the test's choice, answer one client as a WebSocket server."""

    def run() -> None:
        with listener.accept()[0] as connection:
            upgrade(connection)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


# ---- TCP and DNS


def test_a_tunnel_opens_with_the_given_path_and_headers(serve: Serve) -> None:
    bridge = serve(upgrade)
    connection = open_tunnel("-H", "X-Key: k", f"ws://127.0.0.1:{bridge.port}/a?b=c")
    assert connection.subprotocol == "binary"
    assert ("upgrade", "websocket") in connection.headers
    connection.channel.close()
    request = bridge.result()
    assert request.path == "/a?b=c"  # type: ignore[attr-defined]
    assert request.headers["Host"] == f"127.0.0.1:{bridge.port}"  # type: ignore[attr-defined]
    assert request.headers["X-Key"] == "k"  # type: ignore[attr-defined]


@pytest.mark.parametrize("host", ["8081-box.sandbox.localhost", "LocalHost", "a.LOCALHOST."])
def test_names_below_localhost_are_loopback_without_a_name_server(
    serve: Serve, names: dict[str, list[str]], host: str
) -> None:
    names["localhost"] = names["LocalHost"] = ["127.0.0.1"]
    bridge = serve(upgrade)
    open_tunnel(f"ws://{host}:{bridge.port}").channel.close()
    assert bridge.result().headers["Host"].startswith(host)  # type: ignore[attr-defined]


def test_a_name_that_only_looks_like_localhost_is_asked_for(names: dict[str, list[str]]) -> None:
    names["localhost"] = ["127.0.0.1"]
    assert "xlocalhost" in failure_of("ws://xlocalhost:1").line


def test_more_can_be_offered_and_asked_than_the_settings_say(serve: Serve) -> None:
    bridge = serve(upgrade)
    settings = settings_of(f"ws://127.0.0.1:{bridge.port}")
    dial(settings, Trace(), subprotocols=("a", "b"), extra_headers=[("X-More", "1")]).channel.close()
    request = bridge.result()
    assert request.headers["Sec-WebSocket-Protocol"] == "a, b"  # type: ignore[attr-defined]
    assert request.headers["X-More"] == "1"  # type: ignore[attr-defined]


def test_bytes_right_behind_the_answer_are_not_lost(serve: Serve) -> None:
    bridge = serve(lambda connection: upgrade(connection, behind=b"\x82\x03ssh"))
    channel = open_tunnel(f"ws://127.0.0.1:{bridge.port}").channel
    space = memoryview(bytearray(100))
    assert channel.pending
    assert channel.receive_into(space) == 5
    assert bytes(space[:5]) == b"\x82\x03ssh"
    channel.close()


def test_small_writes_go_out_at_once_and_a_dead_peer_is_noticed(serve: Serve) -> None:
    channel = open_tunnel(f"ws://127.0.0.1:{serve(upgrade).port}").channel
    assert channel.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert channel.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    channel.close()


def test_ipv6_addresses_stand_in_brackets() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        thread = upgrade_one(listener)
        open_tunnel(f"ws://[::1]:{port}").channel.close()
        thread.join()
    assert failure_of(f"ws://[::1]:{port}").line == f"[::1]:{port} refused the connection: nothing is listening there"


def test_the_zone_of_an_ipv6_address_stays_on_this_machine() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        hosts: list[bytes] = []

        def run() -> None:
            for _ in range(2):
                with listener.accept()[0] as connection:
                    hosts.extend(line for line in read_head(connection).split(b"\r\n") if line.startswith(b"Host"))

        thread = threading.Thread(target=run)
        thread.start()
        for zone in ("%251", "%1"):  # the loopback interface's number
            failure = failure_of(f"ws://[::1{zone}]:{port}")
            assert failure.line == f"ws://[::1%251]:{port} closed the connection before it answered"
        thread.join()
    assert hosts == [f"Host: [::1]:{port}".encode()] * 2


def test_an_unknown_network_interface_is_reported() -> None:
    line = "cannot resolve fe80::1%br-12ab: this machine has no network interface with that name"
    assert failure_of("ws://[fe80::1%25br-12ab]") == Failure(line, 69)


def test_a_refused_connection_is_reported() -> None:
    port = free_port()
    line = f"127.0.0.1:{port} refused the connection: nothing is listening there"
    assert failure_of(f"ws://127.0.0.1:{port}") == Failure(line, 69)


def test_all_addresses_are_tried_and_named(names: dict[str, list[str]]) -> None:
    names["box.test"] = ["127.0.0.1", "127.0.0.3", "::1"]
    port = free_port()
    line = f"127.0.0.1:{port} and [::1]:{port} and 127.0.0.3:{port} refused the connection: nothing is listening there"
    assert failure_of(f"ws://box.test:{port}") == Failure(line, 69)


def test_another_address_helps_out_when_one_refuses(names: dict[str, list[str]], serve: Serve) -> None:
    names["box.test"] = ["127.0.0.3", "::1", "127.0.0.1"]
    open_tunnel(f"ws://box.test:{serve(upgrade).port}").channel.close()


def test_another_address_helps_out_when_one_is_silent(
    names: dict[str, list[str]], silent_place: tuple[str, int]
) -> None:
    host, port = silent_place
    names["box.test"] = [host, "127.0.0.1"]
    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = upgrade_one(listener)
        open_tunnel(f"ws://box.test:{port}").channel.close()
        thread.join()


def test_a_family_can_be_demanded(names: dict[str, list[str]]) -> None:
    port = free_port()
    for option, family, shown in (("-4", "127.0.0.1", f"127.0.0.1:{port}"), ("-6", "::1", f"[::1]:{port}")):
        names["box.test"] = [family]
        line = f"{shown} refused the connection: nothing is listening there"
        assert failure_of(option, f"ws://box.test:{port}").line == line
    assert failure_of("-6", "ws://127.0.0.1:1").line.startswith("cannot resolve 127.0.0.1: ")


def test_an_address_that_does_not_answer_times_out(silent_place: tuple[str, int]) -> None:
    host, port = silent_place
    line = f"no connection to {host}:{port} within 0.5 s"
    assert failure_of(f"ws://{host}:{port}", limit=0.5) == Failure(line, 69)


@pytest.mark.usefixtures("names")
def test_an_unknown_name_is_reported() -> None:
    failure = failure_of("ws://box.test")
    assert (failure.line, failure.code) == ("cannot resolve box.test: Name or service not known", 69)


@pytest.mark.parametrize("host", ["slow.test", "8081-slow.test"])
def test_a_name_server_that_never_answers_times_out(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, answered = socket.getaddrinfo, threading.Event()

    def getaddrinfo(name: bytes, port: int, family: int, kind: int, proto: int = 0, flags: int = 0) -> list[Any]:
        if not flags & socket.AI_NUMERICHOST:
            answered.wait(30)
        return ask(name, port, family, kind, proto, flags | socket.AI_NUMERICHOST)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    failure = failure_of(f"ws://{host}", limit=0.3)
    answered.set()
    assert failure == Failure(f"the name server (asked for {host}) did not answer within 0.3 s", 75)


# ---- servers that are none


def test_a_server_that_never_answers_times_out(serve: Serve) -> None:
    url = f"ws://127.0.0.1:{serve(wait_for_end).port}"
    assert failure_of(url, limit=0.5) == Failure(f"{url} did not answer within 0.5 s", 75)


def test_a_server_that_drips_times_out(serve: Serve) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        try:
            for _ in range(600):
                connection.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            pass  # the client has hung up

    url = f"ws://127.0.0.1:{serve(drip).port}"
    assert failure_of(url, limit=1.0) == Failure(f"{url} did not answer within 1 s", 75)


def test_a_server_that_hangs_up_without_an_answer_is_reported(serve: Serve) -> None:
    url = f"ws://127.0.0.1:{serve(read_head).port}"
    assert failure_of(url) == Failure(f"{url} closed the connection before it answered", 69)


def test_a_server_that_resets_the_connection_is_reported(serve: Serve) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        reset(connection)

    url = f"ws://127.0.0.1:{serve(script).port}"
    assert failure_of(url) == Failure(f"{url} closed the connection before it answered", 69)


def test_want_of_resources_while_the_answer_is_awaited_is_not_blamed_on_the_server(serve: Serve) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    settings = settings_of(f"ws://127.0.0.1:{serve(upgrade).port}")
    with pytest.raises(DialError) as raised:
        dial(settings, Trace(), meanwhile=fail)
    assert str(raised.value) == "this machine cannot open a tunnel now: Too many open files"
    assert raised.value.exit_code == TRY_LATER


def test_a_server_of_another_protocol_is_reported_with_its_first_bytes(serve: Serve) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        wait_for_end(connection)

    url = f"ws://127.0.0.1:{serve(greet).port}"
    line = f"{url} did not answer in HTTP: it began with 'SSH-2.0-OpenSSH_9.2p1\\r\\n'"
    assert failure_of(url) == Failure(line, 76)


def test_a_server_that_hangs_up_in_its_answer_is_reported(serve: Serve) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso")

    url = f"ws://127.0.0.1:{serve(script).port}"
    line = f"{url} did not answer in HTTP: it closed the connection in the middle of its answer"
    assert failure_of(url) == Failure(line, 76)


def test_a_server_with_an_endless_head_is_given_up(serve: Serve) -> None:
    def pour(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                connection.sendall(b"X-Filler: y\r\n" * 1000)
        except OSError:
            pass  # the client has hung up

    url = f"ws://127.0.0.1:{serve(pour).port}"
    line = f"{url} did not answer in HTTP: its head is longer than 16384 bytes"
    assert failure_of(url) == Failure(line, 76)


def test_a_server_with_the_wrong_accept_key_is_refused(serve: Serve) -> None:
    script = answer(
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    )
    url = f"ws://127.0.0.1:{serve(script).port}"
    line = f"{url} answered, but not as a WebSocket server: its Sec-WebSocket-Accept does not match our key"
    assert failure_of(url) == Failure(line, 76)


# ---- refusals


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("401 Unauthorized", 77),
        ("403 Forbidden", 77),
        ("404 Not Found", 69),
        ("408 Request Timeout", 75),
        ("429 Too Many Requests", 75),
        ("502 Bad Gateway", 69),
        ("503 Service Unavailable", 75),
        ("418 I'm a teapot", 76),
    ],
)
def test_an_edges_refusal_is_shown_in_its_own_words(serve: Serve, status: str, code: int) -> None:
    body = json.dumps({"sandboxId": "x", "message": "The sandbox was not found", "code": 502}).encode()
    lines = (f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}")
    url = f"ws://127.0.0.1:{serve(answer(*lines, body=body, then=wait_for_end)).port}"
    line = f"{url} answered {status[:3]}: The sandbox was not found"
    assert failure_of(url) == Failure(line, code)


@pytest.mark.parametrize("status", ["409 Conflict", "425 Too Early"])
def test_a_sandbox_that_is_still_starting_is_a_matter_of_time(serve: Serve, status: str) -> None:
    url = f"ws://127.0.0.1:{serve(answer(f'HTTP/1.1 {status}', 'Content-Length: 0')).port}"
    line = f"{url} answered {status[:3]}: {status[4:]}; it may still be starting: try again in a while"
    assert failure_of(url) == Failure(line, 75)


def test_a_409_of_the_bridge_itself_does_not_mean_that_a_sandbox_is_starting(serve: Serve) -> None:
    script = answer("HTTP/1.1 409 Conflict", "Wstunnel-Error: stale-epoch", "Content-Length: 0")
    url = f"ws://127.0.0.1:{serve(script).port}"
    assert failure_of(url) == Failure(f"{url} answered 409: Conflict", 76)


def test_a_chunked_refusal_is_read(serve: Serve) -> None:
    body = b"10\r\n" + b'{"message": "in ' + b'\r\n8\r\nchunks"}' + b"\r\n0\r\n\r\n"
    script = answer("HTTP/1.1 502 Bad Gateway", "Transfer-Encoding: chunked", body=body, then=wait_for_end)
    url = f"ws://127.0.0.1:{serve(script).port}"
    assert failure_of(url) == Failure(f"{url} answered 502: in chunks", 69)


def test_a_refusal_that_ends_with_the_connection_is_read(serve: Serve) -> None:
    script = answer("HTTP/1.0 403 Forbidden", body=b'{"detail": "no"}')
    url = f"ws://127.0.0.1:{serve(script).port}"
    assert failure_of(url) == Failure(f"{url} answered 403: no", 77)


def test_a_refusal_whose_body_never_ends_is_not_waited_for(serve: Serve) -> None:
    script = answer("HTTP/1.1 403 Forbidden", "Content-Length: 9", then=wait_for_end)
    url = f"ws://127.0.0.1:{serve(script).port}"
    began = time.monotonic()
    assert failure_of(url, limit=60) == Failure(f"{url} answered 403: Forbidden", 77)
    assert time.monotonic() - began < 30


def test_a_redirect_is_not_followed(serve: Serve) -> None:
    script = answer("HTTP/1.1 301 Moved Permanently", "Location: https://login.test/", "Content-Length: 0")
    url = f"ws://127.0.0.1:{serve(script).port}"
    line = f"{url} answered 301 and points to https://login.test/; redirects are not followed"
    assert failure_of(url) == Failure(line, 76)


def test_a_web_page_is_no_tunnel(serve: Serve) -> None:
    url = f"ws://127.0.0.1:{serve(answer('HTTP/1.1 200 OK', 'Content-Length: 2', body=b'hi')).port}"
    line = f"{url} answered, but not as a WebSocket server: it answered 200 like a normal web page"
    assert failure_of(url) == Failure(line, 76)
