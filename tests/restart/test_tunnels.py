"""Tunnels that live through restarts of the bridge in place, with real ssh and scp, and how other tunnels end."""

from __future__ import annotations

import functools
import hashlib
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection

from tests.bed.processes import Bed, Process, ticks
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, read_to_end
from tests.bed.tunnels import OURS, OWN_PAIR, PLAIN_PAIR, Bridge, Pair, start_bridge
from tests.conftest import StartBridge, make_route
from tests.restart.restarting import lines_of, restart, wait_for_lines
from tests.server.clients import LIMIT, ask, assert_echo, open_tunnel

PAIRS = [OWN_PAIR, PLAIN_PAIR]
MB = 1_000_000


def descriptors(bridge: Bridge) -> int:
    return len(list(Path(f"/proc/{bridge.process.pid}/fd").iterdir()))


def receive(tunnel: ClientConnection, size: int) -> bytes:
    data = b""
    while len(data) < size:
        message = tunnel.recv(timeout=LIMIT)
        assert isinstance(message, bytes)
        data += message
    return data


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_shell_lives_through_restarts(bed: Bed, sshd: Sshd, pair: Pair) -> None:
    route = make_route(bed, sshd, pair)
    shell = bed.start(*route.ssh("box", "while read word; do echo got $word; done; echo bye"), stdin=subprocess.PIPE)
    pid = route.bridge.process.pid
    for n in range(2):
        shell.feed(f"before-{n}\n".encode())
        shell.wait_for_line(f"got before-{n}")
        restart(route.bridge.process)
        shell.feed(f"after-{n}\n".encode())
        shell.wait_for_line(f"got after-{n}")
    shell.end_input()
    assert shell.wait(LIMIT) == 0
    assert shell.out.read_text().splitlines()[-1] == "bye"
    assert shell.err.read_text() == ""
    assert route.bridge.process.pid == pid and route.bridge.process.status is None


def has_restarted(bridge: Bridge, times: int) -> bool:
    return len(lines_of(bridge.process, "restarted")) >= times


def hold_back(copies: list[tuple[Process, Path]], most: int, is_over: Callable[[], bool]) -> None:
    """Let copies go on until ``is_over``; those that have come as far as ``most`` bytes stop for so long."""
    try:
        for _ in ticks(120):
            for process, copy in copies:
                if copy.exists() and copy.stat().st_size >= most:
                    process.send_signal(signal.SIGSTOP)
            if is_over():
                return
        raise AssertionError("no restart within 120 s")
    finally:
        for process, _ in copies:
            process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("size", "rate"),
    [(20 * MB, 20_000), pytest.param(500 * MB, 200_000, marks=[pytest.mark.full, pytest.mark.timeout(900)])],
    ids=["20 MB", "500 MB"],
)
def test_scp_through_three_restarts_copies_every_byte(bed: Bed, sshd: Sshd, size: int, rate: int) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    source = bed.folder / "source"
    source.write_bytes(random.Random("restart").randbytes(MB) * (size // MB))
    copies: list[tuple[Process, Path]] = []
    for pair in PAIRS:
        config = sshd.write_client_config(bed.folder / f"ssh_config.{pair}", pair.command(bridge.url))
        for direction in ("up", "down"):
            copy = bed.folder / f"{pair}-{direction}"
            words = (f"{source}", f"box:{copy}") if direction == "up" else (f"box:{source}", f"{copy}")
            # At a limited rate (kbit/s), so that bytes are on their way at any time.
            copies.append((bed.start("scp", "-F", f"{config}", "-l", f"{rate}", *words), copy))
    for n in range(3):
        bridge.process.send_signal(signal.SIGUSR2)
        hold_back(copies, size * (n + 1) // 5, functools.partial(has_restarted, bridge, n + 1))
        assert [process.status for process, _ in copies] == [None] * 4, "one was over before the restarts were"
    expected = hashlib.sha256(source.read_bytes()).digest()
    for process, copy in copies:
        assert process.wait(600) == 0
        assert process.err.read_text() == ""
        assert hashlib.sha256(copy.read_bytes()).digest() == expected
    wait_for_lines(bridge.process, "tunnel", 4)
    assert all("client ended" in line or "target ended" in line for line in lines_of(bridge.process, "tunnel"))


def test_no_descriptor_is_left_over(start: StartBridge) -> None:
    bridge = start()
    with open_tunnel(bridge.url) as tunnel:
        restart(bridge.process)
        assert_echo(tunnel)  # then all that it opens and closes at its start is behind it
        before = descriptors(bridge)
        restart(bridge.process)
        assert_echo(tunnel)
        assert descriptors(bridge) == before


def test_no_connection_is_refused_meanwhile(start: StartBridge) -> None:
    bridge = start()
    failures: list[str] = []
    opened = 0
    is_over = threading.Event()

    def connect_again_and_again() -> None:
        nonlocal opened
        while not is_over.is_set():
            try:
                assert ask(bridge.url, "/healthz", headers={}).status == 200
                with open_tunnel(bridge.url) as tunnel:
                    assert_echo(tunnel)
                opened += 1
            except Exception as exc:
                failures.append(repr(exc))

    threads = [threading.Thread(target=connect_again_and_again) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            before = opened
            restart(bridge.process)
            for _ in ticks(LIMIT):
                if opened > before:
                    break
    finally:
        is_over.set()
        for thread in threads:
            thread.join(LIMIT)
    assert failures == []
    assert opened > 3


def test_a_message_goes_on_in_the_middle_of_its_frame(start: StartBridge) -> None:
    bridge = start()
    with open_tunnel(bridge.url) as tunnel:
        frame = bytes([0x82, 0x80 | 126, 0x01, 0x00, 1, 2, 3, 4]) + bytes(256)
        for size in (1, 100):
            tunnel.socket.sendall(frame[:size])
            restart(bridge.process)
            frame = frame[size:]
        tunnel.socket.sendall(frame)
        assert receive(tunnel, 256) == bytes([1, 2, 3, 4]) * 64


def test_half_closed_tunnels_live_on(bed: Bed) -> None:
    """The client has ended its stream, and the target has its say after the restart."""
    may_answer = threading.Event()

    def answer_late(connection: socket.socket) -> bytes:
        said = read_to_end(connection)
        assert may_answer.wait(LIMIT)
        connection.sendall(b"the answer")
        return said

    with Target(answer_late) as target:
        bridge = start_bridge(bed, "ours", target.port)
        clients = [
            bed.start(*OURS, "connect", *options, bridge.url, stdin=subprocess.PIPE)
            for options in ((), ("--no-resume",))
        ]
        for client in clients:
            client.feed(b"the question")
            client.end_input()
        for _ in ticks(LIMIT):
            if ask(bridge.url, "/healthz", headers={}).json["tunnels"] == 2:
                break
        restart(bridge.process)
        may_answer.set()
        for client in clients:
            assert client.wait(LIMIT) == 0
            assert client.out.read_bytes() == b"the answer"
            assert target.result() == b"the question"
