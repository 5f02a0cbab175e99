"""Admission during a restart in place: handshakes, TLS, slots, detached sessions, the drain."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

import tunnel as api
from tests.bed.processes import Bed, ticks
from tests.bed.targets import Target
from tests.bed.tunnels import OURS, start_bridge
from tests.conftest import StartBridge
from tests.faults.seen import wait_for_tunnels
from tests.restart.installed import Installed
from tests.restart.restarting import lines_of, restart, wait_for, wait_for_lines
from tests.server.clients import LIMIT, ask, assert_echo, dial, open_tunnel, read_answer, request_head

MB = 1_000_000


def health(url: str) -> dict[str, int]:
    answer: dict[str, int] = ask(url, "/healthz", headers={}).json
    return answer


def test_a_handshake_that_takes_too_long_is_told_to_come_again(start: StartBridge) -> None:
    bridge = start()
    with dial(bridge.url) as slow, dial(bridge.url) as silent:
        slow.sendall(request_head()[:20])
        restart(bridge.process)
        for sock in (slow, silent):
            answer = read_answer(sock)
            assert (answer.status, answer.json["error"]) == (503, "restarting")
            assert "retry-after" in answer.headers
        lines = lines_of(bridge.process, "refused")
        assert len(lines) == 2 and all("status=503 error=restarting" in line for line in lines)


def test_a_refusal_that_is_delayed_still_comes(bed: Bed, echo_target: Target, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-of-32-characters-at-least\n")
    tokens.chmod(0o600)
    bridge = start_bridge(bed, "ours", echo_target.port, "--token-file", str(tokens))
    head = request_head()[:-2] + b"Authorization: Bearer wrong\r\n\r\n"
    with dial(bridge.url) as wrong:
        wrong.sendall(head)  # first, as the bridge may be quick to restart
        bridge.process.send_signal(signal.SIGUSR2)
        assert read_answer(wrong).status == 401
    wait_for_lines(bridge.process, "restarted", 1)
    assert ask(bridge.url).status == 401


def make_certificate(bed: Bed, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the file of an authority, and the options of a bridge with a certificate of it for localhost."""
    folder = tmp_path / "pki"
    bed.check(*OURS, "certs", "ca", str(folder))
    bed.check(*OURS, "certs", "server", "localhost", "--ca", str(folder), "--out", f"{folder}/localhost")
    return folder / "ca.pem", ("--tls-cert", f"{folder}/localhost.pem", "--tls-key", f"{folder}/localhost.key")


def test_sessions_over_tls_resume_and_plain_tunnels_are_told_why_they_end(
    bed: Bed, echo_target: Target, tmp_path: Path
) -> None:
    authority, pair = make_certificate(bed, tmp_path)
    bridge = start_bridge(bed, "ours", echo_target.port, *pair)
    url = bridge.url.replace("127.0.0.1", "localhost")
    context = ssl.create_default_context(cafile=str(authority))
    session = bed.start(*OURS, "connect", "--ca-file", str(authority), url, stdin=subprocess.PIPE)
    plain = bed.start(*OURS, "connect", "--no-resume", "--ca-file", str(authority), url, stdin=subprocess.PIPE)
    session.feed(b"before\n")
    session.wait_for_line("before")
    plain.feed(b"before\n")
    plain.wait_for_line("before")
    with open_tunnel(url, tls=context) as tunnel:
        assert_echo(tunnel)
        restart(bridge.process)
        with pytest.raises(ConnectionClosed) as closed:
            tunnel.recv(timeout=LIMIT)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "the bridge restarts")
    assert plain.wait(LIMIT) == 75
    line = "wstunnel-py: the session is over: the bridge is stopping: the bridge restarts"
    assert plain.err.read_text().startswith(line)
    session.feed(b"after\n")
    session.wait_for_line("after")
    session.end_input()
    assert session.wait(LIMIT) == 0
    assert session.err.read_text() == ""
    ends = lines_of(bridge.process, "tunnel")
    assert len([line for line in ends if 'reason="the bridge restarts"' in line]) == 2


