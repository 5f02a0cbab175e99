"""Servers and proxies that never finish their answer: dialling still ends when its time is over."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Callable, Iterable

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tests.client.conftest import Failure, Script, Serve, answer, failure_of, over_tls, read_head, upgrade

LIMIT = 1.0  # seconds of --connect-timeout
DRIP = 0.05  # seconds from one byte to the next
LONGEST = 20.0  # seconds that a server goes on, should nobody hang up

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def pour(pieces: Iterable[bytes], pause: float = DRIP) -> Script:
    """A server that sends ``pieces``, one after the other, until it is hung up on or they end."""

    def script(connection: socket.socket) -> None:
        end = time.monotonic() + LONGEST
        with contextlib.suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
                if time.monotonic() > end:
                    return

    return script


def behind_head(script: Script) -> Script:
    """``script``, once the request is there."""

    def serve(connection: socket.socket) -> object:
        read_head(connection)
        return script(connection)

    return serve


def dripping(data: bytes) -> Iterable[bytes]:
    return (bytes((byte,)) for byte in data)


def endless(piece: bytes) -> Iterable[bytes]:
    return itertools.repeat(piece)


def failure_in_time(*words: str) -> Failure:
    began = time.monotonic()
    failure = failure_of(*words, limit=LIMIT)
    assert time.monotonic() - began < LIMIT + 8  # a dial that does not end would take `LONGEST`
    return failure


@pytest.mark.parametrize(
    "script",
    [
        behind_head(pour(endless(CONTINUE))),
        behind_head(pour(endless(b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n"))),
        pour(itertools.chain.from_iterable(map(dripping, endless(CONTINUE)))),
        behind_head(pour(dripping(b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"y" * 1000))),
        behind_head(pour(endless(b"HTTP/1.1 100 Continue\r\nX-Drip: " + b"z" * 5000 + b"\r\n\r\n"))),
    ],
    ids=["100", "102", "100 dripping", "101 dripping", "long 100"],
)
def test_a_server_that_sends_endless_interim_answers_times_out(serve: Serve, script: Script) -> None:
    url = f"ws://127.0.0.1:{serve(script).port}"
    assert failure_in_time(url) == Failure(f"{url} did not answer within {LIMIT:g} s", 75)


def test_a_flood_of_interim_answers_is_not_read_to_the_end_of_the_time(serve: Serve) -> None:
    url = f"ws://127.0.0.1:{serve(behind_head(pour(endless(CONTINUE * 100), 0.0))).port}"
    assert failure_of(url, limit=60) == Failure(f"{url} sent interim responses, but no final one", 75)


def test_some_interim_answers_before_the_final_one_are_fine(serve: Serve) -> None:
    def script(connection: socket.socket) -> object:
        connection.sendall(CONTINUE * 5 + b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        return answer("HTTP/1.1 403 Forbidden", "Content-Length: 0")(connection)

    url = f"ws://127.0.0.1:{serve(script).port}"
    assert failure_of(url) == Failure(f"{url} answered 403: Forbidden", 77)


@pytest.mark.parametrize("body", [b"x" * 5000, b"1\r\nx\r\n" * 1000], ids=["plain", "in chunks"])
def test_a_refusal_that_drips_is_reported_without_its_end(serve: Serve, body: bytes) -> None:
    kind = "Transfer-Encoding: chunked" if body.startswith(b"1\r\n") else "Content-Length: 5000"
    script = answer("HTTP/1.1 403 Forbidden", kind, then=pour(dripping(body)))
    url = f"ws://127.0.0.1:{serve(script).port}"
    assert failure_in_time(url) == Failure(f"{url} answered 403: Forbidden", 77)


# ---- TLS


@pytest.mark.parametrize(
    "pieces",
    [
        lambda: dripping(b"\x16\x03\x03\x40\x00" + bytes(5000)),  # one record of the handshake
        # a ServerHello of which each record has one byte
        lambda: (b"\x16\x03\x03\x00\x01" + bytes((byte,)) for byte in b"\x02\x00\x40\x00" + bytes(5000)),
    ],
    ids=["record", "fragments"],
)
def test_a_tls_handshake_that_drips_times_out(serve: Serve, pieces: Callable[[], Iterable[bytes]]) -> None:
    port = serve(pour(pieces())).port
    line = f"TLS with 127.0.0.1 did not answer within {LIMIT:g} s"
    assert failure_in_time(f"wss://127.0.0.1:{port}") == Failure(line, 75)


@pytest.mark.parametrize(
    "record",
    [
        b"\x14\x03\x03\x00\x01\x01",  # ChangeCipherSpec, which TLS 1.3 says to ignore
        b"\x15\x03\x03\x00\x02\x01\x5a",  # a warning
        b"\x16\x03\x03\x00\x00",  # an empty fragment
        b"\x16\x03\x03\x00\x04\x00\x00\x00\x00",  # a HelloRequest, which TLS 1.2 says to ignore
    ],
    ids=["cipher", "warning", "empty", "hello request"],
)
def test_a_tls_handshake_of_nothing_but_filler_is_given_up(serve: Serve, record: bytes) -> None:
    port = serve(pour(endless(record * 500), 0.0)).port
    assert failure_in_time(f"wss://127.0.0.1:{port}").code in (75, 76)


def test_a_server_that_drips_over_tls_times_out(serve: Serve, server_tls: ssl.SSLContext, ca_file: str) -> None:
    port = serve(over_tls(server_tls, behind_head(pour(endless(CONTINUE))))).port
    url = f"wss://127.0.0.1:{port}"
    failure = failure_in_time("--ca-file", ca_file, url)
    assert failure == Failure(f"{url} did not answer within {LIMIT:g} s", 75)


# ---- proxies


@pytest.mark.parametrize(
    "pieces",
    [lambda: endless(CONTINUE), lambda: dripping(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 5000)],
    ids=["100", "dripping"],
)
def test_an_http_proxy_that_never_finishes_its_answer_times_out(
    serve: Serve, pieces: Callable[[], Iterable[bytes]]
) -> None:
    proxy = f"http://127.0.0.1:{serve(behind_head(pour(pieces()))).port}"
    line = f"proxy {proxy} did not answer within {LIMIT:g} s"
    assert failure_in_time("--proxy", proxy, "ws://h.test/") == Failure(line, 75)


def test_a_flood_of_interim_answers_from_a_proxy_is_given_up(serve: Serve) -> None:
    proxy = f"http://127.0.0.1:{serve(behind_head(pour(endless(CONTINUE * 100), 0.0))).port}"
    line = f"proxy {proxy} sent interim responses, but no final one"
    assert failure_of("--proxy", proxy, "ws://h.test/", limit=60) == Failure(line, 75)


def test_a_proxys_refusal_that_drips_is_reported_in_time(serve: Serve) -> None:
    script = answer("HTTP/1.1 407 Who are you", "Content-Length: 5000", then=pour(dripping(b"x" * 5000)))
    proxy = f"http://127.0.0.1:{serve(script).port}"
    line = f"proxy {proxy} requires valid credentials: it answered 407: Who are you"
    assert failure_in_time("--proxy", proxy, "ws://h.test/") == Failure(line, 77)


@pytest.mark.parametrize(
    "data",
    [b"\x05", b"\x05\x00\x05\x00\x00\x03\xff" + b"x" * 257],
    ids=["method", "name"],
)
def test_a_socks_proxy_that_drips_times_out(serve: Serve, data: bytes) -> None:
    def script(connection: socket.socket) -> None:
        pour(dripping(data))(connection)
        with contextlib.suppress(OSError):
            while connection.recv(100):
                pass

    proxy = f"socks5h://127.0.0.1:{serve(script).port}"
    line = f"proxy {proxy} did not answer within {LIMIT:g} s"
    assert failure_in_time("--proxy", proxy, "ws://h.test/") == Failure(line, 75)


# ---- the commands


@pytest.mark.parametrize("command", ["connect", "doctor", "websocat"])
def test_each_command_ends_with_one_line(bed: Bed, command: str) -> None:
    with Target(behind_head(pour(endless(CONTINUE)))) as target:
        url = f"ws://127.0.0.1:{target.port}"
        words = ["websocat", "-b", "-", url] if command == "websocat" else [command, "--connect-timeout", "1", url]
        finished = bed.run(*OURS, *words, stdin=b"", seconds=40, env={"WSTUNNEL_PY_CONNECT_TIMEOUT": "1"})
    assert finished.status == 75
    said = finished.text if command == "doctor" else finished.stderr
    assert sum("did not answer within 1 s" in line for line in said.splitlines()) == 1


def test_the_time_is_for_the_whole_way(serve: Serve) -> None:
    def proxy(connection: socket.socket) -> object:
        read_head(connection)
        time.sleep(LIMIT * 0.6)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        read_head(connection)
        time.sleep(LIMIT * 0.6)
        return upgrade(connection)

    through = f"http://127.0.0.1:{serve(proxy).port}"
    assert failure_in_time("--proxy", through, "ws://h.test/").code == 75
