"""The link itself: it breaks exactly what it is told to, exactly there, and is fast enough not to matter."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.bed.processes import free_port
from tests.bed.targets import LIMIT, Target, echo, read_exactly, read_to_end
from tests.faults.link import Break, Cut, Direction, Link, Plan

DATA = bytes(range(256)) * 1000
CUTS = pytest.mark.parametrize(
    ("how", "after"), [("rst", 1), ("rst", 100_000), ("fin", 0), ("fin", 1), ("fin", 100_000)]
)


@pytest.fixture
def target() -> Iterator[Target]:
    with Target(echo) as target:
        yield target


@contextlib.contextmanager
def dialled(link: Link) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", link.port), timeout=LIMIT) as sock:
        yield sock


def read_until_break(sock: socket.socket) -> tuple[bytes, str]:
    """Return what came, and whether a FIN or a RST ended it."""
    data = b""
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except ConnectionResetError:
        return data, "rst"
    return data, "fin"


def send_and_read_until_break(sock: socket.socket, data: bytes) -> tuple[bytes, str]:
    """Send ``data``, and return what `read_until_break` does. A reset that sending has heard of, reading does not."""
    try:
        sock.sendall(data)
    except ConnectionError:
        return read_until_break(sock)[0], "rst"
    return read_until_break(sock)


def seen(target: Target) -> tuple[bytes, str]:
    """What `read_until_break` saw as the target's script."""
    result = target.result()
    assert isinstance(result, tuple)
    return result


def test_bytes_and_both_ends_of_the_stream_pass_and_are_counted(target: Target) -> None:
    with Link(target.port) as link:
        with dialled(link) as sock:
            sender = threading.Thread(target=sock.sendall, args=(DATA * 100,))
            sender.start()
            assert read_exactly(sock, len(DATA) * 100) == DATA * 100
            sender.join()
            sock.shutdown(socket.SHUT_WR)
            assert read_to_end(sock) == b""
        target.result()
        link.wait_for_bytes("down", len(DATA) * 100)
        (connection,) = link.connections
        assert (connection.up, connection.down, connection.broken) == (len(DATA) * 100, len(DATA) * 100, None)


@CUTS
def test_a_cut_downwards_lets_exactly_so_many_bytes_through(target: Target, how: Break, after: int) -> None:
    with Link(target.port, Plan(Cut(after, "down", how))) as link, dialled(link) as sock:
        data, end = send_and_read_until_break(sock, DATA)
        assert end == how
        # A reset may overtake what the receiver has not read yet.
        assert data == DATA[:after] if how == "fin" else DATA[:after].startswith(data)
        assert link.connections[0].down == after
        assert link.connections[0].broken == how


@CUTS
def test_a_cut_upwards_lets_exactly_so_many_bytes_through(how: Break, after: int) -> None:
    with (
        Target(read_until_break) as target,
        Link(target.port, Plan(Cut(after, "up", how))) as link,
        dialled(link) as sock,
    ):
        with contextlib.suppress(ConnectionError):
            sock.sendall(DATA)
        data, end = seen(target)
        assert end == how
        assert data == DATA[:after] if how == "fin" else DATA[:after].startswith(data)
        assert link.connections[0].up == after


def test_behind_a_silent_cut_nothing_passes_and_nobody_hears_of_it(target: Target) -> None:
    with Link(target.port, Plan(Cut(10, "up", "silence"))) as link, dialled(link) as sock:
        sock.sendall(DATA)
        assert read_exactly_or_time_out(sock, 11) == b""
        sock.sendall(b"into the void")
        link.wait_for_breaks(1)
        with pytest.raises(AssertionError, match="saw no connection end"):
            target.result(0.2)


def read_exactly_or_time_out(sock: socket.socket, size: int) -> bytes:
    sock.settimeout(0.3)
    try:
        return read_exactly(sock, size)
    except TimeoutError:
        return b""
    finally:
        sock.settimeout(LIMIT)


