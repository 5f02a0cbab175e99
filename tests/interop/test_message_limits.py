"""Edges that limit the size of messages: sessions adapt by themselves, and users can set a limit."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websocket

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, checksum, read_to_end
from tests.bed.tunnels import OURS, start_bridge
from tests.faults.peer import Peer

KIB = 1024
StartEdge = Callable[..., str]


def scp_both_ways(bed: Bed, sshd: Sshd, url: str, file: Path, *options: str) -> None:
    config = sshd.write_client_config(bed.folder / "ssh_config", (*OURS, "connect", *options, url))
    there, back = bed.folder / "there", bed.folder / "back"
    for source, sink in ((str(file), f"box:{there}"), (f"box:{there}", str(back))):
        bed.check("scp", "-q", "-F", str(config), source, sink, seconds=90)
    assert checksum(back.read_bytes()) == checksum(there.read_bytes()) == checksum(file.read_bytes())


@pytest.fixture
def large(tmp_path: Path, samples: list[Path]) -> Path:
    path = tmp_path / "large"
    path.write_bytes(samples[-1].read_bytes()[:8_000_001])
    return path


@pytest.mark.parametrize(
    ("size", "library"),
    [
        (32 * KIB, "aiohttp"),
        (64 * KIB, "websockets"),
        (1024 * KIB, "aiohttp"),
        pytest.param(64 * KIB, "aiohttp", marks=pytest.mark.full),
        pytest.param(32 * KIB, "websockets", marks=pytest.mark.full),
        pytest.param(1024 * KIB, "websockets", marks=pytest.mark.full),
    ],
)
def test_scp_works_through_an_edge_that_limits_messages(
    bed: Bed, sshd: Sshd, edge: StartEdge, large: Path, size: int, library: str
) -> None:
    url = edge(start_bridge(bed, "ours", sshd.port).url, "--max-size", str(size), "--library", library)
    scp_both_ways(bed, sshd, url, large)


@pytest.mark.parametrize("size", [6 * KIB, 64 * KIB])
def test_scp_works_through_an_edge_that_drops_connections_over_large_messages(
    bed: Bed, sshd: Sshd, edge: StartEdge, large: Path, size: int
) -> None:
    url = edge(start_bridge(bed, "ours", sshd.port).url, "--max-size", str(size), "--drops", "--select", "same")
    scp_both_ways(bed, sshd, url, large)


def test_a_plain_tunnel_obeys_max_message(bed: Bed, sshd: Sshd, edge: StartEdge, large: Path) -> None:
    option = ("--max-message", str(20 * KIB))
    url = edge(start_bridge(bed, "ours", sshd.port, *option).url, "--max-size", str(20 * KIB))
    scp_both_ways(bed, sshd, url, large, "--no-resume", *option)


def test_the_user_reads_the_reason_of_a_close(bed: Bed) -> None:
    """Of a plain tunnel at once; of a session when it has tried the smallest messages."""

    def refuse(connection: ServerConnection) -> None:
        connection.recv()
        connection.close(1009, "over\x1b[31m the limit of 4711 bytes")

    with serve_websocket(refuse, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        done = bed.run(*OURS, "connect", f"ws://127.0.0.1:{port}", stdin=b"x" * 100_000)
        server.shutdown()
        thread.join(20)
    assert done.status == 76 and done.stderr.count("\n") == 1 and "\x1b" not in done.stderr
    assert "1009" in done.stderr and "the limit of 4711 bytes" in done.stderr and "--max-message" in done.stderr


def test_the_client_gives_up_on_an_edge_that_refuses_even_the_smallest_messages(bed: Bed, edge: StartEdge) -> None:
    with Target(read_to_end) as target:
        url = edge(start_bridge(bed, "ours", target.port).url, "--max-size", "600", "--select", "same")
        done = bed.run(*OURS, "connect", url, stdin=b"x" * 100_000, seconds=60)
    assert done.status == 76 and done.stderr.count("\n") == 1
    assert "1009" in done.stderr


def test_websocat_keeps_to_its_buffer_size(bed: Bed) -> None:
    """With a session, too, at either end."""
    sizes: list[int] = []
    over = threading.Event()  # the server answers the Close before all messages have been looked at

    def note(connection: ServerConnection) -> None:
        for message in connection:
            sizes.append(len(message))
        over.set()

    with serve_websocket(note, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        bed.run(*OURS, "websocat", "-b", "-B", "1000", "-", f"ws://127.0.0.1:{port}", stdin=b"x" * 100_000)
        assert over.wait(60)
        server.shutdown()
        thread.join(20)
    assert sum(sizes) == 100_000 and max(sizes) <= 1000
    with Target(lambda connection: connection.sendall(b"y" * 100_000)) as target:
        words = (*OURS, "websocat", "-b", "-B", "2000", "ws-l:127.0.0.1:0", f"tcp:127.0.0.1:{target.port}")
        url = bed.start(*words).wait_for_line(r"(ws://\S+?)[ ,]")[1]
        peer, _ = Peer.open(url)
        with peer:
            peer.wait_for_data(100_000)
            assert max(peer.sizes) <= 2000


@pytest.mark.parametrize("word", ["0", "1023", "262145", "many", "-1"])
def test_an_impossible_message_size_is_refused(bed: Bed, word: str) -> None:
    for command in (("connect", "ws://127.0.0.1:1"), ("serve",)):
        done = bed.run(*OURS, command[0], f"--max-message={word}", *command[1:])
        assert done.status == 2 and "max-message" in done.stderr


def test_max_message_can_come_from_the_environment_or_the_config_file(
    bed: Bed, edge: StartEdge, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("max-message = 2048\n")
    with Target(lambda connection: len(read_to_end(connection))) as target:
        url = edge(start_bridge(bed, "ours", target.port).url, "--max-size", "2048")
        for words, env in (((), {"WSTUNNEL_PY_MAX_MESSAGE": "2048"}), (("--config", str(config)), {})):
            done = bed.run(*OURS, "connect", "--no-resume", *words, url, stdin=b"x" * 100_000, env=env)
            assert done.status == 0, done.stderr
            assert target.result() == 100_000


def test_an_interactive_session_survives_a_message_that_was_too_large(bed: Bed, sshd: Sshd, edge: StartEdge) -> None:
    url = edge(start_bridge(bed, "ours", sshd.port).url, "--max-size", str(32 * KIB))
    config = sshd.write_client_config(bed.folder / "ssh_config", (*OURS, "connect", url))
    session = bed.start("ssh", "-F", str(config), "box", "cat", stdin=subprocess.PIPE)
    session.feed(b"before\n")
    session.wait_for_line("before")
    session.feed(b"x" * 1_000_000 + b"\nafter\n")
    session.wait_for_line("after", 40)
    session.end_input()
    assert session.wait(20) == 0
    assert session.out.stat().st_size == len("before\n") + 1_000_001 + len("after\n")
