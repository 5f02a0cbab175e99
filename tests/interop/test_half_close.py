"""Ends and breaks of streams, with scripted TCP targets: no data that was read is lost, no break looks like success.

websocat's ``--exit-on-eof`` drops both directions as soon as one has ended, so a tail behind it cannot be had from that
end. Where it is one half of the pair, these tests assert what the other half, ours, must still guarantee.
"""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import threading

import pytest

from tests.bed.processes import Bed, Process, free_port, ticks
from tests.bed.targets import Target, checksum, echo, read_exactly, read_to_end, reset
from tests.bed.tunnels import OWN_PAIR, PAIRS, PLAIN_PAIR, Bridge, Pair, start_bridge

REQUEST = random.Random("request").randbytes(5_000_000)
ANSWER = random.Random("answer").randbytes(3_000_000)
ALL_PAIRS = (*PAIRS, PLAIN_PAIR)
KEEPS_TAILS = [pair for pair in ALL_PAIRS if "websocat-E" not in (pair.client, pair.bridge)]
OUR_CLIENT = [pair for pair in ALL_PAIRS if pair.client in ("ours", "ours-plain")]
OUR_BRIDGE = [pair for pair in (*ALL_PAIRS, Pair("websocat-E", "ours")) if pair.bridge == "ours"]
MIDDLE = 1_000_000  # bytes that have passed when something breaks


def answer_after_the_end(connection: socket.socket) -> str:
    request = checksum(read_to_end(connection))
    connection.sendall(ANSWER)
    return request


def start_client(bed: Bed, pair: Pair, bridge: Bridge) -> Process:
    """Start the pair's client by hand, with an input that stays open."""
    return bed.start(*pair.command(bridge.url), stdin=subprocess.PIPE)


def wait_for_output(process: Process, size: int) -> None:
    for _ in ticks(60):
        if process.out.stat().st_size >= size:
            return
    raise AssertionError(f"{process.out.stat().st_size} of {size} bytes arrived\n{process.err.read_text()}")


def assert_one_line(process: Process, *words: str) -> None:
    """Our client names what happened in exactly one line."""
    line = process.err.read_text()
    assert line.startswith("wstunnel-py: ") and line.count("\n") == 1, line
    assert all(word in line for word in words), line


def assert_still_serves(bed: Bed, pair: Pair, bridge: Bridge, target: Target) -> None:
    """The bridge has outlived what happened to one of its tunnels."""
    assert bridge.process.status is None
    client = start_client(bed, pair, bridge)
    client.end_input()
    client.wait(20)
    target.result()


@pytest.mark.parametrize("pair", KEEPS_TAILS, ids=str)
def test_an_answer_that_comes_only_after_the_end_of_the_request_arrives_whole(bed: Bed, pair: Pair) -> None:
    with Target(answer_after_the_end) as target:
        bridge = start_bridge(bed, pair.bridge, target.port)
        client = bed.check(*pair.command(bridge.url), stdin=REQUEST)
        assert target.result() == checksum(REQUEST)
        assert checksum(client.stdout) == checksum(ANSWER)


@pytest.mark.parametrize("pair", [*OUR_BRIDGE, Pair("ours", "websocat-E")], ids=str)
def test_a_request_that_ends_at_once_reaches_the_target_whole(bed: Bed, pair: Pair) -> None:
    """So it is even where websocat's ``--exit-on-eof`` would throw an answer away."""
    with Target(lambda connection: checksum(read_to_end(connection))) as target:
        bridge = start_bridge(bed, pair.bridge, target.port)
        bed.run(*pair.command(bridge.url), stdin=REQUEST)
        assert target.result() == checksum(REQUEST)


@pytest.mark.parametrize("pair", ALL_PAIRS, ids=str)
def test_a_target_that_closes_first_is_heard_to_its_last_byte(bed: Bed, pair: Pair) -> None:
    with Target(lambda connection: connection.sendall(REQUEST)) as target:
        bridge = start_bridge(bed, pair.bridge, target.port)
        client = start_client(bed, pair, bridge)
        wait_for_output(client, len(REQUEST))
        if pair in OUR_CLIENT:
            assert client.wait(20) == 0
            assert client.err.read_text() == ""
        assert checksum(client.out.read_bytes()) == checksum(REQUEST)
        target.result()


