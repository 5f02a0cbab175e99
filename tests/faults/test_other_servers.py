"""Other servers that a client meets when it resumes: other bridges, websocat, and edges that answer by themselves."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.utils import accept_key

from tests.bed.processes import Bed, Process
from tests.bed.targets import Target, echo
from tests.bed.tunnels import CLIENTS, start_bridge
from tests.conftest import StartBridge
from tests.faults.conftest import StartClient
from tests.faults.link import Link, Plan
from tests.faults.peer import RESUMABLE, Peer, assert_echoes
from tests.faults.seen import LIMIT, assert_one_line, wait_for_output
from tests.server.clients import port_of

INTRUDER = b"bytes of another session"


def http(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


def switch(*headers: str, then: bytes = b"") -> Callable[[bytes], bytes]:
    """An answer that accepts any upgrade, with these headers, and then sends a message."""

    def answer(head: bytes) -> bytes:
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))
        assert b"upgrade" in fields
        accept = accept_key(key.partition(b": ")[2].decode())
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accept}", *headers, "", ""]
        return "\r\n".join(lines).encode() + b"\x82" + bytes([len(then)]) + then

    return answer


def greet_and_listen(connection: socket.socket) -> bytes:
    """Return what came. Whoever hangs up without having read the greeting breaks the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        connection.sendall(INTRUDER)
        while chunk := connection.recv(1 << 16):
            received += chunk
    return received


@pytest.fixture
def link(start: StartBridge) -> Iterator[Link]:
    """A link to a bridge of its own."""
    with Link(port_of(start().url)) as link:
        yield link


def begin(connect: StartClient, link: Link, *options: str) -> Process:
    """Start a client, and return when it has a session that works."""
    client = connect(link.url, *options)
    client.feed(b"x")
    wait_for_output(client, 1)
    return client


def assert_goes_on(client: Process) -> None:
    client.feed(b"y")
    client.end_input()
    assert client.wait(LIMIT) == 0
    assert client.out.read_bytes() == b"xy"
    assert client.err.read_text() == ""


# ---- other servers


def test_a_bridge_that_was_restarted_does_not_know_the_session(
    start: StartBridge, connect: StartClient, link: Link
) -> None:
    """Two bridges on one port, or one after the other: the second refuses, and the client says so in one line."""
    client = begin(connect, link)
    other = start()
    link.flip(port_of(other.url))
    link.break_all("rst")
    assert client.wait(LIMIT) == 69
    assert_one_line(client, "session")
    assert client.out.read_bytes() == b"x"
    other.process.wait_for_line("refused .*unknown-session")


@pytest.mark.parametrize("kind", ["websocat", "websocat-E"])
def test_websocat_in_the_place_of_the_bridge_delivers_nothing(
    bed: Bed, connect: StartClient, link: Link, kind: str
) -> None:
    client = begin(connect, link)
    with Target(greet_and_listen) as target:
        link.flip(port_of(start_bridge(bed, kind, target.port).url))
        link.break_all("rst")
        client.feed(b"for the first session only")
        assert client.wait(LIMIT) == 69
        assert target.result() == b""
    assert client.out.read_bytes() == b"x"
    assert_one_line(client)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Sec-WebSocket-Protocol: binary",),
        (f"Sec-WebSocket-Protocol: {RESUMABLE}",),
        ("Sec-WebSocket-Protocol: binary", "Wstunnel-Received: 1"),
        (f"Sec-WebSocket-Protocol: {RESUMABLE}", "Wstunnel-Received: many"),
        (f"Sec-WebSocket-Protocol: {RESUMABLE}", "Wstunnel-Received: 1000"),
    ],
    ids=["nothing", "plain", "no offset", "no subprotocol", "no number", "beyond what was sent"],
)
def test_a_server_that_accepts_without_knowing_the_session_delivers_nothing(
    connect: StartClient, link: Link, headers: tuple[str, ...]
) -> None:
    client = begin(connect, link)
    link.plan(Plan(answer=switch(*headers, then=INTRUDER)))
    link.break_all("rst")
    status = client.wait(LIMIT)
    assert client.out.read_bytes() == b"x"
    assert status == 69 if "1000" not in "".join(headers) else status in (69, 76)
    assert_one_line(client)


def test_a_bridge_without_resume_in_the_place_of_the_bridge_ends_the_client(
    start: StartBridge, connect: StartClient, link: Link
) -> None:
    client = begin(connect, link)
    link.flip(port_of(start("--resume-for", "0").url))
    link.break_all("rst")
    assert client.wait(LIMIT) == 69
    assert_one_line(client)
    assert client.out.read_bytes() == b"x"


# ---- edges


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_an_edge_that_refuses_three_times_in_a_row_ends_the_client(
    connect: StartClient, link: Link, status: str
) -> None:
    client = begin(connect, link)
    link.plan(Plan(answer=http(status, body="the edge says no")))
    link.break_all("rst")
    assert client.wait(LIMIT) == 77
    assert_one_line(client, status.split()[0])
    assert len(link.connections) == 4


def test_an_edge_that_refuses_twice_is_forgiven(connect: StartClient, link: Link) -> None:
    client = begin(connect, link)
    link.plan({2: Plan(answer=http("403 Forbidden")), 3: Plan(answer=http("401 Unauthorized"))})
    link.break_all("rst")
    assert_goes_on(client)
    assert len(link.connections) == 4


@pytest.mark.parametrize(
    "status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "404 Not Found", "410 Gone"]
)
def test_any_other_answer_of_an_edge_is_tried_again(connect: StartClient, link: Link, status: str) -> None:
    """Even a 410 is the edge's own without the bridge's header."""
    client = begin(connect, link)
    link.plan({number: Plan(answer=http(status)) for number in (2, 3, 4, 5)})
    link.break_all("rst")
    assert_goes_on(client)
    assert len(link.connections) == 6


