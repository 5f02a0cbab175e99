"""ssh through TLS edges that route by name, and through proxies on the client's side."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.edges import (
    EDGES,
    NOT_FOUND,
    Authority,
    Edge,
    NameProxy,
    start_microsocks,
    start_tinyproxy,
)
from tests.bed.processes import Bed, descendants, free_port, ticks
from tests.bed.sshd import Sshd
from tests.bed.targets import checksum
from tests.bed.tunnels import OURS, start_bridge


def port_of(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2])


@pytest.fixture
def names() -> Iterator[NameProxy]:
    with NameProxy() as names:
        yield names


@pytest.fixture(params=EDGES)
def edge(request: pytest.FixtureRequest, bed: Bed, sshd: Sshd, tmp_path: Path) -> Edge:
    """Each edge in front of two sandboxes: `alive`, and `asleep`, in which no bridge listens."""
    alive = port_of(start_bridge(bed, "ours", sshd.port).url)
    return EDGES[request.param](bed, Authority(tmp_path / "authority"), {"alive": alive, "asleep": free_port()})


def client(edge: Edge, proxy: str) -> tuple[str, ...]:
    return (*OURS, "connect", "--url", edge.url, "--ca-file", str(edge.ca_file), "--proxy", proxy)


def ssh(bed: Bed, sshd: Sshd, command: tuple[str, ...]) -> tuple[str, ...]:
    return ("ssh", "-F", str(sshd.write_client_config(bed.folder / "ssh_config", (*command, "%h"))))


def test_ssh_reaches_a_sandbox_by_its_name_through_a_tls_edge(
    bed: Bed, sshd: Sshd, edge: Edge, names: NameProxy, samples: list[Path]
) -> None:
    box = ssh(bed, sshd, client(edge, names.url))
    assert bed.check(*box, "alive", "echo $SSH_CONNECTION").text
    data = samples[-1].read_bytes()[:20_000_000]
    assert checksum(bed.check(*box, "alive", "cat", stdin=data).stdout) == checksum(data)


def test_an_unknown_sandbox_is_reported_in_the_edge_s_own_words(bed: Bed, edge: Edge, names: NameProxy) -> None:
    finished = bed.run(*client(edge, names.url), "recycled")
    assert finished.status == 69
    assert finished.stderr.count("\n") == 1
    assert "502" in finished.stderr and NOT_FOUND in finished.stderr


def test_a_sandbox_without_a_bridge_is_reported_in_one_line(bed: Bed, edge: Edge, names: NameProxy) -> None:
    finished = bed.run(*client(edge, names.url), "asleep")
    assert finished.status in (69, 75)  # nginx answers 502, haproxy 503
    assert finished.stderr.count("\n") == 1
    assert "502" in finished.stderr or "503" in finished.stderr


def test_an_edge_whose_certificate_is_not_known_is_refused(bed: Bed, edge: Edge, names: NameProxy) -> None:
    finished = bed.run(*OURS, "connect", "--url", edge.url, "--proxy", names.url, "alive")
    assert finished.status == 77
    assert finished.stderr.count("\n") == 1
    assert "certificate" in finished.stderr


def test_ssh_passes_an_http_proxy_by_connect(bed: Bed, sshd: Sshd, edge: Edge, names: NameProxy) -> None:
    box = ssh(bed, sshd, client(edge, start_tinyproxy(bed, names)))
    assert bed.check(*box, "alive", "echo passed").text == "passed\n"


def test_proxies_are_taken_from_the_environment(bed: Bed, sshd: Sshd, edge: Edge, names: NameProxy) -> None:
    command = (*OURS, "connect", "--url", edge.url, "--ca-file", str(edge.ca_file))
    box = ssh(bed, sshd, command)
    environment = {"https_proxy": start_tinyproxy(bed, names)}
    assert bed.check(*box, "alive", "echo passed", env=environment).text == "passed\n"


def test_ssh_passes_a_socks_proxy(bed: Bed, sshd: Sshd) -> None:
    url = start_bridge(bed, "ours", sshd.port).url
    box = ssh(bed, sshd, (*OURS, "connect", "--url", url, "--proxy", start_microsocks(bed)))
    assert bed.check(*box, "box", "echo passed").text == "passed\n"


def test_a_session_outlives_a_reload_of_nginx(bed: Bed, sshd: Sshd, names: NameProxy, tmp_path: Path) -> None:
    """nginx leaves open connections to its old workers; new sessions go to the new ones."""
    bridge = port_of(start_bridge(bed, "ours", sshd.port).url)
    edge = EDGES["nginx"](bed, Authority(tmp_path / "authority"), {"alive": bridge})
    box = ssh(bed, sshd, client(edge, names.url))
    session = bed.start(*box, "alive", "echo before; read word; echo $word", stdin=subprocess.PIPE)
    session.wait_for_line("before")
    workers = descendants(edge.process.pid)
    edge.process.send_signal(signal.SIGHUP)
    for _ in ticks(20):
        if set(descendants(edge.process.pid)) - set(workers):
            break
    assert bed.check(*box, "alive", "echo new").text == "new\n"
    session.feed(b"after\n")
    assert session.wait(20) == 0
    assert session.out.read_text() == "before\nafter\n"