@pytest.mark.parametrize("pair", KEEPS_TAILS, ids=str)
def test_a_target_that_half_closes_first_still_gets_a_clean_end(bed: Bed, pair: Pair) -> None:
    def answer_and_half_close(connection: socket.socket) -> bytes:
        read_exactly(connection, len(REQUEST))
        connection.sendall(ANSWER)
        connection.shutdown(socket.SHUT_WR)
        return read_to_end(connection)

    with Target(answer_and_half_close) as target:
        bridge = start_bridge(bed, pair.bridge, target.port)
        client = start_client(bed, pair, bridge)
        client.feed(REQUEST)
        wait_for_output(client, len(ANSWER))
        client.end_input()
        assert client.wait(20) == 0
        assert checksum(client.out.read_bytes()) == checksum(ANSWER)
        assert target.result() == b""


@pytest.mark.parametrize("pair", KEEPS_TAILS, ids=str)
def test_an_echo_is_complete_while_both_directions_are_busy(bed: Bed, pair: Pair) -> None:
    with Target(echo) as target:
        bridge = start_bridge(bed, pair.bridge, target.port)
        client = bed.check(*pair.command(bridge.url), stdin=REQUEST * 4)
        assert checksum(client.stdout) == checksum(REQUEST * 4)


@pytest.mark.parametrize("pair", OUR_CLIENT, ids=str)
@pytest.mark.parametrize("size", [0, MIDDLE], ids=["at the start", "in the middle"])
def test_a_target_that_breaks_the_connection_is_no_silent_end(bed: Bed, pair: Pair, size: int) -> None:
    def send_and_reset(connection: socket.socket) -> None:
        connection.sendall(ANSWER[:size])
        read_exactly(connection, 1)  # the client has all of it
        reset(connection)

    with Target(send_and_reset) as target:
        bridge = start_bridge(bed, pair.bridge, target.port)
        client = start_client(bed, pair, bridge)
        wait_for_output(client, size)
        client.feed(b"x")
        assert client.wait(20) == 69
        assert checksum(client.out.read_bytes()) == checksum(ANSWER[:size])
        if pair.bridge == "ours":
            assert_one_line(client, "the target behind the bridge broke the connection")
            bridge.process.wait_for_line("target lost")
        else:  # websocat keeps to itself why it hangs up
            assert_one_line(client, "connection lost")


@pytest.mark.parametrize("pair", OUR_CLIENT, ids=str)
def test_a_target_that_breaks_the_connection_in_the_middle_of_the_request_is_no_silent_end(
    bed: Bed, pair: Pair
) -> None:
    def read_and_reset(connection: socket.socket) -> None:
        read_exactly(connection, MIDDLE)
        reset(connection)

    with Target(read_and_reset) as target:
        bridge = start_bridge(bed, pair.bridge, target.port)
        client = bed.run(*pair.command(bridge.url), stdin=REQUEST * 10)
        target.result()
        assert client.status == 69
        assert client.stderr.startswith("wstunnel-py: ") and client.stderr.count("\n") == 1


@pytest.mark.parametrize("pair", ALL_PAIRS, ids=str)
def test_a_killed_client_ends_the_target_s_connection(bed: Bed, pair: Pair) -> None:
    """Our bridge breaks it with a reset: half a request must not look like a whole one to the target.

    If the session could be resumed, that is once nobody has come back in time.
    """

    has_half = threading.Event()

    def read_half(connection: socket.socket) -> str:
        read_exactly(connection, MIDDLE)
        has_half.set()
        try:
            return "end" if read_to_end(connection) == b"" else "more"
        except ConnectionResetError:
            return "reset"

    with Target(read_half) as target:
        bridge = start_bridge(bed, pair.bridge, target.port, *(("--resume-for", "1") if pair == OWN_PAIR else ()))
        client = start_client(bed, pair, bridge)
        client.feed(REQUEST[:MIDDLE])
        assert has_half.wait(60)
        client.send_signal(signal.SIGKILL)
        assert client.wait(20) == -signal.SIGKILL
        outcome = target.result()
        if pair.bridge == "ours":
            assert outcome == "reset"
            ended = "no client reconnected for 1 s" if pair == OWN_PAIR else "client (lost|closed)"
            bridge.process.wait_for_line(ended)
    assert bridge.process.status is None


