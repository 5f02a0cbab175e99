"""Peers that never read or never acknowledge: the bridge's memory stays within its budget, and new tunnels work."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.bed.processes import Bed, ticks
from tests.bed.targets import Target
from tests.bed.tunnels import Bridge, start_bridge
from tests.conftest import StartBridge
from tests.faults.peer import RESUMABLE, Peer, Session
from tests.faults.seen import LIMIT, resident
from tests.server.clients import assert_echo, open_tunnel

MIB = 1 << 20
SLACK = 24 * MIB  # for what is not payload: the interpreter's own growth, read buffers, sockets


def peak(bridge: Bridge) -> int:
    """Bytes of memory that the bridge has held at most."""
    with open(f"/proc/{bridge.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024


@pytest.fixture
def fountain() -> Iterator[Target]:
    """A target that sends for ever."""

    def pour(connection: socket.socket) -> None:
        block = bytes(MIB)
        connection.settimeout(None)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(block)

    with Target(pour) as target:
        yield target


@pytest.fixture
def wall() -> Iterator[Target]:
    """A target that reads nothing until the test is over."""
    over = threading.Event()

    def stand(connection: socket.socket) -> None:
        over.wait(100)

    with Target(stand) as target:
        yield target
        over.set()


def settle(peers: list[Peer]) -> None:
    """Read until nothing comes any more."""
    for peer in peers:
        size = -1
        while size != len(peer.data):
            size = len(peer.data)
            with contextlib.suppress(AssertionError):
                peer.wait(lambda size=size, peer=peer: len(peer.data) > size, 0.5)  # type: ignore[misc]


def test_a_client_that_never_acknowledges_gets_a_window_and_no_more(bed: Bed, fountain: Target) -> None:
    bridge = start_bridge(bed, "ours", fountain.port)
    before = peak(bridge)
    peer, session = Peer.open(bridge.url)
    with peer:
        peer.wait_for_data(session.window - MIB)
        settle([peer])
        assert len(peer.data) <= session.window
        assert peak(bridge) - before < session.window + SLACK
        peer.data.clear()
        peer.say(f"ack {MIB}")
        settle([peer])
        assert len(peer.data) <= MIB


def test_clients_that_never_acknowledge_stay_within_the_budget_of_all(bed: Bed, fountain: Target) -> None:
    bridge = start_bridge(bed, "ours", fountain.port, "--resume-memory", "32")
    before = peak(bridge)
    with ExitStack() as stack:
        peers = []
        for _ in range(8):
            peer = stack.enter_context(Peer(bridge.url))
            if peer.subprotocol == RESUMABLE:
                peer.wait_for_line("session ")
                peer.say("ack 0")
                peers.append(peer)
        assert peers
        settle(peers)
        assert peak(bridge) - before < 32 * MIB + SLACK


def test_a_client_that_does_not_even_read_stays_within_the_window(bed: Bed, fountain: Target) -> None:
    bridge = start_bridge(bed, "ours", fountain.port)
    before = peak(bridge)
    peer, session = Peer.open(bridge.url)
    with peer:
        for _ in ticks(3, 0.1):
            assert peak(bridge) - before < session.window + SLACK


def test_detached_sessions_stay_within_the_window(bed: Bed, fountain: Target) -> None:
    bridge = start_bridge(bed, "ours", fountain.port)
    before = peak(bridge)
    windows = 0
    for _ in range(4):
        peer, session = Peer.open(bridge.url)
        peer.wait_for_data(2 * MIB)
        peer.reset()
        windows += session.window
    for _ in ticks(2, 0.1):
        assert peak(bridge) - before < windows + SLACK


def test_a_target_that_never_reads_holds_back_a_window_and_no_more(bed: Bed, wall: Target) -> None:
    bridge = start_bridge(bed, "ours", wall.port)
    before = peak(bridge)
    peer, session = Peer.open(bridge.url)
    with peer:
        for _ in range(session.window // MIB):
            peer.send(bytes(MIB))
        peer.say("ping")
        acknowledged = int(peer.wait_for_line("ack ").split()[1])  # what the kernel's buffers took
        assert acknowledged < session.window
        assert peak(bridge) - before < session.window + SLACK


def test_more_than_the_window_ends_the_session(bed: Bed, wall: Target) -> None:
    bridge = start_bridge(bed, "ours", wall.port)
    peer, session = Peer.open(bridge.url)
    with peer:
        with contextlib.suppress(OSError):
            for _ in range(session.window // MIB + 20):  # the target's kernel takes a few
                peer.send(bytes(MIB))
        peer.wait_for_line("error protocol")
        peer.wait_for_end()


@pytest.mark.timeout(300)  # as each frame is spliced here
def test_a_frame_for_each_byte_costs_no_more_than_the_bytes(bed: Bed, wall: Target) -> None:
    bridge = start_bridge(bed, "ours", wall.port)
    peer, _ = Peer.open(bridge.url)
    with peer:
        peer.send(bytes(8 * MIB))  # more than the kernel's buffers on the way to the target take
        peer.say("ping")
        peer.wait_for_line("ack ")
        before = peak(bridge)
        frames = b"\x82\x81\0\0\0\0x" * 100_000
        peer.sock.settimeout(120)
        for _ in range(20):
            peer.sock.sendall(frames)
        peer.lines.clear()
        peer.say("ping")
        peer.wait_for_line("ack ", 120)
        assert peak(bridge) - before < SLACK


def test_when_the_budget_is_spent_new_tunnels_are_plain_and_work(start: StartBridge) -> None:
    bridge = start("--resume-memory", "4")
    with ExitStack() as stack:
        windows: list[int] = []
        sessions: list[Peer] = []
        plain = None
        for _ in range(100):
            peer = stack.enter_context(Peer(bridge.url))
            if peer.subprotocol != RESUMABLE:
                plain = peer
                break
            windows.append(Session.parse(peer.wait_for_line("session ")).window)
            peer.say("ack 0")
            sessions.append(peer)
        assert plain is not None and plain.subprotocol == "binary"
        assert windows and windows == sorted(windows, reverse=True) and windows[-1] >= 256 * 1024
        assert sum(windows) <= 4 * MIB
        plain.send(b"plain")
        assert plain.wait_for_data(5) == b"plain"
        with open_tunnel(bridge.url) as tunnel:
            assert_echo(tunnel, b"x" * MIB)
        for peer in sessions:
            peer.send(b"resumable")
            assert peer.wait_for_data(9) == b"resumable"
            peer.end()
            peer.wait_for_end()
        for _ in ticks(LIMIT):
            with Peer(bridge.url) as peer:
                if peer.subprotocol == RESUMABLE:
                    return
    raise AssertionError("the memory of ended sessions did not come back")


def test_memory_is_given_back_when_sessions_have_ended(
    bed: Bed, fountain: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that the C library gives back each large block that is freed. Usually it keeps some for reuse, and cannot give
    # back what lies below a small block that is still used (see `tunnel.protocol.read_buffers`).
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(64 * 1024))
    bridge = start_bridge(bed, "ours", fountain.port)
    before = resident(bridge.process.pid)
    peers = []
    for _ in range(4):
        peer, _ = Peer.open(bridge.url)
        peers.append(peer)
    settle(peers)
    for peer in peers:
        peer.end()
        peer.wait_for_end()
        peer.close()
    for _ in ticks(LIMIT):
        if resident(bridge.process.pid) - before < SLACK:
            return
    raise AssertionError(f"{(resident(bridge.process.pid) - before) / MIB:.0f} MiB were kept")
