"""Proxies: which one is taken, real ones with and without a password, and the one line for each that fails."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable

import pytest

from tests.bed.processes import Bed, free_port
from tests.bed.targets import read_exactly, reset
from tests.client.conftest import (
    Failure,
    Script,
    Serve,
    answer,
    failure_of,
    open_tunnel,
    over_tls,
    read_head,
    start_microsocks,
    start_tinyproxy,
    upgrade,
    wait_for_end,
)
from tests.client.test_settings import error_of
from tunnel.client.address import parse_url
from tunnel.client.proxy import choose_proxy

CLOSED = "ws://127.0.0.1:1"  # a target that no proxy can reach


# ---- which one


@pytest.mark.parametrize(
    ("url", "variables", "chosen"),
    [
        ("wss://h", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("wss://h", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("wss://h", {"wss_proxy": "http://w", "https_proxy": "http://p"}, "http://w:80"),
        ("wss://h", {"http_proxy": "http://p"}, None),
        ("wss://h", {"ALL_PROXY": "socks5h://p"}, "socks5h://p:1080"),
        ("ws://h", {"http_proxy": "http://p", "HTTP_PROXY": "http://q", "all_proxy": "http://r"}, "http://p:80"),
        ("ws://h", {"HTTP_PROXY": "http://q"}, "http://q:80"),
        ("ws://h", {"HTTP_PROXY": "http://q", "REQUEST_METHOD": "GET"}, None),
        ("ws://h", {"https_proxy": "http://p"}, None),
        ("ws://h", {"http_proxy": ""}, None),
        ("ws://localhost", {"http_proxy": "http://p"}, "http://p:80"),
        ("ws://h", {"http_proxy": "socks5://[::1]:9"}, "socks5://[::1]:9"),
        ("wss://h", {"ALL_PROXY": "socks://127.0.0.1:9/"}, "socks5h://127.0.0.1:9"),
        ("wss://h", {"https_proxy": "http://faß.test:3128/"}, "http://xn--fa-hia.test:3128"),
    ],
)
def test_the_environment_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], chosen: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = choose_proxy(None, parse_url(url))
    assert (str(proxy) if proxy else None) == chosen


@pytest.mark.parametrize(
    ("exempt", "url", "direct"),
    [
        ("*", "ws://h.test", True),
        ("h.test", "ws://h.test", True),
        ("h.test", "ws://H.TEST", True),
        ("other.test,h.test", "ws://h.test", True),
        ("other.test h.test", "ws://h.test", True),
        (".test", "ws://h.test", True),
        ("test", "ws://h.test", True),
        ("*.test", "ws://h.test", True),
        ("est", "ws://h.test", False),
        ("h.test", "ws://xh.test", False),
        ("h.test:80", "ws://h.test", True),
        ("h.test:81", "ws://h.test", False),
        ("10.0.0.0/8", "ws://10.1.2.3", True),
        ("10.0.0.0/8", "ws://11.1.2.3", False),
        ("10.0.0.0/8", "ws://10.test", False),
        ("10.0.0.0/99", "ws://10.1.2.3", False),
        ("fd00::/8", "ws://[fd00::1]", True),
        ("[::1]:80", "ws://[::1]", True),
        ("::1", "ws://[::1]:81", True),
        ("", "ws://h.test", False),
        ("h.test.", "ws://h.test", True),
        ("h.test", "ws://h.test.", True),
        ("faß.test", "ws://xn--fa-hia.test", True),
        ("0:0::1", "ws://[::1]", True),
        ("fe80::/10", "ws://[fe80::1%25eth0]", True),
        ("fe80::1", "ws://[fe80::1%25eth0]", True),
        ("fe80::1%eth0", "ws://[fe80::1%25eth0]", True),
        ("[fe80::1%25eth0]:80", "ws://[fe80::1%eth0]", True),
        ("[fe80::1%br-12ab]", "ws://[fe80::1%25eth0]", False),
        ("[fe80::1%eth0]", "ws://[fe80::1]", False),
    ],
)
def test_no_proxy_names_what_is_dialled_directly(
    monkeypatch: pytest.MonkeyPatch, exempt: str, url: str, direct: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://p")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert (choose_proxy(None, parse_url(url)) is None) == direct


def test_the_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://p")
    monkeypatch.setenv("NO_PROXY", "*")
    assert str(choose_proxy("socks5://mine:1", parse_url("ws://h"))) == "socks5://mine:1"
    monkeypatch.delenv("NO_PROXY")
    assert choose_proxy("none", parse_url("ws://h")) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://u:hunter2@p", "TLS to the proxy itself (https://) is not supported"),
        ("ftp://u:hunter2@p", "a proxy's URL must begin with http://, socks5:// or socks5h://"),
        ("http://u:hunter2@p:x", "in the proxy's URL, the port is not a number from 1 to 65535"),
        ("http://u:hunter2@", "in the proxy's URL, the host is missing"),
        ("http://u:hunter2@[::1", "in the proxy's URL, the IPv6 address is malformed"),
    ],
)
def test_a_wrong_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch, url: str, problem: str) -> None:
    assert error_of("--proxy", url, "box") == f"--proxy: {problem}"
    monkeypatch.setenv("HTTP_PROXY", url)
    assert failure_of(CLOSED) == Failure(f"HTTP_PROXY: {problem}", 2)


# ---- HTTP CONNECT


def test_a_tunnel_opens_through_tinyproxy(bed: Bed, serve: Serve) -> None:
    proxy = f"http://127.0.0.1:{start_tinyproxy(bed)}"
    open_tunnel("--proxy", proxy, f"ws://127.0.0.1:{serve(upgrade).port}").channel.close()


def test_a_tls_tunnel_opens_through_tinyproxy_with_a_password(
    bed: Bed, serve: Serve, server_tls: ssl.SSLContext, ca_file: str
) -> None:
    port = start_tinyproxy(bed, "BasicAuth somebody hunter2")
    url = f"wss://localhost:{serve(over_tls(server_tls, upgrade)).port}"
    words = ("--ca-file", ca_file, url)
    open_tunnel("--proxy", f"http://somebody:hunter%32@127.0.0.1:{port}", *words).channel.close()
    for credentials in ("", "somebody:wrong@"):
        failure = failure_of("--proxy", f"http://{credentials}127.0.0.1:{port}", *words)
        assert failure.line.startswith(f"proxy http://127.0.0.1:{port} requires valid credentials: it answered ")
        assert failure.code == 77


def test_a_target_that_tinyproxy_cannot_reach_is_reported(bed: Bed) -> None:
    proxy = f"http://127.0.0.1:{start_tinyproxy(bed)}"
    failure = failure_of("--proxy", proxy, CLOSED)
    assert failure.line.startswith(f"proxy {proxy} did not connect to 127.0.0.1:1: it answered 5")
    assert failure.code == 69


def test_a_port_that_tinyproxy_does_not_allow_is_reported(bed: Bed) -> None:
    proxy = f"http://127.0.0.1:{start_tinyproxy(bed, 'ConnectPort 443')}"
    failure = failure_of("--proxy", proxy, CLOSED)
    assert failure.line.startswith(f"proxy {proxy} did not connect to 127.0.0.1:1: it answered 403: ")


def test_connect_asks_for_the_name_and_brackets_an_ipv6_address(serve: Serve) -> None:
    proxy = serve(answer("HTTP/1.1 403 No"))
    for url, authority in (
        ("ws://box.test", "box.test:80"),
        ("ws://box.test.", "box.test.:80"),
        ("wss://[::1]:9", "[::1]:9"),
        ("wss://[fe80::1%25eth0]:9", "[fe80::1]:9"),
        ("ws://faß.test", "xn--fa-hia.test:80"),
    ):
        line = f"proxy http://127.0.0.1:{proxy.port} did not connect to {authority}: it answered 403: No"
        assert failure_of("--proxy", f"http://127.0.0.1:{proxy.port}", url) == Failure(line, 69)
        assert proxy.result() == f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


def test_a_proxys_refusal_that_ends_with_the_connection_is_read(serve: Serve) -> None:
    proxy = f"http://127.0.0.1:{serve(answer('HTTP/1.0 503 Busy', body=b'<html>sorry</html>')).port}"
    line = f"proxy {proxy} did not connect to 127.0.0.1:1: it answered 503: Busy"
    assert failure_of("--proxy", proxy, CLOSED) == Failure(line, 69)


def pieces_of(*pieces: bytes, end: Callable[[socket.socket], object]) -> Script:
    """A proxy that answers any request with these bytes, whatever they are, and then does ``end``."""

    def script(connection: socket.socket) -> object:
        read_head(connection)
        for piece in pieces:
            connection.sendall(piece)
        return end(connection)

    return script


def pour_for_ever(connection: socket.socket) -> None:
    """Send a body without an end, until the client hangs up."""
    with contextlib.suppress(OSError):
        for _ in range(1000):
            connection.sendall(b"x")
            time.sleep(0.02)


REFUSALS = [
    (b"407 Who are you", "requires valid credentials", 77),
    (b"403 No way", "did not connect to 127.0.0.1:1", 69),
]


@pytest.mark.parametrize(("status", "verdict", "code"), REFUSALS)
@pytest.mark.parametrize("end", [wait_for_end, pour_for_ever, reset, lambda connection: connection.close()])
@pytest.mark.parametrize(
    "rest",
    [b"\r\nContent-Length: 5000\r\n\r\nsome", b"\r\n\r\n", b"\nTransfer-Encoding: chunked\n\n5\n", b"\r\nA: b\r\n"],
    ids=["length", "no length", "LF", "half a head"],
)
def test_the_status_of_a_refusal_is_reported_even_if_the_rest_is_lost(
    serve: Serve,
    status: bytes,
    verdict: str,
    code: int,
    end: Callable[[socket.socket], object],
    rest: bytes,
) -> None:
    proxy = f"http://127.0.0.1:{serve(pieces_of(b'HTTP/1.1 ' + status + rest, end=end)).port}"
    failure = failure_of("--proxy", proxy, CLOSED, limit=1)
    number, _, said = status.decode().partition(" ")
    assert failure == Failure(f"proxy {proxy} {verdict}: it answered {number}: {said}", code)


@pytest.mark.parametrize("end", [wait_for_end, reset, lambda connection: connection.close()])
def test_a_status_counts_though_its_line_breaks_off(serve: Serve, end: Callable[[socket.socket], object]) -> None:
    proxy = f"http://127.0.0.1:{serve(pieces_of(b'HTTP/1.1 407 Who a', end=end)).port}"
    line = f"proxy {proxy} requires valid credentials: it answered 407: Who a"
    assert failure_of("--proxy", proxy, CLOSED, limit=1) == Failure(line, 77)


def test_a_refusal_is_not_waited_for_until_the_time_is_over(serve: Serve) -> None:
    script = pieces_of(b"HTTP/1.1 407 Who\r\nContent-Length: 9\r\n\r\n", end=wait_for_end)
    began = time.monotonic()
    failure = failure_of("--proxy", f"http://127.0.0.1:{serve(script).port}", CLOSED, limit=60)
    assert failure.code == 77
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n Folded: yes\r\nX-Via :a\r\n b\r\nno colon\r\n\r\n"], ids=["LF", "odd"])
def test_a_proxy_that_spells_its_consent_oddly_is_passed(serve: Serve, end: bytes) -> None:
    script = pieces_of(b"HTTP/1.0 200 Connection established" + end, end=upgrade)
    open_tunnel("--proxy", f"http://127.0.0.1:{serve(script).port}", "ws://box.test").channel.close()


def test_a_proxy_of_another_protocol_is_reported_with_its_first_bytes(serve: Serve) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"220 ftp.test ready\r\n")
        wait_for_end(connection)

    proxy = f"http://127.0.0.1:{serve(greet).port}"
    line = f"{proxy} does not speak HTTP: it began with '220 ftp.test ready\\r\\n'"
    assert failure_of("--proxy", proxy, CLOSED) == Failure(line, 76)


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_never_answers_times_out(serve: Serve, scheme: str) -> None:
    proxy = f"{scheme}://127.0.0.1:{serve(wait_for_end).port}"
    line = f"proxy {proxy} did not answer within 0.5 s"
    assert failure_of("--proxy", proxy, CLOSED, limit=0.5) == Failure(line, 75)


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_resets_the_connection_is_reported(serve: Serve, scheme: str) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(1)
        reset(connection)

    proxy = f"{scheme}://127.0.0.1:{serve(script).port}"
    assert failure_of("--proxy", proxy, CLOSED) == Failure(
        f"proxy {proxy} closed the connection before it answered", 69
    )


def test_a_proxy_that_hangs_up_is_reported(serve: Serve) -> None:
    port = serve(lambda connection: connection.recv(65536)).port
    closed = "it closed the connection"
    for scheme, end in (("http", f"HTTP: {closed} without answering"), ("socks5h", f"SOCKS5: {closed}")):
        proxy = f"{scheme}://127.0.0.1:{port}"
        assert failure_of("--proxy", proxy, CLOSED) == Failure(f"{proxy} does not speak {end}", 76)


def test_a_proxy_that_refuses_the_connection_is_reported() -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    place = proxy.removeprefix("http://")
    line = f"cannot connect to proxy {proxy}: {place} refused the connection: nothing is listening there"
    assert failure_of("--proxy", proxy, CLOSED) == Failure(line, 69)


# ---- SOCKS5


def test_a_tunnel_opens_through_microsocks(bed: Bed, serve: Serve) -> None:
    port = start_microsocks(bed)
    url = f"ws://localhost:{serve(upgrade).port}"
    for scheme in ("socks5", "socks5h"):
        open_tunnel("-4", "--proxy", f"{scheme}://127.0.0.1:{port}", url).channel.close()


def test_a_tunnel_opens_through_microsocks_with_a_password(bed: Bed, serve: Serve) -> None:
    port = start_microsocks(bed, "-u", "somebody", "-P", "hunter2")
    url = f"ws://127.0.0.1:{serve(upgrade).port}"
    open_tunnel("--proxy", f"socks5://somebody:hunter2@127.0.0.1:{port}", url).channel.close()
    for credentials, reason in (
        ("", "it accepts no login method that this client has"),
        ("somebody:wrong@", "it refused the user name or the password"),
    ):
        line = f"proxy socks5://127.0.0.1:{port} requires valid credentials: {reason}"
        assert failure_of("--proxy", f"socks5://{credentials}127.0.0.1:{port}", url) == Failure(line, 77)


def test_a_target_that_microsocks_cannot_reach_is_reported(bed: Bed) -> None:
    proxy = f"socks5h://127.0.0.1:{start_microsocks(bed)}"
    line = f"proxy {proxy} did not connect to 127.0.0.1:1: connection refused"
    assert failure_of("--proxy", proxy, CLOSED) == Failure(line, 69)


class Socks:
    """A SOCKS5 proxy that notes what it is asked for and gives one answer."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.asked = b""
        self.done = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        connection.sendall(b"\x05\x00" if read_exactly(connection, 3) else b"")
        head = read_exactly(connection, 4)
        size = {1: 4, 4: 16}.get(head[3]) or read_exactly(connection, 1)[0]
        self.asked = head + read_exactly(connection, size + 2)
        self.done.set()
        connection.sendall(self.reply)
        wait_for_end(connection)