def test_a_busy_download_over_tls_is_told_why_it_ends(bed: Bed, installed: Installed, tmp_path: Path) -> None:
    """Much is waiting for its client when the bridge stands still; by the end of that, the client has read it."""
    authority, pair = make_certificate(bed, tmp_path)
    stands, may_go_on = tmp_path / "stands", tmp_path / "may-go-on"
    text = "        trial.restore()\n"
    wait = f"        while not os.path.exists({str(may_go_on)!r}): __import__('time').sleep(0.01)\n"
    installed.change("restart/course.py", text, f"        open({str(stands)!r}, 'w').close()\n{wait}{text}")

    def flood(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(bytes(MB))

    with Target(flood) as target:
        process, url = installed.serve(bed, target.port, *pair)
        context = ssl.create_default_context(cafile=str(authority))
        with open_tunnel(url.replace("127.0.0.1", "localhost"), tls=context) as tunnel:
            tunnel.recv(timeout=LIMIT)
            process.send_signal(signal.SIGUSR2)
            wait_for(stands)
            with pytest.raises(TimeoutError):
                while True:
                    tunnel.recv(timeout=1)
            may_go_on.touch()
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    tunnel.recv(timeout=LIMIT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


@pytest.mark.parametrize("options", [("--max-detached", "0"), ("--max-tunnels", "1")], ids=" ".join)
def test_limits_do_not_end_what_a_restart_has_cut_off(bed: Bed, echo_target: Target, options: tuple[str, str]) -> None:
    bridge = start_bridge(bed, "ours", echo_target.port, *options)
    client = bed.start(*OURS, "connect", bridge.url, stdin=subprocess.PIPE)
    client.feed(b"before\n")
    client.wait_for_line("before")
    restart(bridge.process)
    client.feed(b"after\n")
    client.wait_for_line("after")
    assert health(bridge.url)["tunnels"] == 1
    client.end_input()
    assert client.wait(LIMIT) == 0
    for _ in ticks(LIMIT):
        if health(bridge.url)["tunnels"] == 0:
            break
    assert health(bridge.url)["tunnels"] == 0, "the slot was not released"


def test_a_session_whose_client_is_away_waits_on(bed: Bed, echo_target: Target) -> None:
    """It is away when the bridge restarts, and comes back later."""
    bridge = start_bridge(bed, "ours", echo_target.port, "--ping-interval", "0.2", "--ping-timeout", "0.2")
    client = bed.start(*OURS, "connect", bridge.url, stdin=subprocess.PIPE)
    client.feed(b"before\n")
    client.wait_for_line("before")
    client.send_signal(signal.SIGSTOP)
    try:
        wait_for_tunnels(bridge, 0, detached=1)  # a busy client may have been away, and back, before
        restart(bridge.process)
        assert (health(bridge.url)["tunnels"], health(bridge.url)["detached"]) == (0, 1)
    finally:
        client.send_signal(signal.SIGCONT)
    client.feed(b"after\n")
    client.wait_for_line("after")
    assert all("session=1 " in line for line in lines_of(bridge.process, "resumed"))
    client.end_input()
    assert client.wait(LIMIT) == 0


def test_a_bridge_that_is_stopped_right_after_a_restart_drains(bed: Bed, echo_target: Target) -> None:
    bridge = start_bridge(bed, "ours", echo_target.port)
    client = bed.start(*OURS, "connect", bridge.url, stdin=subprocess.PIPE)
    client.feed(b"before\n")
    client.wait_for_line("before")
    client.send_signal(signal.SIGSTOP)  # so that it does not come back at once
    restart(bridge.process)
    bridge.process.send_signal(signal.SIGTERM)
    bridge.process.wait_for_line("info draining")
    client.send_signal(signal.SIGCONT)
    client.feed(b"after\n")
    client.wait_for_line("after")
    client.end_input()
    assert client.wait(LIMIT) == 0
    assert bridge.process.wait(LIMIT) == 0


def test_many_sessions_under_load_live_through_two_restarts_in_a_row(start: StartBridge) -> None:
    bridge = start()
    count, rounds = 60, 40

    async def talk(number: int, restarted: asyncio.Event) -> int:
        reader, writer = await api.open_connection(bridge.url)
        line = f"{number} ".encode() * 2000 + b"\n"
        for n in range(rounds):
            if n == 3:
                await restarted.wait()
            writer.write(line)
            assert await reader.readline() == line
        writer.close()
        return rounds

    async def run() -> list[int]:
        restarted = asyncio.Event()
        talks = [asyncio.create_task(talk(number, restarted)) for number in range(count)]
        for n in (1, 2):
            bridge.process.send_signal(signal.SIGUSR2)
            await asyncio.to_thread(wait_for_lines, bridge.process, "restarted", n)
            restarted.set()
        async with asyncio.timeout(60):
            return await asyncio.gather(*talks)

    assert asyncio.run(run()) == [rounds] * count