def test_a_connection_can_be_half_open(target: Target) -> None:
    with Link(target.port, Plan(Cut(5, "up", "rst", side="client"))) as link, dialled(link) as sock:
        sock.sendall(b"hello")
        assert read_until_break(sock)[1] == "rst"
        with pytest.raises(AssertionError, match="saw no connection end"):
            target.result(0.2)
        assert not link.connections[0].bridge_lets_go(0)
    with pytest.raises(ConnectionResetError):  # leaving the link breaks what is left
        target.result()


def test_the_bridge_s_hanging_up_on_a_silent_connection_is_seen() -> None:
    with (
        Target(lambda connection: connection.recv(1)) as target,
        Link(target.port, Plan(Cut(1, "up", "silence"))) as link,
        dialled(link) as sock,
    ):
        sock.sendall(b"x")
        assert target.result() == b"x"
        assert link.connections[0].bridge_lets_go(LIMIT)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_stalled_direction_goes_on_later(target: Target, direction: Direction) -> None:
    with Link(target.port) as link, dialled(link) as sock:
        link.stall(direction)
        sock.sendall(DATA[:1000])
        assert read_exactly_or_time_out(sock, 1) == b""
        if direction == "down":
            link.wait_for_bytes("up", 1000)
        link.stall()
        assert read_exactly(sock, 1000) == DATA[:1000]


def test_latency_delays_and_keeps_order(target: Target) -> None:
    with Link(target.port, Plan(latency=0.1)) as link, dialled(link) as sock:
        start = time.monotonic()
        for n in range(0, 10_000, 100):
            sock.sendall(DATA[n : n + 100])
        assert read_exactly(sock, 10_000) == DATA[:10_000]
        assert time.monotonic() - start >= 0.2
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == b""


def test_a_link_is_no_faster_than_its_rate(target: Target) -> None:
    with Link(target.port, Plan(rate=500_000)) as link, dialled(link) as sock:
        start = time.monotonic()
        sender = threading.Thread(target=sock.sendall, args=(DATA,))
        sender.start()
        assert read_exactly(sock, len(DATA)) == DATA
        assert time.monotonic() - start >= len(DATA) / 500_000 * 0.9
        sender.join()


def test_a_closed_link_refuses_new_connections_until_it_opens_and_keeps_existing_ones(target: Target) -> None:
    with Link(target.port) as link, dialled(link) as before:
        before.sendall(b"x")
        assert read_exactly(before, 1) == b"x"
        link.refuse_new()
        with pytest.raises(ConnectionRefusedError), dialled(link):
            pass
        before.sendall(b"y")
        assert read_exactly(before, 1) == b"y"
        link.accept_new()
        with dialled(link) as sock:
            sock.sendall(b"z")
            assert read_exactly(sock, 1) == b"z"


def test_each_connection_has_its_own_plan(target: Target) -> None:
    answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    plans = {1: Plan(refuse=True), 2: Plan(answer=answer), 3: Plan(answer=lambda head: head[::-1]), 4: Plan(Cut(0))}
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with Link(target.port, plans) as link:
        outcomes = []
        for _ in range(5):
            try:
                with dialled(link) as sock:
                    sock.sendall(request)
                    sock.shutdown(socket.SHUT_WR)
                    outcomes.append(read_to_end(sock))
            except OSError:  # of whichever call the reset is noticed by
                outcomes.append(b"reset")
        assert outcomes == [b"reset", answer, request[::-1], b"reset", request]
        assert link.connections[1].request == link.connections[4].request == request


def test_new_connections_can_lead_to_another_bridge(target: Target) -> None:
    with (
        Target(lambda connection: connection.sendall(b"other")) as other,
        Link(target.port) as link,
        dialled(link) as sock,
    ):
        link.wait_for_connection(1)
        link.flip(other.port)
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"
        with dialled(link) as second:
            assert read_to_end(second) == b"other"


def test_a_bridge_that_refuses_connections_is_a_reset_for_the_client() -> None:
    with Link(free_port()) as link, pytest.raises(ConnectionResetError), dialled(link) as sock:
        sock.recv(1)


def test_all_connections_can_be_broken_at_once(target: Target) -> None:
    with Link(target.port) as link, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(dialled(link)) for _ in range(20)]
        link.wait_for_connection(20)
        assert link.break_all("rst") == 20
        for sock in socks:
            assert read_until_break(sock)[1] == "rst"
        assert link.broken == 20