def test_garbage_is_tried_again(connect: StartClient, link: Link) -> None:
    client = begin(connect, link)
    link.plan({2: Plan(answer=b"SSH-2.0-OpenSSH\r\n"), 3: Plan(answer=b""), 4: Plan(refuse=True)})
    link.break_all("fin")
    assert_goes_on(client)
    assert len(link.connections) == 5


def test_retry_after_is_obeyed(connect: StartClient, link: Link) -> None:
    client = begin(connect, link)
    link.plan({2: Plan(answer=http("503 Service Unavailable", "Retry-After: 3"))})
    link.break_all("rst")
    third = link.wait_for_connection(3)
    assert third.opened_at - link.connections[1].opened_at >= 2.9
    assert_goes_on(client)


def test_attempts_become_rarer(connect: StartClient, link: Link) -> None:
    client = begin(connect, link)
    link.plan({number: Plan(refuse=True) for number in range(2, 8)})
    link.break_all("rst")
    link.wait_for_connection(8, 40)
    times = [connection.opened_at for connection in link.connections[1:]]
    assert times[-1] - times[-2] > times[1] - times[0]
    assert_goes_on(client)


def test_the_bridge_s_own_refusal_ends_the_client_at_once(connect: StartClient, link: Link) -> None:
    client = begin(connect, link)
    answer = http("401 Unauthorized", "Wstunnel-Error: bad-proof", body='{"error": "bad-proof", "message": "no"}')
    link.plan(Plan(answer=answer))
    link.break_all("rst")
    assert client.wait(LIMIT) == 77
    assert_one_line(client)
    assert len(link.connections) == 2


STALE = http("409 Conflict", "Wstunnel-Error: stale-epoch", "Wstunnel-Epoch: 41")


def test_a_stale_epoch_is_passed(connect: StartClient, link: Link) -> None:
    client = begin(connect, link)
    link.plan({2: Plan(answer=STALE)})
    link.break_all("rst")
    assert_goes_on(client)
    assert b"epoch=42" in link.connections[2].request


@pytest.mark.full
def test_eight_stale_epochs_in_a_row_are_given_up(connect: StartClient, link: Link) -> None:
    client = begin(connect, link)
    link.plan(Plan(answer=STALE))
    link.break_all("rst")
    assert client.wait(60) != 0
    assert client.err.read_text().splitlines()[-1].startswith("wstunnel-py: ")
    assert len(link.connections) == 1 + 8


def test_every_attempt_takes_a_greater_epoch(connect: StartClient, link: Link) -> None:
    client = begin(connect, link)
    link.plan({number: Plan(answer=http("502 Bad Gateway")) for number in (2, 3)})
    link.break_all("rst")
    assert_goes_on(client)
    epochs = [int(connection.request.partition(b"epoch=")[2].partition(b",")[0]) for connection in link.connections[1:]]
    assert epochs == sorted(set(epochs)) and epochs[0] >= 1


def test_the_token_file_is_read_again_for_another_attempt(connect: StartClient, link: Link, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("old\n")
    client = begin(connect, link, "--token-file", str(token))
    token.write_text("new\n")
    link.plan({2: Plan(answer=http("401 Unauthorized"))})
    link.break_all("rst")
    assert_goes_on(client)
    assert b"Bearer old" in link.connections[0].request
    assert b"Bearer new" in link.connections[2].request


# ---- websocat from the start


def test_websocat_s_echo_of_the_first_subprotocol_does_not_make_us_speak_wire_2(bed: Bed, connect: StartClient) -> None:
    with (
        Target(greet_and_listen) as target,
        Link(port_of(start_bridge(bed, "websocat", target.port).url)) as link,
    ):
        client = connect(link.url)
        client.feed(b"only this")
        wait_for_output(client, len(INTRUDER))
        client.end_input()
        assert target.result() == b"only this"
        client.wait(LIMIT)
        assert client.out.read_bytes() == INTRUDER
        assert b"binary, v1.resume.wstunnel-py" in link.connections[0].request


def test_websocat_s_lost_connection_is_an_error_as_ever(bed: Bed, connect: StartClient) -> None:
    with Target(echo) as target, Link(port_of(start_bridge(bed, "websocat", target.port).url)) as link:
        client = begin(connect, link)
        link.break_all("rst")
        assert client.wait(LIMIT) == 69
        assert_one_line(client, "connection lost")
        assert len(link.connections) == 1


def test_websocat_as_the_client_gets_plain_bytes(bed: Bed, start: StartBridge) -> None:
    client = bed.start(*CLIENTS["websocat"], start().url, stdin=subprocess.PIPE)
    client.feed(b"plain")
    wait_for_output(client, 5)
    client.end_input()
    client.wait(LIMIT)
    assert client.out.read_bytes() == b"plain"


@pytest.mark.parametrize("offer", [(), ("binary",), ("chat",), ("v1.resume.other", "binary")], ids=str)
def test_a_client_that_does_not_offer_wire_2_gets_plain_bytes(start: StartBridge, offer: tuple[str, ...]) -> None:
    with Peer(start().url, offer=offer) as peer:
        assert peer.subprotocol == ("binary" if "binary" in offer else None)
        assert_echoes(peer, b"plain")
        assert peer.lines == []


def test_wire_2_is_chosen_though_it_is_offered_second(start: StartBridge) -> None:
    with Peer(start().url) as peer:
        assert peer.subprotocol == RESUMABLE
