"""A bridge that offers absurd limits or answers a resume with a non-number: one line, and no memory is used up."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tests.client.conftest import read_head
from tunnel.protocol.control import SUBPROTOCOL, WINDOW_LIMIT
from tunnel.protocol.session_state import WINDOW

ID, KEY = "0123456789abcdef" * 2, "fedcba9876543210" * 4
SILENCE = 2.0  # seconds without a byte after which a client has stopped sending, if it has sent its window
SLACK = 2 << 20  # bytes of headers, masks and pings

Script = Callable[[socket.socket], object]


def resumable(line: str, then: Script, received: str | None = None) -> Script:
    """A bridge that agrees to resume and sends ``line`` first; it answers a resume with ``received`` instead."""

    def script(connection: socket.socket) -> object:
        head = read_head(connection)
        server = ServerProtocol(select_subprotocol=lambda _, offered: Subprotocol(SUBPROTOCOL))
        server.receive_data(head)
        request = next(iter(server.events_received()))
        response = server.accept(request)  # type: ignore[arg-type]
        if received is not None and b"Wstunnel-Resume" in head:
            response.headers["Wstunnel-Received"] = received
            server.send_response(response)
            connection.sendall(b"".join(server.data_to_send()))
            return connection.recv(65536)
        server.send_response(response)
        text = line.encode()
        frame = b"\x81\x7e" + struct.pack(">H", len(text)) + text
        connection.sendall(b"".join(server.data_to_send()) + frame)
        return then(connection)

    return script


def session(window: int, retain: int = 3600) -> str:
    return f"session id={ID} key={KEY} window={window} retain={retain}"


def count_until_silence(connection: socket.socket) -> int:
    """Take everything, acknowledge nothing."""
    count = 0
    with contextlib.suppress(TimeoutError):
        while data := connection.recv(1 << 20):
            count += len(data)
            if count >= WINDOW:
                connection.settimeout(SILENCE)
    return count


def hang_up_soon(connection: socket.socket) -> None:
    connection.recv(65536)


@pytest.mark.parametrize("window", [WINDOW_LIMIT + 1, 1 << 40, 1 << 62, 10**30])
def test_an_offer_beyond_all_bounds_is_refused_in_one_line(bed: Bed, window: int) -> None:
    with Target(resumable(session(window), count_until_silence)) as target:
        finished = bed.run(*OURS, "connect", f"ws://127.0.0.1:{target.port}", stdin=Path("/dev/zero"), seconds=30)
        sent = target.result()
    assert finished.status == 76 and finished.stderr.count("\n") == 1 and "session" in finished.stderr
    assert ID not in finished.stderr and KEY not in finished.stderr
    assert isinstance(sent, int) and sent < SLACK


def test_only_part_of_a_large_window_is_used(bed: Bed) -> None:
    with Target(resumable(session(WINDOW_LIMIT), count_until_silence)) as target:
        client = bed.start(*OURS, "connect", f"ws://127.0.0.1:{target.port}", stdin=Path("/dev/zero"))
        sent = target.result()
        client.end()
    assert isinstance(sent, int) and WINDOW <= sent < WINDOW + SLACK


@pytest.mark.parametrize("retain", [(1 << 63) - 1, 0])
def test_any_retention_is_survived(bed: Bed, retain: int) -> None:
    with Target(resumable(session(1 << 20, retain), hang_up_soon, received="1" * 19)) as target:
        words = ("connect", "--reconnect-for", "3", f"ws://127.0.0.1:{target.port}")
        finished = bed.run(*OURS, *words, stdin=b"x" * 100, seconds=30)
    assert finished.status in (69, 75) and finished.stderr.count("\n") == 1
    assert "internal" not in finished.stderr


@pytest.mark.parametrize("received", ["9" * 5000, "²", "-1", "+1", "1_0", "1" * 19, ""])
def test_a_resume_at_what_is_no_number_ends_in_one_line(bed: Bed, received: str) -> None:
    with Target(resumable(session(1 << 20), hang_up_soon, received=received)) as target:
        words = ("connect", "--reconnect-for", "10", f"ws://127.0.0.1:{target.port}")
        finished = bed.run(*OURS, *words, stdin=b"x" * 100, seconds=30)
    assert finished.status == 69 and finished.stderr.count("\n") == 1, finished.stderr
    assert "the session is over and cannot be resumed" in finished.stderr and received[:100] != finished.stderr


@pytest.mark.parametrize("epoch", ["9" * 5000, "9" * 18, "²", "-5"])
def test_an_epoch_beyond_all_bounds_is_survived(bed: Bed, epoch: str) -> None:
    begun: list[bool] = []

    def script(connection: socket.socket) -> object:
        if not begun:
            begun.append(True)
            return resumable(session(1 << 20), hang_up_soon)(connection)
        read_head(connection)
        lines = ("HTTP/1.1 409 Conflict", "Wstunnel-Error: stale", f"Wstunnel-Epoch: {epoch}", "Content-Length: 0")
        connection.sendall(("\r\n".join(lines) + f"\r\nRetry-After: {epoch}\r\n\r\n").encode())
        return None

    with Target(script) as target:
        words = ("connect", "--reconnect-for", "10", f"ws://127.0.0.1:{target.port}")
        finished = bed.run(*OURS, *words, stdin=b"x" * 100, seconds=30)
    assert "409" in finished.stderr and finished.stderr.count("\n") == 1 and "internal" not in finished.stderr
