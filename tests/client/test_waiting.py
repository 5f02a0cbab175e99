"""``connect --wait``: bridges that come up late, behind an edge that says so or without one."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunnel
from tests.bed.edges import StartingEdge
from tests.bed.processes import Bed, Process, free_port
from tests.bed.targets import Target, echo, read_exactly
from tests.bed.tunnels import OURS, start_bridge
from tunnel.client.tcp import _tcp_error
from tunnel.client.waiting import NOT_UP_YET, dial_when_up, is_not_up_yet
from tunnel.errors import DialError, UpgradeRefused, UsageError

LIMIT = 20.0


@pytest.fixture
def echo_port() -> Iterator[int]:
    with Target(echo) as target:
        yield target.port


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].strip("/"))


def start(bed: Bed, *words: str) -> Process:
    return bed.start(*OURS, "connect", *words, stdin=subprocess.PIPE)


def assert_echoes(client: Process) -> None:
    client.feed(b"hello")
    client.end_input()
    assert client.wait(LIMIT) == 0, client.log()
    assert client.out.read_bytes() == b"hello"


@pytest.mark.parametrize("options", [[], ["--no-resume"]], ids=["session", "plain"])
def test_a_bridge_that_comes_up_late_behind_an_edge_is_reached(bed: Bed, echo_port: int, options: list[str]) -> None:
    with StartingEdge("502 Bad Gateway", "409 Conflict") as edge:
        client = start(bed, "--wait", "60", *options, edge.url)
        client.wait_for_line("not up yet", LIMIT)
        edge.bridge = port_of(start_bridge(bed, "ours", echo_port).url)
        assert_echoes(client)
    assert edge.answers >= 2
    assert (
        client.err.read_text() == f"wstunnel-py: not up yet ({edge.url} answered 502: Bad Gateway); trying for 60 s\n"
    )


def test_a_bridge_at_a_port_that_refused_is_reached(bed: Bed, echo_port: int) -> None:
    port = free_port()
    client = start(bed, "--wait", "60", f"ws://127.0.0.1:{port}")
    client.wait_for_line("not up yet", LIMIT)
    bridge = bed.start(*OURS, "serve", "--listen", f"127.0.0.1:{port}", "--target", f"127.0.0.1:{echo_port}")
    bridge.wait_for_line("ready on")
    assert_echoes(client)
    line = f"127.0.0.1:{port} refused the connection: nothing is listening there"
    assert client.err.read_text() == f"wstunnel-py: not up yet ({line}); trying for 60 s\n"


@pytest.mark.parametrize("layer", ["environment", "config"])
def test_wait_can_come_from_the_environment_or_the_config_file(
    bed: Bed, tmp_path: Path, echo_port: int, layer: str
) -> None:
    with StartingEdge("503 Service Unavailable") as edge:
        edge.bridge = port_of(start_bridge(bed, "ours", echo_port).url)
        config = tmp_path / "config.toml"
        wait = "wait = 60\n" if layer == "config" else ""
        config.write_text(f'[hosts.box]\nurl = "{edge.url}"\n{wait}')
        environ = {"WSTUNNEL_PY_WAIT": "60"} if layer == "environment" else {}
        words = ("connect", "--quiet", "--config", str(config), "box")
        finished = bed.run(*OURS, *words, stdin=b"hello", env=environ)
    assert (finished.status, finished.stdout, finished.stderr) == (0, b"hello", "")


def test_without_it_nothing_is_tried_again(bed: Bed) -> None:
    with StartingEdge("409 Conflict") as edge:
        finished = bed.run(*OURS, "connect", edge.url)
    line = f"{edge.url} answered 409: Conflict; it may still be starting: see --wait"
    assert (finished.status, finished.stderr, edge.answers) == (75, f"wstunnel-py: {line}\n", 1)


def test_when_the_time_is_over_the_last_failure_is_reported(bed: Bed) -> None:
    with StartingEdge("409 Conflict", "502 Bad Gateway") as edge:
        finished = bed.run(*OURS, "connect", "--wait", "1", edge.url)
    assert edge.answers >= 2
    assert (finished.status, finished.stderr.splitlines()) == (
        69,
        [
            f"wstunnel-py: not up yet ({edge.url} answered 409: Conflict); trying for 1 s",
            f"wstunnel-py: {edge.url} answered 502: Bad Gateway; "
            f"for details: wstunnel-py doctor {edge.url}, with the same options",
        ],
    )


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "410 Gone", "418 I'm a teapot"])
def test_a_failure_that_waiting_cannot_cure_ends_it_at_once(bed: Bed, status: str) -> None:
    with StartingEdge("503 Service Unavailable", status) as edge:
        finished = bed.run(*OURS, "connect", "--wait", "600", edge.url)
    assert edge.answers == 2
    assert finished.stderr.splitlines()[1].startswith(f"wstunnel-py: {edge.url} answered {status[:3]}: {status[4:]}; ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGHUP, -1)])
def test_a_signal_ends_the_wait(bed: Bed, number: int, code: int) -> None:
    client = start(bed, "--wait", "600", f"ws://127.0.0.1:{free_port()}")
    client.wait_for_line("not up yet", LIMIT)
    client.send_signal(number)
    assert client.wait(LIMIT) == code
    assert len(client.err.read_text().splitlines()) == 1


def refused(status: int, **headers: str) -> UpgradeRefused:
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return UpgradeRefused("http-status", status=status, headers=fields, url="wss://box", message="no")


def test_a_server_that_names_a_time_is_given_it_but_not_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now, naps = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        naps.append(seconds)

    def dial() -> object:
        raise refused(503, retry_after="7" if len(naps) < 2 else "86400" if len(naps) < 3 else "Thu, 01 Jan 1970")

    monkeypatch.setattr("tunnel.client.waiting.time.sleep", sleep)
    monkeypatch.setattr("tunnel.client.waiting.time.monotonic", lambda: now)
    with pytest.raises(UpgradeRefused):
        dial_when_up(dial, 100.0, lambda _: None)  # type: ignore[arg-type]
    assert naps[:3] == [7.0, 7.0, 60.0]
    assert max(naps[3:]) <= 5.0
    assert sum(naps) == pytest.approx(100.0)


def test_only_failures_of_a_bridge_that_is_not_up_yet_are_waited_for() -> None:
    waited_for = {status for status in range(400, 600) if is_not_up_yet(refused(status))}
    assert waited_for == set(NOT_UP_YET)
    assert is_not_up_yet(_tcp_error("box:443", [OSError(111, "refused")]))
    assert is_not_up_yet(_tcp_error("box:443", [OSError(101, "no IPv6"), OSError(111, "refused")]))
    assert not is_not_up_yet(_tcp_error("box:443", [OSError(101, "unreachable")]))
    assert not is_not_up_yet(DialError("dns", host="box", reason="unknown"))


def test_forward_waits_for_each_connection(bed: Bed, echo_port: int) -> None:
    with StartingEdge("502 Bad Gateway") as edge:
        forward = bed.start(*OURS, "forward", "--wait", "60", edge.url)
        port = int(forward.wait_for_line(r"forwarding 127\.0\.0\.1:(\d+)")[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(LIMIT)
            client.sendall(b"hello")
            forward.wait_for_line(r"127\.0\.0\.1:\d+: not up yet \(.*\); trying for 60 s", LIMIT)
            edge.bridge = port_of(start_bridge(bed, "ours", echo_port).url)
            assert read_exactly(client, 5) == b"hello"


def test_forward_that_waits_can_be_ended(bed: Bed) -> None:
    forward = bed.start(*OURS, "forward", "--wait", "600", f"ws://127.0.0.1:{free_port()}")
    port = int(forward.wait_for_line(r"forwarding 127\.0\.0\.1:(\d+)")[1])
    with socket.create_connection(("127.0.0.1", port)):
        forward.wait_for_line("not up yet", LIMIT)
        forward.send_signal(signal.SIGTERM)
        assert forward.wait(LIMIT) == 143


def test_only_these_commands_wait(bed: Bed) -> None:
    assert "there is no option --wait" in bed.run(*OURS, "doctor", "--wait", "5", "box").stderr
    with pytest.raises(UsageError, match="there is no option wait"):
        tunnel.open_socket("ws://127.0.0.1:1", wait=5)  # type: ignore[call-arg]
