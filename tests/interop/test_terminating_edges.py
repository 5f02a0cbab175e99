"""ssh through edges that terminate the WebSocket and open one of their own to the bridge.

They choose a subprotocol for each side, forward what the client asks, and drop what the bridge answers but messages.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, checksum, read_to_end
from tests.bed.tunnels import CLIENTS, OURS, start_bridge
from tests.faults.link import Link
from tests.server.clients import port_of

SECRET = re.compile(r"[0-9a-f]{32}|key=")
NEW = OURS
StartEdge = Callable[..., str]


@pytest.fixture(params=["new", "old"])
def client(request: pytest.FixtureRequest) -> Sequence[str]:
    return NEW if request.param == "new" else request.getfixturevalue("old")


@pytest.fixture(params=["new", "old"])
def bridge(request: pytest.FixtureRequest, bed: Bed, sshd: Sshd) -> str:
    """The URL of a bridge to the sshd."""
    words = NEW if request.param == "new" else request.getfixturevalue("old")
    return start(bed, words, sshd.port)


def start(bed: Bed, words: Sequence[str], target: int, *options: str) -> str:
    process = bed.start(*words, "serve", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}", *options)
    return process.wait_for_line(r"ready on (wss?://[^\s,]+)")[1]


def ssh_by(bed: Bed, sshd: Sshd, *words: str) -> tuple[str, ...]:
    path = bed.folder / f"ssh_config.{len(bed.processes)}"
    return ("ssh", "-F", str(sshd.write_client_config(path, words)), "box")


def assert_survives_a_cut(bed: Bed, sshd: Sshd, client: Sequence[str], link: Link, path: str = "") -> None:
    url = f"{link.url.rstrip('/')}{f'/proxy{path}' if path else ''}"
    session = bed.start(*ssh_by(bed, sshd, *client, "connect", url), "cat", stdin=subprocess.PIPE)
    for line in ("before", "between", "after"):
        session.feed(line.encode() + b"\n")
        session.wait_for_line(line)
        if line != "after":
            link.break_all("rst")
    session.end_input()
    assert session.wait(20) == 0
    assert session.out.read_text() == "before\nbetween\nafter\n" and session.err.read_text() == ""
    assert len(link.connections) == 3


@pytest.fixture
def linked(bridge: str) -> Iterator[Link]:
    with Link(port_of(bridge)) as link:
        yield link


def test_old_and_new_ends_resume_without_an_edge(bed: Bed, sshd: Sshd, client: Sequence[str], linked: Link) -> None:
    assert_survives_a_cut(bed, sshd, client, linked)


@pytest.mark.parametrize("select", ["first", "none", "same"])
def test_a_session_survives_a_cut_behind_an_edge_that_drops_our_headers(
    bed: Bed, sshd: Sshd, edge: StartEdge, select: str
) -> None:
    url = edge(start(bed, NEW, sshd.port), "--select", select)
    with Link(port_of(url)) as link:
        assert_survives_a_cut(bed, sshd, NEW, link)


WAYS = [(select, offer) for select in ("first", "none", "last", "same") for offer in ("all", "binary", "none")]
USUAL = [("first", "all"), ("none", "all"), ("last", "none"), ("same", "binary")]


@pytest.mark.parametrize(
    ("select", "offer"), [way if way in USUAL else pytest.param(*way, marks=pytest.mark.full) for way in WAYS]
)
def test_ssh_works_whatever_subprotocol_an_edge_selects(
    bed: Bed, sshd: Sshd, edge: StartEdge, bridge: str, select: str, offer: str
) -> None:
    url = edge(bridge, "--select", select, "--offer", offer)
    data = b"0123456789" * 100_000
    done = bed.check(*ssh_by(bed, sshd, *NEW, "connect", "-v", url), "cat", stdin=data)
    assert checksum(done.stdout) == checksum(data)
    assert not SECRET.search(done.stderr), done.stderr


def test_an_edge_that_turns_text_into_binary_gets_a_plain_tunnel(
    bed: Bed, sshd: Sshd, edge: StartEdge, bridge: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    url = edge(bridge, "--binary")
    for words in (("connect", "-v", "--log-file", str(log)), ("connect",)):
        done = bed.check(*ssh_by(bed, sshd, *NEW, *words, url), "echo passed")
        assert done.text == "passed\n"
        assert not SECRET.search(done.stderr), done.stderr
    assert not SECRET.search(log.read_text())


@pytest.mark.parametrize("select", ["first", "last"])
def test_an_edge_that_turns_only_the_clients_text_into_binary_gets_an_error_before_data_is_corrupted(
    bed: Bed, edge: StartEdge, select: str
) -> None:
    def greet(connection: socket.socket) -> bytes:
        connection.sendall(b"hello")
        with contextlib.suppress(ConnectionResetError):
            return read_to_end(connection)
        return b""

    with Target(greet) as target:
        url = edge(start(bed, NEW, target.port), "--select", select, "--binary", "up")
        done = bed.run(*NEW, "connect", url, stdin=b"x" * 1000)
        got = target.result()
        assert isinstance(got, bytes) and set(got) <= {ord("x")}
    assert done.status == 76 and done.stderr.count("\n") == 1
    assert "an edge turned the client's control lines into data" in done.stderr and "--no-resume" in done.stderr


def test_a_session_of_an_old_bridge_ends_in_one_line_when_an_edge_hides_that_it_is_there(
    bed: Bed, sshd: Sshd, edge: StartEdge, old: Sequence[str]
) -> None:
    with Link(port_of(edge(start(bed, old, sshd.port)))) as link:
        client = bed.start(*NEW, "connect", "--reconnect-for", "4", link.url, stdin=subprocess.PIPE)
        client.wait_for_line("SSH-2.0")
        link.break_all("rst")
        assert client.wait(30) in (69, 75)
        assert client.err.read_text().count("\n") == 1


@pytest.mark.parametrize("select", ["first", "none", "last"])
def test_another_server_behind_the_edge_gets_and_delivers_nothing(
    bed: Bed, edge: StartEdge, select: str, sshd: Sshd
) -> None:
    """The session's bridge is replaced by a websocat: what it says must not be taken for the session's."""

    def intrude(connection: socket.socket) -> bytes:
        received = b""
        with contextlib.suppress(ConnectionError):  # whoever hangs up without having read that breaks the connection
            connection.sendall(b"another session")
            while chunk := connection.recv(1 << 16):
                received += chunk
        return received

    with Target(intrude) as target, Link(port_of(edge(start(bed, NEW, sshd.port), "--select", select))) as link:
        client = bed.start(*NEW, "connect", link.url, stdin=subprocess.PIPE)
        client.wait_for_line("SSH-2.0")
        said = client.out.read_bytes()
        link.flip(port_of(edge(start_bridge(bed, "websocat", target.port).url, "--select", select)))
        link.break_all("rst")
        client.feed(b"for the first session only")
        assert client.wait(60) == 69
        assert target.result() == b""
        assert client.out.read_bytes() == said and client.err.read_text().count("\n") == 1


# ---- plain peers


@pytest.mark.parametrize("select", ["first", "none", "last"])
def test_websocat_as_the_bridge_is_plain_behind_an_edge_too(bed: Bed, sshd: Sshd, edge: StartEdge, select: str) -> None:
    url = edge(start_bridge(bed, "websocat", sshd.port).url, "--select", select)
    assert bed.check(*ssh_by(bed, sshd, *NEW, "connect", url), "echo passed").text == "passed\n"


def test_websocat_as_the_client_is_plain_behind_an_edge_too(bed: Bed, sshd: Sshd, edge: StartEdge, bridge: str) -> None:
    url = edge(bridge)
    assert bed.check(*ssh_by(bed, sshd, *CLIENTS["websocat"], url), "echo passed").text == "passed\n"


def test_a_plain_server_that_waits_for_our_end_gets_it_soon(bed: Bed) -> None:
    """Such as a checksum: until our input has ended it says nothing, not even that it is no session."""

    def answer(connection: socket.socket) -> float:
        request = read_to_end(connection)
        ended = time.monotonic()
        connection.sendall(checksum(request).encode())
        return ended

    with Target(answer) as target, Link(port_of(start_bridge(bed, "websocat", target.port).url)) as link:
        done = bed.run(*NEW, "connect", link.url, stdin=b"x" * 1000)
        ended = target.result()
        assert isinstance(ended, float) and ended - link.connections[0].opened_at < 4
    assert done.stdout == checksum(b"x" * 1000).encode() and done.stderr == ""


def test_a_plain_server_that_sends_nothing_gets_more_than_the_client_keeps(bed: Bed) -> None:
    """What is sent before it is clear what the peer is has a bound, but only for some seconds."""
    with Target(lambda connection: len(read_to_end(connection))) as target:
        url = start_bridge(bed, "websocat", target.port).url
        done = bed.run(*NEW, "connect", url, stdin=b"x" * 3_000_000)
        assert target.result() == 3_000_000
    assert done.status == 0 and done.stderr == ""


def test_data_sent_before_the_session_is_known_arrives_once(bed: Bed, edge: StartEdge) -> None:
    with Target(lambda connection: checksum(read_to_end(connection))) as target:
        data = bytes(range(256)) * 10_000
        with Link(port_of(edge(start(bed, NEW, target.port)))) as link:
            done = bed.run(*NEW, "connect", link.url, stdin=data)
        assert target.result() == checksum(data)
    assert done.status == 0 and done.stderr == ""


# ---- the real thing


@pytest.fixture
def jupyter(bed: Bed, tmp_path: Path) -> Callable[[str], str]:
    """Start a Jupyter server with jupyter-server-proxy, in an environment of its own, as it brings very much along."""

    def start_jupyter(bridge: str) -> str:
        python = tmp_path / "venv/bin/python"
        bed.check(sys.executable, "-m", "venv", str(tmp_path / "venv"), seconds=100)
        install = (str(python), "-m", "pip", "install", "--quiet", "jupyter-server-proxy==4.6.0")
        installed = bed.run(*install, seconds=300, env={"PYTHONPATH": ""})
        if installed.status:
            pytest.skip(f"jupyter-server-proxy cannot be installed: {installed.stderr[-300:]}")
        options = (
            "--no-browser", "--allow-root", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True",
            "--ServerApp.port_retries=0", f"--ServerApp.root_dir={bed.folder}",
        )  # fmt: skip
        _, port = bed.start_on_free_port(
            lambda port: (str(python), "-m", "jupyter_server", *options, f"--ServerApp.port={port}")
        )
        return f"ws://127.0.0.1:{port}/proxy/{port_of(bridge)}/"

    return start_jupyter


@pytest.mark.full
@pytest.mark.timeout(500)
def test_a_session_survives_a_cut_behind_jupyter_server_proxy(
    bed: Bed, sshd: Sshd, jupyter: Callable[[str], str]
) -> None:
    url = jupyter(start(bed, NEW, sshd.port))
    with Link(port_of(url)) as link:
        assert_survives_a_cut(bed, sshd, NEW, link, url.partition("/proxy")[2])