@pytest.mark.parametrize("pair", OUR_CLIENT, ids=str)
def test_a_killed_bridge_is_no_silent_end(bed: Bed, pair: Pair) -> None:
    with Target(echo) as target:
        bridge = start_bridge(bed, pair.bridge, target.port)
        command = (*pair.command(bridge.url), *(("--reconnect-for", "1") if pair == OWN_PAIR else ()))
        client = bed.start(*command, stdin=subprocess.PIPE)
        client.feed(REQUEST[:MIDDLE])
        wait_for_output(client, MIDDLE)
        bridge.process.send_signal(signal.SIGKILL)
        if pair == OWN_PAIR:
            assert client.wait(20) == 75
            assert_one_line(client, "gave up after 1 s without a connection", "refused the connection")
        else:
            assert client.wait(20) == 69
            assert_one_line(client, "connection lost")
        assert checksum(client.out.read_bytes()) == checksum(REQUEST[:MIDDLE])


def test_a_bridge_killed_in_the_middle_of_an_answer_is_no_silent_end(bed: Bed) -> None:
    """Not even when our side of the conversation had ended long before."""

    def answer_for_ever(connection: socket.socket) -> None:
        read_to_end(connection)
        while True:
            connection.sendall(ANSWER)

    with Target(answer_for_ever) as target:
        bridge = start_bridge(bed, "ours", target.port)
        client = bed.start(*PLAIN_PAIR.command(bridge.url))
        wait_for_output(client, MIDDLE)
        bridge.process.send_signal(signal.SIGKILL)
        assert client.wait(20) == 69
        assert_one_line(client, "connection lost")


def test_a_target_that_refuses_connections_is_named(bed: Bed) -> None:
    port = free_port()
    bridge = start_bridge(bed, "ours", port)
    client = bed.run(*OWN_PAIR.command(bridge.url))
    assert client.status == 69
    assert client.stderr.count("\n") == 1
    assert all(word in client.stderr for word in ("502", f"127.0.0.1:{port}", "refused")), client.stderr
    theirs = bed.run(*Pair("websocat", "ours").command(bridge.url))
    assert theirs.status != 0 and "502" in theirs.stderr


@pytest.mark.parametrize("bridge_kind", ["websocat", "websocat-E"])
def test_a_target_that_refuses_connections_of_websocat_is_no_silent_end(bed: Bed, bridge_kind: str) -> None:
    """websocat answers 101 before it dials its target, and hangs up after."""
    pair = Pair("ours", bridge_kind)
    bridge = start_bridge(bed, bridge_kind, free_port())
    client = start_client(bed, pair, bridge)
    assert client.wait(20) == 69
    assert_one_line(client, "connection lost")


@pytest.mark.parametrize("pair", OUR_BRIDGE, ids=str)
def test_a_bridge_outlives_whatever_happened_to_its_tunnels(bed: Bed, pair: Pair) -> None:
    def read_some_and_reset(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):  # by the client that is killed, if it has come so far
            connection.recv(65536)
        reset(connection)

    with Target(read_some_and_reset) as target:
        bridge = start_bridge(bed, pair.bridge, target.port)
        for stdin in (REQUEST, b"", REQUEST):
            bed.run(*pair.command(bridge.url), stdin=stdin)
            target.result()
        client = start_client(bed, pair, bridge)
        client.send_signal(signal.SIGKILL)
        client.wait(20)
        assert_still_serves(bed, pair, bridge, target)
