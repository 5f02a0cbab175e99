"""ssh's ProxyCommand on Windows, which ssh of this machine starts under wine: what goes through, and what ends it."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.bed.edges import Authority
from tests.bed.processes import Bed, free_port
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, checksum, read_exactly, reset
from tests.bed.tunnels import Bridge, Route, start_bridge
from tests.bed.windows import Windows, dos
from tests.faults.link import Break, Cut, Direction, Link, Plan

LIMIT = 100.0
SIZE = 100_000_001
WORDS = b"words\r\n\x1a\0"  # what a stream in text mode would change, or take for its end


@pytest.fixture(scope="module")
def echo_bridge(shared_bed: Bed, echo_target: Target) -> Bridge:
    return start_bridge(shared_bed, "ours", echo_target.port)


def route_to(bed: Bed, sshd: Sshd, windows: Windows, url: str, bridge: Bridge, *options: str) -> Route:
    command = windows.command("connect", *options, url)
    return Route(sshd.write_client_config(bed.folder / "ssh_config", command), bridge)


def test_a_command_has_its_output_and_its_exit_status(bed: Bed, sshd: Sshd, windows: Windows) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    route = route_to(bed, sshd, windows, bridge.url, bridge)
    done = bed.run(*route.ssh("box", "cat; echo error >&2; exit 7"), stdin=WORDS, seconds=LIMIT)
    assert (done.status, done.stdout, done.stderr) == (7, WORDS, "error\n")


@pytest.mark.parametrize(("direction", "how"), [("up", "rst"), ("down", "fin")])
def test_100_mb_arrive_whole_though_the_connection_is_cut(
    bed: Bed, sshd: Sshd, windows: Windows, tmp_path: Path, direction: Direction, how: Break
) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    sample, copy = tmp_path / "sample", tmp_path / "copy"
    sample.write_bytes(os.urandom(SIZE))
    port = int(bridge.url.rpartition(":")[2])
    with Link(port, lambda number: Plan(Cut(SIZE // 2, direction, how)) if number == 1 else Plan()) as link:
        route = route_to(bed, sshd, windows, link.url, bridge)
        words = (str(sample), f"box:{copy}") if direction == "up" else (f"box:{sample}", str(copy))
        done = bed.check("scp", "-F", str(route.config), "-q", *words, seconds=300)
        assert done.stderr == ""
        assert link.broken == 1
    assert checksum(copy.read_bytes()) == checksum(sample.read_bytes())
    copy.unlink()
    sample.unlink()


def test_the_end_of_the_input_is_passed_on_and_the_answer_still_comes(
    bed: Bed, windows: Windows, echo_bridge: Bridge
) -> None:
    data = WORDS + os.urandom(1_000_000)
    done = windows.pipe(bed, data, "connect", echo_bridge.url)
    assert (done.status, checksum(done.stdout), done.stderr) == (0, checksum(data), "")


@pytest.mark.parametrize("option", [(), ("--no-resume",)])
def test_the_end_of_the_target_ends_it_behind_all_data(bed: Bed, windows: Windows, option: tuple[str, ...]) -> None:
    data = os.urandom(1_000_000)
    with Target(lambda connection: connection.sendall(data)) as target:
        client = windows.start(bed, "connect", *option, start_bridge(bed, "ours", target.port).url)
        assert client.wait(LIMIT) == 0
        assert checksum(client.out.read_bytes()) == checksum(data)
        assert client.err.read_text() == ""


def test_a_reader_that_goes_ends_it_without_a_word(bed: Bed, windows: Windows, echo_bridge: Bridge) -> None:
    process = subprocess.Popen(
        windows.command("connect", echo_bridge.url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"x" * 100_000)
        process.stdin.flush()
        assert process.stdout.read(1) == b"x"
        process.stdout.close()
        process.stdin.write(b"x" * 100_000)
        process.stdin.flush()
        assert process.wait(LIMIT) == 141
        assert process.stderr.read() == b""


def test_a_target_that_breaks_is_reported_in_one_line(bed: Bed, windows: Windows) -> None:
    def break_it(connection: socket.socket) -> None:
        read_exactly(connection, 1)
        reset(connection)

    with Target(break_it) as target:
        client = windows.start(bed, "connect", start_bridge(bed, "ours", target.port).url)
        client.feed(b"xx")
        assert client.wait(LIMIT) == 69
        assert "broke the connection" in client.err.read_text()
        assert client.err.read_text().count("\n") == 1


def test_a_port_where_nobody_listens_is_reported_as_on_any_system(bed: Bed, windows: Windows) -> None:
    done = windows.run(bed, "connect", f"ws://127.0.0.1:{free_port()}")
    assert done.status == 69
    assert "refused the connection: nothing is listening there" in done.stderr


def test_tls_works_without_cryptography(bed: Bed, windows: Windows, echo_target: Target, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    certificate = str(authority.certificate)
    bridge = start_bridge(bed, "ours", echo_target.port, "--tls-cert", certificate)
    done = windows.pipe(bed, WORDS, "connect", "--ca-file", dos(authority.ca_file), bridge.url)
    assert (done.status, done.stdout, done.stderr) == (0, WORDS, "")
    stranger = windows.run(bed, "connect", bridge.url)
    assert stranger.status == 77 and "certificate" in stranger.stderr