@pytest.mark.parametrize(
    ("scheme", "url", "asked"),
    [
        ("socks5h", "ws://localhost:80", b"\x05\x01\x00\x03localhost\x00\x50"),
        ("socks5", "ws://localhost:80", b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"),
        ("socks5h", "ws://10.1.2.3:80", b"\x05\x01\x00\x01\x0a\x01\x02\x03\x00\x50"),
        ("socks5h", "ws://[::1]:80", b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50"),
        ("socks5h", "ws://[::1%251]:80", b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50"),
        ("socks", "ws://localhost:80", b"\x05\x01\x00\x03localhost\x00\x50"),
    ],
)
def test_socks5h_leaves_names_to_the_proxy_and_socks5_does_not(
    serve: Serve, scheme: str, url: str, asked: bytes
) -> None:
    socks = Socks(b"\x05\x02\x00\x01" + bytes(6))
    proxy = f"{scheme}://127.0.0.1:{serve(socks).port}"
    failure_of("-4", "--proxy", proxy, url)
    assert socks.done.wait(10)
    assert socks.asked == asked


@pytest.mark.parametrize("end", [wait_for_end, reset])
def test_a_socks5_refusal_that_breaks_off_is_reported(serve: Serve, end: Script) -> None:
    def script(connection: socket.socket) -> None:
        read_exactly(connection, 3)
        connection.sendall(b"\x05\x00")
        read_exactly(connection, 10)
        connection.sendall(b"\x05\x02")
        end(connection)

    proxy = f"socks5h://127.0.0.1:{serve(script).port}"
    line = f"proxy {proxy} did not connect to 127.0.0.1:1: its rules do not allow this connection"
    assert failure_of("--proxy", proxy, CLOSED, limit=1) == Failure(line, 69)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1, "general failure"),
        (2, "its rules do not allow this connection"),
        (3, "network unreachable"),
        (4, "host unreachable"),
        (5, "connection refused"),
        (6, "time to live expired"),
        (7, "command not supported"),
        (8, "address type not supported"),
        (99, "error 99"),
    ],
)
def test_every_refusal_of_socks5_is_named(serve: Serve, code: int, reason: str) -> None:
    proxy = f"socks5h://127.0.0.1:{serve(Socks(bytes((5, code, 0, 1)) + bytes(6))).port}"
    line = f"proxy {proxy} did not connect to box.test:80: {reason}"
    assert failure_of("--proxy", proxy, "ws://box.test") == Failure(line, 69)


