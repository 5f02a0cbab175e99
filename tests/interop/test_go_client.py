"""docs/examples/go: a client in another language, which was written from docs/wire.md, works with our bridge."""

from __future__ import annotations

import os
import pwd
import random
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bed.processes import Bed, program
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, checksum
from tests.bed.tunnels import start_bridge
from tests.faults.link import Cut, Link, Plan
from tests.server.clients import port_of

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "go"
DATA = random.Random("go").randbytes(5_000_000)
LATER = 700_000  # bytes; each direction then has some left for the last connection
CUTS = {
    1: Plan(Cut(LATER, "up", "rst"), Cut(LATER, "down", "rst")),
    2: Plan(Cut(150, "up", "rst")),  # in the upgrade
    3: Plan(Cut(100, "down", "fin")),
    4: Plan(Cut(LATER, "up", "fin"), Cut(LATER, "down", "fin")),
    5: Plan(Cut(LATER, "down", "fin", side="client")),  # the bridge still takes the connection for alive
}

# A Go of 1.20 or later compiles its library when it is used first, which takes long.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the client."""
    path = tmp_path_factory.mktemp("go") / "wstunnel-client"
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # HOME is that of the tests, where Go's cache would be lost each time
    cache = os.environ.get("GOCACHE", str(home / ".cache" / "go-build"))
    go = {"GOCACHE": cache, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    build = subprocess.run(
        [program("go"), "build", "-o", str(path), "."], cwd=SOURCE, env={**os.environ, **go}, capture_output=True
    )
    assert build.returncode == 0, build.stderr.decode()
    return str(path)


def ssh(bed: Bed, sshd: Sshd, *proxy_command: str) -> tuple[str, ...]:
    return ("ssh", "-F", str(sshd.write_client_config(bed.folder / "ssh_config", proxy_command)), "box")


def test_ssh_passes_data_both_ways_and_the_exit_status_through_cuts(bed: Bed, sshd: Sshd, client: str) -> None:
    with Link(port_of(start_bridge(bed, "ours", sshd.port).url), CUTS) as link:
        done = bed.run(*ssh(bed, sshd, client, link.url), "cat; exit 7", stdin=DATA)
        assert link.broken == len(CUTS), "not all the cuts were in the transfer"
    assert (done.status, done.stderr) == (7, "")
    assert checksum(done.stdout) == checksum(DATA)


def test_ssh_works_over_a_plain_tunnel(bed: Bed, sshd: Sshd, client: str) -> None:
    url = start_bridge(bed, "ours", sshd.port).url
    done = bed.run(*ssh(bed, sshd, client, "-plain", url), "cat; exit 7", stdin=DATA)
    assert (done.status, done.stderr) == (7, "")
    assert checksum(done.stdout) == checksum(DATA)


def test_a_session_survives_a_cut_behind_an_edge_that_opens_a_websocket_of_its_own(
    bed: Bed, sshd: Sshd, client: str, edge: Callable[..., str]
) -> None:
    url = edge(start_bridge(bed, "ours", sshd.port).url, "--select", "first")
    with Link(port_of(url), {1: Plan(Cut(LATER, "up", "rst"))}) as link:
        done = bed.run(*ssh(bed, sshd, client, link.url), "cat; exit 7", stdin=DATA)
        assert link.broken == 1
    assert (done.status, done.stderr) == (7, "")
    assert checksum(done.stdout) == checksum(DATA)


def test_messages_shrink_behind_an_edge_that_limits_them(
    bed: Bed, sshd: Sshd, client: str, edge: Callable[..., str]
) -> None:
    url = edge(start_bridge(bed, "ours", sshd.port).url, "--select", "same", "--max-size", "20000")
    done = bed.run(*ssh(bed, sshd, client, url), "cat; exit 7", stdin=DATA[:1_000_000])
    assert (done.status, done.stderr) == (7, "")
    assert checksum(done.stdout) == checksum(DATA[:1_000_000])


def test_the_end_of_each_direction_is_passed_on_by_itself(bed: Bed, client: str) -> None:
    def answer(connection: socket.socket) -> int:
        heard = sum(map(len, iter(lambda: connection.recv(1 << 18), b"")))
        connection.sendall(b"%d" % heard)
        return heard

    with Target(answer) as target:
        url = start_bridge(bed, "ours", target.port).url
        for options in ((), ("-plain",)):
            done = bed.check(client, *options, url, stdin=DATA)
            assert done.text == str(target.result()) == str(len(DATA))


def test_a_wrong_token_is_refused_in_one_line(bed: Bed, sshd: Sshd, client: str, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for path in (right, wrong):
        path.write_text(f"{path.name}-0123456789abcdef\n")
        path.chmod(0o600)
    url = start_bridge(bed, "ours", sshd.port, "--token-file", str(right)).url
    done = bed.run(client, "-token-file", str(wrong), url)
    assert (done.status, done.stdout) == (1, b"")
    assert done.stderr.count("\n") == 1 and "unauthorized" in done.stderr
    assert bed.check(*ssh(bed, sshd, client, "-token-file", str(right), url), "echo in").text == "in\n"


def test_a_session_that_the_bridge_does_not_know_ends_in_one_line(bed: Bed, sshd: Sshd, client: str) -> None:
    first, second = (start_bridge(bed, "ours", sshd.port) for _ in range(2))
    with Link(port_of(first.url)) as link:
        process = bed.start(client, link.url, stdin=subprocess.PIPE)
        link.wait_for_bytes("down", 400)  # the session line, and the greeting of sshd
        link.flip(port_of(second.url))
        link.break_all("rst")
        assert process.wait(60) == 1
    assert process.err.read_text().count("\n") == 1 and "unknown-session" in process.err.read_text()


def test_the_source_is_formatted() -> None:
    assert subprocess.run([program("gofmt"), "-l", str(SOURCE)], capture_output=True, check=True).stdout == b""
