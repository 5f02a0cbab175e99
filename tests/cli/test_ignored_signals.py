"""Signals that were ignored when a program was started stay so: under nohup, in a script's background, in a master."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, descendants, ticks
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, echo
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.pty.beds import alive, start_service
from tests.pty.typist import Typist
from tests.server.clients import assert_echo, open_tunnel

LIMIT = 20.0
A_WHILE = 0.5  # seconds in which a signal that was not ignored has done its work
HANDLED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


@pytest.fixture
def bridge(bed: Bed) -> Iterator[Bridge]:
    with Target(echo) as target:
        yield start_bridge(bed, "ours", target.port)


def numbers(pid: int, field: str) -> set[int]:
    """The signals that a process ignores (``SigIgn``) or catches (``SigCgt``): see proc(5)."""
    text = Path(f"/proc/{pid}/status").read_text()
    mask = int(text.partition(f"{field}:")[2].split()[0], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def wait_for_bytes(process: Process, data: bytes) -> None:
    for _ in ticks(LIMIT):
        if process.out.read_bytes().endswith(data):
            return
    raise AssertionError(f"no {data!r}: {process.log()}")


# ---- the ProxyCommand


@pytest.mark.parametrize("command", [("connect",), ("websocat", "--binary")])
def test_a_tunnel_under_nohup_outlives_its_terminal(bed: Bed, bridge: Bridge, command: tuple[str, ...]) -> None:
    client = bed.start("nohup", *OURS, *command, bridge.url, stdin=subprocess.PIPE)
    client.feed(b"before ")
    wait_for_bytes(client, b"before ")
    client.send_signal(signal.SIGHUP)
    time.sleep(A_WHILE)
    client.feed(b"after")
    client.end_input()
    assert client.wait(LIMIT) == 0
    assert client.out.read_bytes() == b"before after"


def test_control_c_does_not_reach_a_tunnel_in_a_scripts_background(bed: Bed, bridge: Bridge) -> None:
    """A shell without job control starts ``command &`` with SIGINT and SIGQUIT ignored (POSIX, 2.11)."""
    words = shlex.join([*OURS, "connect", bridge.url])
    script = (
        f"trap : INT QUIT; exec 3<&0; {words} <&3 & pid=$!; exec 3<&-; "
        "while kill -0 $pid 2>/dev/null; do wait $pid; code=$?; done; exit $code"
    )
    shell = bed.start("sh", "-c", script, stdin=subprocess.PIPE)
    shell.feed(b"before ")
    wait_for_bytes(shell, b"before ")
    for number in (signal.SIGINT, signal.SIGQUIT):
        os.killpg(shell.pid, number)
        time.sleep(A_WHILE)
    shell.feed(b"after")
    shell.end_input()
    assert shell.wait(LIMIT) == 0
    assert shell.out.read_bytes() == b"before after"


def test_a_master_under_nohup_keeps_its_tunnel(bed: Bed, sshd: Sshd, short_folder: Path) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    config = sshd.write_client_config(bed.folder / "config", (*OURS, "connect", bridge.url))
    ssh = ("ssh", "-F", str(config), "-S", str(short_folder / "mux"))
    quietly = ("sh", "-c", 'exec nohup "$@" >/dev/null 2>&1', "sh")  # without a nohup.out
    with Typist(*quietly, *ssh, "-M", "-N", "-o", "ControlPersist=yes", "bed") as master:
        for _ in ticks(LIMIT):
            if (short_folder / "mux").exists():
                break
        tunnels = [pid for pid in _all_pids() if bridge.url.encode() in _words(pid) and b"-m" in _words(pid)]
        assert len(tunnels) == 1
        master.hang_up()  # SIGHUP for everybody
        os.kill(tunnels[0], signal.SIGHUP)
        time.sleep(A_WHILE)
        assert bed.check(*ssh, "bed", "echo still here").text == "still here\n"
    bed.check(*ssh, "-O", "exit", "bed")
    for _ in ticks(LIMIT):
        if not alive(tunnels[0]):
            return
    raise AssertionError("the tunnel is left behind")


def _all_pids() -> list[int]:
    return descendants(1) if os.getpid() != 1 else []


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


# ---- all that go on


@pytest.mark.parametrize("which", ["connect", "forward", "shell", "websocat serving", "serve"])
def test_what_was_ignored_is_not_caught(bed: Bed, bridge: Bridge, which: str) -> None:
    service = start_service(bed).url if which == "shell" else ""
    words, ready = {
        "connect": (("connect", "-v", bridge.url), "are connected"),
        "forward": (("forward", "0", bridge.url), "forwarding"),
        "shell": (("shell", service, "--", "sh", "-c", "echo ready; sleep 600"), "ready"),
        "websocat serving": (("websocat", "-b", "ws-l:127.0.0.1:0", "tcp:127.0.0.1:1"), "listening on"),
        "serve": (("serve", "--listen", "127.0.0.1:0"), "ready on"),
    }[which]
    ignoring = ("sh", "-c", "trap '' HUP INT QUIT TERM WINCH; exec \"$@\"", "sh")
    process = bed.start(*ignoring, *OURS, *words, stdin=subprocess.PIPE)
    try:
        process.wait_for_line(ready)
        time.sleep(0.1)  # for those that say so before they go on
        assert numbers(process.pid, "SigCgt") & {*HANDLED, signal.SIGWINCH} == set()
        assert numbers(process.pid, "SigIgn") >= {*HANDLED, signal.SIGWINCH}
        for number in HANDLED:
            process.send_signal(number)
        time.sleep(A_WHILE)
        assert process.status is None
    finally:
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("which", ["forward", "shell", "websocat"])
def test_a_signal_that_is_not_ignored_ends_it_as_ever(bed: Bed, bridge: Bridge, which: str) -> None:
    service = start_service(bed).url if which == "shell" else ""
    words, ready = {
        "forward": (("forward", "0", bridge.url), "forwarding"),
        "shell": (("shell", service, "--", "sh", "-c", "echo ready; sleep 600"), "ready"),
        "websocat": (("websocat", "-b", "ws-l:127.0.0.1:0", "tcp:127.0.0.1:1"), "listening on"),
    }[which]
    process = bed.start("nohup", *OURS, *words)
    process.wait_for_line(ready)
    time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 130


# ---- serve


def answers(url: str) -> bool:
    host, _, port = url.removeprefix("ws://").partition(":")
    with socket.socket() as sock:
        sock.settimeout(2)
        return sock.connect_ex((host, int(port))) == 0


SERVE = ("serve", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1", "--drain", "1")


def test_a_service_whose_terminal_hangs_up_ends_in_good_order() -> None:
    with Typist(*OURS, *SERVE) as typist:
        typist.see("ready on")
        typist.hang_up()
        assert typist.wait() == 0


def test_a_service_with_a_tunnel_takes_no_more_once_its_terminal_hangs_up() -> None:
    with Target(echo) as target:
        command = ("serve", "127.0.0.1:0", "--target", f"127.0.0.1:{target.port}", "--drain", "2")
        with Typist(*OURS, *command, cols=200) as typist:
            typist.see(" (auth: none")
            url = "ws://" + typist.output.data.decode().partition("ws://")[2].split()[0]
            with open_tunnel(url) as tunnel:
                assert_echo(tunnel)
                typist.hang_up()
                assert any(not answers(url) for _ in ticks(LIMIT))
                assert typist.wait() == 0


def test_a_service_in_a_terminal_ends_at_a_sighup() -> None:
    with Typist(*OURS, *SERVE) as typist:
        typist.see("ready on")
        typist.send_signal(signal.SIGHUP)
        typist.see("draining")
        assert typist.wait() == 0


@pytest.mark.parametrize("by", ["Ctrl-C", "SIGTERM"])
def test_a_service_in_a_terminal_says_that_it_drains_and_how_to_stop_it_at_once(by: str) -> None:
    def stop(typist: Typist) -> None:
        if by == "Ctrl-C":
            typist.type("\x03")
        else:
            typist.send_signal(signal.SIGTERM)

    with Target(echo) as target, ExitStack() as tunnels:
        command = ("serve", "127.0.0.1:0", "--target", f"127.0.0.1:{target.port}", "--drain", "3600")
        with Typist(*OURS, *command, cols=200) as typist:
            typist.see(" (auth: none")
            url = "ws://" + typist.output.data.decode().partition("ws://")[2].split()[0]
            for _ in range(2):
                assert_echo(tunnels.enter_context(open_tunnel(url)))
            stop(typist)
            typist.see("wstunnel-py: draining for up to 3600 s: 2 tunnels are open; ")
            typist.see("a second Ctrl-C or SIGTERM stops at once\r\n")
            stop(typist)
            assert typist.wait() == 0


def test_a_service_without_a_terminal_only_logs_that_it_drains(bed: Bed) -> None:
    process = bed.start(*OURS, *SERVE)
    process.wait_for_line("ready on")
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0
    assert "draining seconds=1" in process.log() and "second Ctrl-C" not in process.log()


def test_a_service_under_nohup_outlives_its_terminal(bed: Bed, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Typist("sh", "-c", f'exec nohup "$@" >{log} 2>&1', "sh", *OURS, *SERVE) as typist:
        url = _url_in(log)
        typist.hang_up()
        os.kill(typist.pid, signal.SIGHUP)
        time.sleep(A_WHILE)
        assert answers(url)
        assert "reload" not in log.read_text()
        typist.send_signal(signal.SIGTERM)
        assert typist.wait() == 0


def test_a_service_in_a_session_of_its_own_reloads(bed: Bed, tmp_path: Path) -> None:
    """It was started from a terminal, but does not belong to it."""
    log = tmp_path / "log"
    script = f'setsid "$@" --log-file {log} >/dev/null 2>&1 & echo pid=$!; sleep 600'
    with Typist("sh", "-c", script, "sh", *OURS, *SERVE, "--log-format", "json") as typist:
        url = _url_in(log)
        typist.see("\r\n")
        pid = int(typist.output.data.partition(b"pid=")[2].split()[0])
        try:
            typist.hang_up()
            os.kill(pid, signal.SIGHUP)
            for _ in ticks(LIMIT):
                if '"reloaded"' in log.read_text():
                    break
            assert '"reloaded"' in log.read_text()
            assert answers(url)
        finally:
            os.kill(pid, signal.SIGTERM)


def _url_in(log: Path) -> str:
    for _ in ticks(LIMIT):
        if log.exists() and (after := log.read_text().partition("ws://")[2]):
            return "ws://" + after.partition('"')[0].split()[0]
    raise AssertionError(f"not ready: {log}")
