"""Outages, frozen processes and vanished packets in the middle of a transfer: it waits, and then continues."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.bed.processes import Bed, Process, ticks
from tests.bed.targets import Target, checksum, read_to_end
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.conftest import StartBridge
from tests.faults.conftest import StartClient
from tests.faults.link import Cut, Link, Plan
from tests.faults.seen import LIMIT, wait_for_detached, wait_for_output
from tests.server.clients import port_of

DATA = random.Random("outage").randbytes(16_000_000)
MIDDLE = 2_000_000  # bytes that have passed when something happens
RATE = 8_000_000  # bytes a second, so that a middle there is
FULL = [pytest.mark.full, pytest.mark.timeout(400)]


@pytest.fixture
def download(bed: Bed) -> Iterator[Bridge]:
    """A bridge to a target that sends the data, and waits for ever while nobody takes it."""

    def send(connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.sendall(DATA)

    with Target(send) as target:
        yield start_bridge(bed, "ours", target.port)


def test_a_connection_that_dies_behind_its_101_is_noticed_soon(connect: StartClient, start: StartBridge) -> None:
    """Nobody types, so nothing else would be due for as long as a ping interval."""
    with Link(port_of(start().url)) as link:
        client = connect(link.url, "--ping-interval", "3600")
        client.feed(b"x")
        wait_for_output(client, 1)
        link.break_all("rst")
        head = link.wait_for_connection(2)
        for _ in ticks(LIMIT):
            if head.response.endswith(b"\r\n\r\n"):
                break
        link.plan({3: Plan(Cut(len(head.response), "down", "silence"))})
        link.break_all("rst")
        link.wait_for_connection(4)
        client.feed(b"y")
        wait_for_output(client, 2)
        client.end_input()
        assert client.wait(LIMIT) == 0


def finish_download(client: Process, seconds: float = 90) -> None:
    client.end_input()
    assert client.wait(seconds) == 0
    assert checksum(client.out.read_bytes()) == checksum(DATA)


@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=FULL)])
def test_a_download_goes_on_after_a_total_outage(download: Bridge, connect: StartClient, seconds: float) -> None:
    with Link(port_of(download.url), Plan(rate=RATE)) as link:
        client = connect(link.url)
        link.wait_for_bytes("down", MIDDLE)
        link.refuse_new()
        link.break_all("rst")
        time.sleep(seconds)  # this is the outage
        assert client.status is None
        link.accept_new()
        finish_download(client)
        if seconds > 10:
            lost, back = client.err.read_text().splitlines()
            assert lost.startswith("wstunnel-py: connection lost, trying again for 10 min (")
            assert back.startswith("wstunnel-py: connected again after ")


@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=FULL)])
def test_an_upload_goes_on_after_a_total_outage(bed: Bed, seconds: float) -> None:
    def receive(connection: socket.socket) -> str:
        connection.settimeout(None)
        return checksum(read_to_end(connection))

    with (
        Target(receive) as target,
        Link(port_of(start_bridge(bed, "ours", target.port).url), Plan(rate=RATE)) as link,
    ):
        sample = bed.folder / "sample"
        sample.write_bytes(DATA)
        client = bed.start(*OURS, "connect", link.url, stdin=sample)
        link.wait_for_bytes("up", MIDDLE)
        link.refuse_new()
        link.break_all("fin")
        time.sleep(seconds)  # this is the outage
        assert client.status is None
        link.accept_new()
        assert target.result(90) == checksum(DATA)
        assert client.wait(LIMIT) == 0


@pytest.mark.parametrize("seconds", [5, pytest.param(30, marks=FULL)])
@pytest.mark.parametrize("stopped", ["bridge", "client"])
def test_a_process_that_was_stopped_goes_on(
    download: Bridge, connect: StartClient, stopped: str, seconds: float
) -> None:
    with Link(port_of(download.url), Plan(rate=RATE)) as link:
        client = connect(link.url)
        link.wait_for_bytes("down", MIDDLE)
        process = client if stopped == "client" else download.process
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)  # as long as the laptop sleeps, or the sandbox is paused
        process.send_signal(signal.SIGCONT)
        finish_download(client)


def test_packets_that_vanish_are_noticed_within_seconds(
    download: Bridge, echo_bridge: Bridge, connect: StartClient
) -> None:
    """In the middle of a download, and when a key is pressed in a quiet shell."""
    with Link(port_of(download.url), Plan(rate=RATE)) as busy, Link(port_of(echo_bridge.url)) as quiet:
        client, shell = connect(busy.url), connect(quiet.url)
        shell.feed(b"a")
        wait_for_output(shell, 1)
        busy.wait_for_bytes("down", MIDDLE)
        busy.plan(Plan())
        for link in (busy, quiet):
            link.break_all("silence")
        pressed = time.monotonic()
        shell.feed(b"b")
        # 15 s are what is promised; the rest is for a busy machine. By pings alone it would take 80 s.
        assert quiet.wait_for_connection(2, 60).opened_at - pressed < 30
        assert busy.wait_for_connection(2, 60).opened_at - busy.connections[0].last_byte_at < 30
        finish_download(client)
        wait_for_output(shell, 2)
        shell.end_input()
        assert shell.wait(LIMIT) == 0
        assert shell.out.read_bytes() == b"ab"


@pytest.mark.full
def test_packets_of_an_idle_tunnel_that_vanish_are_noticed(echo_bridge: Bridge, connect: StartClient) -> None:
    with Link(port_of(echo_bridge.url)) as link:
        connect(link.url)
        link.wait_for_connection(1)
        link.wait_for_bytes("down", 300)
        link.break_all("silence")
        link.wait_for_connection(2, 60)


def test_a_stalled_direction_loses_nothing(download: Bridge, connect: StartClient) -> None:
    """Acks do not come through for a while; the data does."""
    with Link(port_of(download.url), Plan(rate=RATE)) as link:
        client = connect(link.url)
        link.wait_for_bytes("down", MIDDLE)
        link.stall("up")
        link.wait_for_bytes("down", 4 * MIDDLE)
        link.stall()
        finish_download(client)
        assert len(link.connections) == 1


def test_latency_and_a_slow_line_change_nothing(connect: StartClient, echo_bridge: Bridge) -> None:
    data = DATA[:300_000]
    with Link(port_of(echo_bridge.url), Plan(latency=0.1, rate=500_000)) as link:
        client = connect(link.url)
        client.feed(data)
        client.end_input()
        assert client.wait(LIMIT) == 0
        assert checksum(client.out.read_bytes()) == checksum(data)
        assert len(link.connections) == 1


def test_refused_connections_are_tried_again(connect: StartClient, echo_bridge: Bridge) -> None:
    refusals = {number: Plan(refuse=True) for number in (2, 3, 4)}
    with Link(port_of(echo_bridge.url), refusals) as link:
        client = connect(link.url)
        client.feed(b"before")
        wait_for_output(client, 6)
        link.break_all("rst")
        client.feed(b" after")
        wait_for_output(client, 12)
        assert client.out.read_bytes() == b"before after"
        assert len(link.connections) == 5
        assert client.err.read_text() == ""


@pytest.mark.parametrize("traffic", [b"", b"x" * 1_000_000], ids=["quiet", "busy"])
def test_a_connection_that_the_bridge_holds_for_alive_is_taken_over(
    bed: Bed, connect: StartClient, traffic: bytes
) -> None:
    """The client's side of it is gone, the bridge's side is open and silent: the bridge drops it, nothing is lost."""

    def echo_all(connection: socket.socket) -> None:
        for chunk in iter(lambda: connection.recv(1 << 18), b""):
            connection.sendall(chunk)

    with Target(echo_all) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with Link(port_of(bridge.url)) as link:
            client = connect(link.url)
            client.feed(b"first " + traffic)
            wait_for_output(client, 6)
            link.break_all("rst", "client")
            client.feed(b" second")
            wait_for_output(client, 13 + len(traffic))
            assert link.connections[0].bridge_lets_go(LIMIT)
            client.end_input()
            assert client.wait(LIMIT) == 0
            assert client.out.read_bytes() == b"first " + traffic + b" second"
            bridge.process.wait_for_line("resumed")


def test_one_outage_does_not_disturb_the_other_tunnels(start: StartBridge, connect: StartClient) -> None:
    bridge = start()
    with Link(port_of(bridge.url)) as link, Link(port_of(bridge.url)) as other:
        clients = [connect(each.url) for each in (link, other)]
        for client in clients:
            client.feed(b"a")
            wait_for_output(client, 1)
        link.refuse_new()
        link.break_all("rst")
        wait_for_detached(bridge, 1)
        clients[1].feed(b"b" * 100_000)
        wait_for_output(clients[1], 100_001)
        link.accept_new()
        clients[0].feed(b"c")
        wait_for_output(clients[0], 2)
        assert len(other.connections) == 1


def test_ssh_s_own_end_reaches_the_far_side_after_an_outage(bed: Bed) -> None:
    """What is written and ended while nothing gets through still gets through, end and all."""

    def greet_and_listen(connection: socket.socket) -> bytes:
        connection.sendall(b"hello")
        return read_to_end(connection)

    with Target(greet_and_listen) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with Link(port_of(bridge.url)) as link:
            client = bed.start(*OURS, "connect", link.url, stdin=subprocess.PIPE)
            wait_for_output(client, 5)  # it has the session, which it would else begin anew
            link.refuse_new()
            link.break_all("rst")
            client.feed(b"written while away")
            client.end_input()
            wait_for_detached(bridge, 1)
            link.accept_new()
            assert client.wait(LIMIT) == 0
            assert target.result() == b"written while away"
