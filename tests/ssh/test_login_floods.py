"""Many clients that never log in at the embedded SSH server: others can still log in, and no process is left."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.bed.processes import Bed, descendants, ticks
from tests.bed.tunnels import Route
from tests.faults.peer import Peer
from tests.faults.seen import leave_one_descriptor, wait_for_detached
from tests.server.clients import UPGRADE, port_of, request_head
from tests.ssh.conftest import StartEmbedded
from tunnel.protocol.frames import BINARY, frame_header
from tunnel.ssh.logins import MAX_LOGINS, MAX_PROCESSES

BANNER = b"SSH-2.0-Nobody\r\n"
LIMIT = 60.0  # seconds for a crowd's processes to end


@contextlib.contextmanager
def crowd(route: Route, count: int, sent: bytes, source: str) -> Iterator[list[socket.socket]]:
    """Open tunnels from ``source`` that send only ``sent``."""
    with contextlib.ExitStack() as sockets:
        opened = []
        address = ("127.0.0.1", port_of(route.bridge.url))
        for _ in range(count):
            sock = sockets.enter_context(socket.create_connection(address, 20, source_address=(source, 0)))
            sock.sendall(request_head(headers=UPGRADE))
            opened.append(sock)
        for sock in opened:
            answer = sock.recv(12)
            assert answer in (b"HTTP/1.1 101", b"HTTP/1.1 502")  # those that were evicted at once
            if sent and answer.endswith(b"101"):
                sock.sendall(frame_header(BINARY, len(sent), bytes(4)) + sent)
        yield opened


def processes(route: Route) -> list[int]:
    return descendants(route.bridge.process.pid)[1:]


@pytest.mark.parametrize("sent", [b"", BANNER], ids=["silent", "banner"])
@pytest.mark.parametrize("count", [MAX_LOGINS, 250])
def test_many_clients_that_never_log_in_lock_out_nobody(
    bed: Bed, embedded: StartEmbedded, count: int, sent: bytes
) -> None:
    route = embedded("--resume-for", "0", "--max-tunnels", "1000")
    for source in ("127.0.0.2", "127.0.0.1"):
        with crowd(route, count, sent, source):
            assert bed.check(*route.ssh("box", "echo in"), seconds=15).text == "in\n"
            assert len(processes(route)) <= MAX_PROCESSES
            assert bed.check(*route.ssh("box", "echo in again"), seconds=15).text == "in again\n"
    for _ in ticks(LIMIT):
        if not processes(route):
            break
    assert processes(route) == []
    assert "internal-error" not in route.bridge.process.log()


def test_detached_sessions_are_evicted_for_a_login_that_needs_their_descriptors(
    bed: Bed, embedded: StartEmbedded
) -> None:
    route = embedded()
    bridge = route.bridge
    for _ in range(10):
        peer, _ = Peer.open(bridge.url)
        peer.wait_for_data(len("SSH-2.0-"))
        peer.reset()
    wait_for_detached(bridge, 10)
    leave_one_descriptor(bridge.process)
    assert bed.check(*route.ssh("box", "echo in"), seconds=15).text == "in\n"
    assert "internal-error" not in bridge.process.log()
