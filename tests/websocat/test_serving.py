"""Our end as a server: warnings, sessions, programs, other WebSockets, and standard output that is closed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.bed.processes import Bed, Process, running, ticks
from tests.bed.targets import Target, checksum, echo, read_to_end
from tests.bed.tunnels import OURS
from tests.websocat.scenes import start_listening, with_ports

WEBSOCAT_OURS = (*OURS, "websocat")


def start(bed: Bed, *words: str, stdin: int | None = None) -> tuple[Process, str]:
    """Start ours with ``words``, in which 8081 becomes a free port; return it and its URL."""

    def command(port: int) -> list[str]:
        return [
            *WEBSOCAT_OURS,
            "--stdout-announce-listening-ports",
            *(with_ports(w, {"8081": str(port)}) for w in words),
        ]

    process, port = start_listening(bed, command, stdin)
    return process, f"ws://127.0.0.1:{port}/"


def connect(url: str, **options: Any) -> websockets.sync.client.ClientConnection:
    plain: dict[str, Any] = {"compression": None, "ping_interval": None, "proxy": None, "close_timeout": 1}
    client: websockets.sync.client.ClientConnection = websockets.sync.client.connect(url, **{**plain, **options})
    return client


@pytest.fixture
def target() -> Iterator[str]:
    with Target(echo) as echoing:
        yield f"tcp:127.0.0.1:{echoing.port}"


def test_it_says_where_it_listens_and_warns_when_anybody_may_come_in(bed: Bed, target: str) -> None:
    process, _ = start(bed, "-b", "ws-l:0.0.0.0:8081", target)
    process.wait_for_line(r"listening on ws://0\.0\.0\.0:\d+ → 127\.0\.0\.1")
    process.wait_for_line("warning: anyone who can reach this address may connect")
    loopback, _ = start(bed, "-b", "ws-l:127.0.0.1:8081", target)
    loopback.wait_for_line("listening on")
    assert "warning" not in loopback.log()


def test_quiet_says_nothing(bed: Bed, target: str) -> None:
    process, url = start(bed, "-bq", "ws-l:0.0.0.0:8081", target)
    with connect(url) as client:
        client.send(b"hello")
        assert client.recv(timeout=20) == b"hello"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert process.err.read_text() == ""


def test_messages_may_be_as_small_as_one_likes(bed: Bed, target: str) -> None:
    _, url = start(bed, "-bB", "10", "ws-l:127.0.0.1:8081", target)
    with connect(url) as client:
        client.send(b"more than ten bytes")
        answer: list[bytes] = []
        while len(b"".join(answer)) < 19:
            message = client.recv(timeout=20)
            assert isinstance(message, bytes)
            answer.append(message)
    assert b"".join(answer) == b"more than ten bytes" and max(map(len, answer)) <= 10


def test_verbose_tells_of_each_tunnel(bed: Bed, target: str) -> None:
    process, url = start(bed, "-bv", "--async-stdio", "ws-l:127.0.0.1:8081", target)
    with connect(url) as client:
        client.send(b"hello")
        assert client.recv(timeout=20) == b"hello"
    process.wait_for_line("info tunnel .*bytes_in=5 bytes_out=5")
    process.wait_for_line("--async-stdio: standard input and output never block")


def test_a_tunnel_of_bytes_is_a_session_and_one_of_messages_is_not(bed: Bed, target: str) -> None:
    for words, expected in ((("-bE",), True), (("-b", "-n"), False), (("-b", "--server-protocol=binary"), False)):
        _, url = start(bed, *words, "ws-l:127.0.0.1:8081", target)
        finished = bed.check(*OURS, "connect", "-v", url, stdin=b"hello")
        assert finished.stdout == b"hello"
        assert ("subprotocol v1.resume.wstunnel-py" in finished.stderr) == expected, words


def test_the_health_of_the_bridge_is_told(bed: Bed, target: str) -> None:
    _, url = start(bed, "-b", "ws-l:127.0.0.1:8081", target)
    with urllib.request.urlopen(url.replace("ws:", "http:") + "healthz", timeout=20) as response:
        assert json.load(response)["status"] == "ok"


def test_a_oneshot_bridge_turns_others_away_while_it_serves(bed: Bed, target: str) -> None:
    process, url = start(bed, "--oneshot", "-b", "ws-l:127.0.0.1:8081", target)
    with connect(url) as client:
        with pytest.raises(InvalidStatus) as caught:
            connect(url)
        assert caught.value.response.status_code == 503
        client.send(b"still here")
        assert client.recv(timeout=20) == b"still here"
    assert process.wait(20) == 0


def test_conncap_is_a_limit(bed: Bed, target: str) -> None:
    _, url = start(bed, "-b", "--conncap", "1", "ws-l:127.0.0.1:8081", target)
    with connect(url), pytest.raises(InvalidStatus):
        connect(url)


def test_with_exit_on_eof_a_target_that_never_ends_is_disconnected(bed: Bed) -> None:
    let_go = threading.Event()

    def hear_and_stay(connection: socket.socket) -> bytes:
        request = read_to_end(connection)
        assert let_go.wait(90)
        return request

    with Target(hear_and_stay) as target:
        process, url = start(bed, "-bvE", "ws-l:127.0.0.1:8081", f"tcp:127.0.0.1:{target.port}")
        with connect(url) as client:
            client.send(b"hello")
        process.wait_for_line("info tunnel .*bytes_in=5")
        let_go.set()
        assert target.result() == b"hello"


def test_a_program_is_started_for_each_client_and_gets_the_end_of_its_input(bed: Bed) -> None:
    _, url = start(bed, "-b", "ws-l:127.0.0.1:8081", "sh-c:cat; echo pid $$")
    seen = []
    for _ in range(2):
        with connect(url, close_timeout=60) as client:  # the program says something behind our Close
            client.send(b"hello\n")
            assert client.recv(timeout=20) == b"hello\n"
            client.close()
            seen.append(b"".join(message for message in client if isinstance(message, bytes)))
    assert all(tail.startswith(b"pid ") for tail in seen)
    assert seen[0] != seen[1]


def test_a_program_does_not_outlive_its_tunnel_as_a_zombie(bed: Bed) -> None:
    mark = "10.0625"
    process, url = start(bed, "-b", "ws-l:127.0.0.1:8081", f"sh-c:echo up; read line; : {mark}")
    with connect(url) as client:
        assert client.recv(timeout=20) == b"up\n"
        assert running(f"echo up; read line; : {mark}")
        client.send(b"end\n")
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=20)
    assert any(not running(f"echo up; read line; : {mark}") for _ in ticks(20))
    assert process.status is None


def test_a_program_that_is_not_there_is_named(bed: Bed) -> None:
    _, url = start(bed, "-b", "ws-l:127.0.0.1:8081", "exec:/nowhere/program")
    finished = bed.run(*OURS, "connect", url)
    assert finished.status == 69
    assert "502" in finished.stderr and "the program /nowhere/program" in finished.stderr


def test_another_websocket_is_dialled_for_each_client(bed: Bed, target: str) -> None:
    _, inner = start(bed, "-b", "ws-l:127.0.0.1:8081", target)
    process, outer = start(bed, "-b", "ws-l:127.0.0.1:8081", inner)
    data = bytes(range(256)) * 2000
    assert bed.check(*WEBSOCAT_OURS, "-b", "-", outer, stdin=data).stdout == data
    assert process.status is None


def test_another_websocket_that_refuses_is_the_client_s_to_know(bed: Bed) -> None:
    _, url = start(bed, "-b", "ws-l:127.0.0.1:8081", "ws://127.0.0.1:1/")
    finished = bed.run(*WEBSOCAT_OURS, "-b", "-", url)
    assert finished.status == 69
    assert "502" in finished.stderr and "127.0.0.1:1 refused the connection" in finished.stderr


def test_all_clients_get_standard_input(bed: Bed) -> None:
    process, url = start(bed, "-s", "8081", stdin=subprocess.PIPE)
    with connect(url) as first, connect(url) as second:
        first.send("one")
        second.send("two")
        for line in ("one\n", "two\n"):
            process.wait_for_line(line)
        process.feed(b"to all\n")
        assert (first.recv(timeout=20), second.recv(timeout=20)) == ("to all\n", "to all\n")


def test_a_closed_standard_output_ends_it(bed: Bed) -> None:
    script = 'exec "$@" | head -c 1'
    words = ("--oneshot", "-b", "ws-l:127.0.0.1:8081", "-")

    def command(port: int) -> list[str]:
        return ["sh", "-c", script, "sh", *WEBSOCAT_OURS, *(with_ports(w, {"8081": str(port)}) for w in words)]

    process, port = bed.start_on_free_port(command)
    with connect(f"ws://127.0.0.1:{port}/") as client, pytest.raises(ConnectionClosed):
        for _ in ticks(20):
            client.send(b"x" * 1000)
    assert process.wait(20) == 0  # of head


def test_a_client_that_takes_nothing_does_not_hold_up_the_others(bed: Bed) -> None:
    process, url = start(bed, "-b", "ws-l:127.0.0.1:8081", "-", stdin=subprocess.PIPE)
    data = bytes(range(256)) * 50_000
    with connect(url, max_size=None) as stuck, connect(url, max_size=None) as other:
        for client in (stuck, other):
            client.send(b"here\n")
        process.wait_for_line("here\nhere")
        feeding = threading.Thread(target=process.feed, args=(data,))
        feeding.start()
        received = b""
        while len(received) < len(data):
            message = other.recv(timeout=20)
            assert isinstance(message, bytes)
            received += message
        feeding.join(20)
    assert checksum(received) == checksum(data)
    process.wait_for_line("a client accepted nothing for 5 s and was disconnected")
