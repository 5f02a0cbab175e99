"""How a session ends while its connection comes and goes: whole and with 0, or with one line and its exit code."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.bed.earlier import ROOT
from tests.bed.processes import Bed, ticks
from tests.bed.targets import Target, checksum, read_exactly, read_to_end, reset
from tests.bed.tunnels import OURS, start_bridge
from tests.conftest import StartBridge
from tests.faults.conftest import StartClient
from tests.faults.inside.sitecustomize import HANGING
from tests.faults.link import Link
from tests.faults.peer import Peer, refusal
from tests.faults.seen import LIMIT, assert_one_line, health, wait_for_detached, wait_for_output
from tests.server.clients import port_of

TAIL = random.Random("tail").randbytes(3_000_000)
INSIDE = ROOT / "tests" / "faults" / "inside"
AT_ONCE = 10.0  # seconds that "at once" may take on a busy machine; a session is retained for an hour


def lose(link: Link) -> None:
    """Break the connection, and let none come for now."""
    link.refuse_new()
    link.break_all("rst")


@pytest.fixture
def link_to_echo(start: StartBridge) -> Link:
    return Link(port_of(start().url))


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGHUP, 0), (signal.SIGTERM, 143), (signal.SIGINT, 130)],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_signal_ends_a_detached_client_at_once(
    link_to_echo: Link, connect: StartClient, number: int, status: int
) -> None:
    with link_to_echo as link:
        client = connect(link.url)
        client.feed(b"x")
        wait_for_output(client, 1)
        lose(link)
        client.feed(b"never sent")
        client.send_signal(number)
        assert client.wait(AT_ONCE) == status
        assert client.err.read_text() == ""


def test_a_signal_ends_a_client_whose_connection_is_a_black_hole_at_once(
    link_to_echo: Link, connect: StartClient
) -> None:
    with link_to_echo as link:
        client = connect(link.url)
        client.feed(b"x")
        wait_for_output(client, 1)
        link.break_all("silence")
        client.feed(b"never sent")
        client.send_signal(signal.SIGHUP)
        assert client.wait(AT_ONCE) == 0


def test_a_signal_sends_what_was_read_and_ends_the_session_at_the_bridge(bed: Bed, connect: StartClient) -> None:
    def greet_and_listen(connection: socket.socket) -> bytes:
        connection.sendall(b"hello")
        return read_to_end(connection)

    with Target(greet_and_listen) as target:
        bridge = start_bridge(bed, "ours", target.port)
        client = connect(bridge.url)
        wait_for_output(client, 5)
        client.feed(b"last words")
        client.send_signal(signal.SIGHUP)
        assert client.wait(AT_ONCE) == 0
        assert target.result() == b"last words"
        assert health(bridge)["detached"] == 0


@pytest.mark.parametrize("how", ["SIGHUP", "SIGTERM", "closed stdout"])
def test_an_interrupted_download_leaves_no_session_behind(bed: Bed, how: str) -> None:
    """The client hangs up with much unread; still the bridge has to hear of its end."""

    def pour(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(TAIL)

    with Target(pour) as target:
        bridge = start_bridge(bed, "ours", target.port)
        for _ in range(5):
            with subprocess.Popen(
                [*OURS, "connect", bridge.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as client:
                assert client.stdout
                client.stdout.read(3_000_000)
                if how == "closed stdout":
                    client.stdout.close()
                else:
                    client.send_signal(getattr(signal, how))
                client.wait(AT_ONCE)
        for _ in ticks(LIMIT):
            if health(bridge)["tunnels"] == 0:
                break
        assert health(bridge)["detached"] == 0, bridge.process.log()


def test_closed_standard_output_ends_a_detached_client_at_once(link_to_echo: Link) -> None:
    with (
        link_to_echo as link,
        subprocess.Popen(
            [*OURS, "connect", link.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as client,
    ):
        assert client.stdin and client.stdout and client.stderr
        client.stdin.write(b"x")
        client.stdin.flush()
        assert os.read(client.stdout.fileno(), 1) == b"x"
        lose(link)
        client.stdout.close()
        assert client.wait(AT_ONCE) == 141
        assert client.stderr.read() == b""


@pytest.mark.parametrize("size", [0, 1, len(TAIL)])
def test_a_target_that_ends_while_the_client_is_away_is_heard_to_its_last_byte(
    bed: Bed, connect: StartClient, size: int
) -> None:
    away = threading.Event()

    def greet_and_end_later(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        assert away.wait(LIMIT)
        connection.sendall(TAIL[:size])

    with Target(greet_and_end_later) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with Link(port_of(bridge.url)) as link:
            client = connect(link.url)
            wait_for_output(client, 5)
            lose(link)
            wait_for_detached(bridge, 1)
            away.set()
            link.accept_new()
            assert client.wait(LIMIT) == 0
            assert checksum(client.out.read_bytes()) == checksum(b"hello" + TAIL[:size])
            assert client.err.read_text() == ""


def test_an_answer_to_an_end_that_was_given_while_away_arrives_whole(bed: Bed, connect: StartClient) -> None:
    def answer_after_the_end(connection: socket.socket) -> bytes:
        connection.sendall(b"hello")
        request = read_to_end(connection)
        connection.sendall(TAIL)
        return request

    with Target(answer_after_the_end) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with Link(port_of(bridge.url)) as link:
            client = connect(link.url)
            wait_for_output(client, 5)
            lose(link)
            wait_for_detached(bridge, 1)
            client.feed(b"request")
            client.end_input()
            link.accept_new()
            assert client.wait(LIMIT) == 0
            assert target.result() == b"request"
            assert checksum(client.out.read_bytes()) == checksum(b"hello" + TAIL)


@pytest.mark.parametrize("away", [False, True], ids=["attached", "detached"])
def test_a_target_that_breaks_is_no_silent_end(bed: Bed, connect: StartClient, away: bool) -> None:
    ready = threading.Event()

    def greet_and_break(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        assert ready.wait(LIMIT)
        reset(connection)

    with Target(greet_and_break) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with Link(port_of(bridge.url)) as link:
            client = connect(link.url)
            wait_for_output(client, 5)
            if away:
                lose(link)
                wait_for_detached(bridge, 1)
            ready.set()
            target.result()
            if away:
                link.accept_new()
            assert client.wait(LIMIT) == 69
            assert client.out.read_bytes() == b"hello"
            assert_one_line(client, "the target behind the bridge broke the connection")


def test_a_target_that_refuses_writes_is_still_heard(bed: Bed, connect: StartClient, short_folder: Path) -> None:
    """A Unix socket can refuse them and go on to send; over TCP a refusal is a reset, which ends both directions."""
    path = str(short_folder / "target")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", "--target", f"unix:{path}")
        client = connect(process.wait_for_line(r"ready on (ws://[^\s,]+)")[1])
        listener.settimeout(LIMIT)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(LIMIT)
            client.feed(b"hello")
            read_exactly(connection, 5)
            connection.shutdown(socket.SHUT_RD)
            client.feed(b"x" * 1_000_000)
            connection.sendall(TAIL)
        client.wait(LIMIT)
        assert checksum(client.out.read_bytes()) == checksum(TAIL)


def test_a_bridge_that_stops_says_so(start: StartBridge, connect: StartClient) -> None:
    bridge = start("--drain", "0")
    client = connect(bridge.url)
    client.feed(b"x")
    wait_for_output(client, 1)
    bridge.process.send_signal(signal.SIGTERM)
    assert client.wait(LIMIT) == 75
    assert_one_line(client, "the bridge is stopping")
    assert bridge.process.wait(LIMIT) == 0


def test_a_bridge_ends_at_once_while_no_name_server_answers(bed: Bed) -> None:
    dns = bed.folder / "dns"
    dns.touch()
    environment = {"PYTHONPATH": os.pathsep.join((str(INSIDE), str(ROOT))), "FAULT_DNS": str(dns)}
    options = ("--listen", "127.0.0.1:0", "--target", f"{HANGING}:22", "--dial-timeout", "1", "--drain", "0")
    bridge = bed.start(*OURS, "serve", *options, env=environment)
    url = bridge.wait_for_line(r"ready on (ws://[^\s,]+)")[1]
    assert bed.run(*OURS, "connect", url).status == 75
    bridge.send_signal(signal.SIGTERM)
    assert bridge.wait(AT_ONCE) == 0


def test_a_bridge_that_stops_sends_an_error_line(start: StartBridge) -> None:
    bridge = start("--drain", "0")
    peer, _ = Peer.open(bridge.url)
    with peer:
        bridge.process.send_signal(signal.SIGTERM)
        peer.wait_for_line("error shutdown")
        peer.wait_for_end()
        assert peer.close_code == 1000


def test_a_bridge_that_drains_lets_sessions_be_resumed_and_keeps_the_detached_ones_to_the_end(
    start: StartBridge,
) -> None:
    bridge = start("--drain", "2")
    peer, _ = Peer.open(bridge.url)
    peer.send(b"x")
    peer.wait_for_data(1)
    peer.reset()
    wait_for_detached(bridge, 1)
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(LIMIT) == 0
    assert "tunnel" in bridge.process.log().partition("draining")[2]


def test_a_bridge_that_is_gone_for_good_is_given_up(start: StartBridge, connect: StartClient) -> None:
    bridge = start("--drain", "0")
    with Link(port_of(bridge.url)) as link:
        client = connect(link.url, "--reconnect-for", "3")
        client.feed(b"x")
        wait_for_output(client, 1)
        lose(link)
        assert client.wait(LIMIT) == 75
        assert_one_line(client)
        assert client.out.read_bytes() == b"x"


def test_a_client_gives_up_when_the_bridge_s_retention_is_over(start: StartBridge, connect: StartClient) -> None:
    bridge = start("--resume-for", "2")
    with Link(port_of(bridge.url)) as link:
        client = connect(link.url)
        client.feed(b"x")
        wait_for_output(client, 1)
        lose(link)
        assert client.wait(LIMIT) == 75
        assert_one_line(client)


def test_without_resume_a_lost_connection_is_an_error(link_to_echo: Link, connect: StartClient) -> None:
    with link_to_echo as link:
        client = connect(link.url, "--no-resume")
        client.feed(b"x")
        wait_for_output(client, 1)
        assert b"v1.resume" not in link.connections[0].request
        link.break_all("rst")
        assert client.wait(LIMIT) == 69
        assert_one_line(client, "connection lost")
        assert len(link.connections) == 1


def test_a_killed_client_s_session_waits_and_then_its_target_hears_a_break(bed: Bed, connect: StartClient) -> None:
    """Half a request must not look like a whole one to the target."""

    has_half = threading.Event()

    def read_half(connection: socket.socket) -> str:
        read_exactly(connection, 5)
        has_half.set()
        try:
            return "end" if read_to_end(connection) == b"" else "more"
        except ConnectionResetError:
            return "reset"

    with Target(read_half) as target:
        bridge = start_bridge(bed, "ours", target.port, "--resume-for", "2")
        client = connect(bridge.url)
        client.feed(b"hello")
        assert has_half.wait(LIMIT)
        client.send_signal(signal.SIGKILL)
        assert client.wait(LIMIT) == -signal.SIGKILL
        bridge.process.wait_for_line(" detached ")  # not by its number, which may be 0 again before it is asked for
        assert target.result() == "reset"
        wait_for_detached(bridge, 0)


def test_end_gives_the_target_everything_that_came_before_it(bed: Bed) -> None:
    with Target(lambda connection: checksum(read_to_end(connection))) as target:
        bridge = start_bridge(bed, "ours", target.port)
        peer, session = Peer.open(bridge.url)
        with peer:
            peer.send(TAIL)
            peer.say(f"fin {len(TAIL)}")
            peer.end()
            peer.wait_for_end()
        assert target.result() == checksum(TAIL)
        assert refusal(bridge.url, session.resume(1, 0)).status == 410