def test_an_answer_with_a_name_in_it_is_read_to_its_end(serve: Serve) -> None:
    def proxied(connection: socket.socket) -> None:
        read_exactly(connection, 3)
        connection.sendall(b"\x05\x00")
        read_exactly(connection, 5 + len("box.test") + 2)
        connection.sendall(b"\x05\x00\x00\x03\x09localhost\x00\x50")
        upgrade(connection)

    open_tunnel("--proxy", f"socks5h://127.0.0.1:{serve(proxied).port}", "ws://box.test").channel.close()


@pytest.mark.parametrize("reply", [b"\x04\x00\x00\x01" + bytes(6), b"\x05\x00\x00\x09" + bytes(6)])
def test_a_malformed_socks5_answer_is_reported(serve: Serve, reply: bytes) -> None:
    proxy = f"socks5h://127.0.0.1:{serve(Socks(reply)).port}"
    line = f"{proxy} does not speak SOCKS5: its answer is malformed"
    assert failure_of("--proxy", proxy, CLOSED) == Failure(line, 76)


def test_an_http_server_is_no_socks_proxy(serve: Serve) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(3)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        read_head(connection)

    proxy = f"socks5://127.0.0.1:{serve(script).port}"
    line = f"{proxy} does not speak SOCKS5: it answered in another protocol"
    assert failure_of("--proxy", proxy, CLOSED) == Failure(line, 76)


@pytest.mark.parametrize("credentials", [f"{'u' * 256}:p", f"u:{'p' * 256}", ":p"])
def test_credentials_that_socks5_cannot_carry_are_refused(serve: Serve, credentials: str) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(4)
        connection.sendall(b"\x05\x02")
        wait_for_end(connection)

    port = serve(script).port
    reason = "a SOCKS5 user name or password must have 1 to 255 bytes"
    line = f"proxy socks5://127.0.0.1:{port} requires valid credentials: {reason}"
    assert failure_of("--proxy", f"socks5://{credentials}@127.0.0.1:{port}", CLOSED) == Failure(line, 77)
