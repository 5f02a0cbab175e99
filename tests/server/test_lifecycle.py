"""The course of ``wstunnel-py serve``: ready line, warnings, draining, signals, options, both event loops."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.bed.processes import Bed, Process
from tests.bed.targets import Target
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.conftest import StartBridge
from tests.server.clients import LIMIT, ask, assert_echo, assert_received, dial, open_tunnel, read_answer, request_head

LOOPS = pytest.mark.parametrize("loop", [(), ("--uvloop",)], ids=["asyncio", "uvloop"])


def stop(process: Process, number: int = signal.SIGTERM) -> None:
    """Ask the bridge to stop, and wait until it has begun to."""
    process.send_signal(number)
    process.wait_for_line("draining")


# ---- the start


def test_the_ready_line_has_addresses_target_and_authentication(start: StartBridge, echo_target: Target) -> None:
    bridge = start()
    port = bridge.url.rpartition(":")[2]
    assert bridge.process.log() == (
        f"wstunnel-py: bridge ready on ws://127.0.0.1:{port} → 127.0.0.1:{echo_target.port} "
        "(auth: none, resume: 3600 s)\n"
    )


def test_a_bridge_that_is_open_to_the_network_warns(bed: Bed, tmp_path: Path, echo_target: Target) -> None:
    process = bed.start(*OURS, "serve", "--listen", "0.0.0.0:0")
    process.wait_for_line("wstunnel-py: warning: anyone who can reach this address may open tunnels: see --token-file")
    tokens = tmp_path / "tokens"
    tokens.write_text("token\n")
    target = ("--target", f"127.0.0.1:{echo_target.port}")
    guarded = bed.start(*OURS, "serve", "--listen", "0.0.0.0:0", "--token-file", str(tokens), *target)
    guarded.wait_for_line("ready on")
    stop(guarded)
    assert guarded.wait(LIMIT) == 0
    assert "warning" not in guarded.log()


def test_a_bridge_takes_all_the_descriptors_that_it_may_have_and_warns_of_too_few(bed: Bed) -> None:
    limits = ("sh", "-c", 'ulimit -S -n 64; ulimit -H -n 500; exec "$@"', "sh")
    process = bed.start(*limits, *OURS, "serve", "--listen", "127.0.0.1:0", "--max-tunnels", "300")
    process.wait_for_line(
        r"warning: 500 descriptors \(ulimit -n\) are too few for --max-tunnels 300: the limit is 114 tunnels"
    )
    assert re.search(r"Max open files +500 +500 ", Path(f"/proc/{process.pid}/limits").read_text())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--target", "nowhere"), "--target: 'nowhere' is not HOST:PORT or unix:PATH"),
        (("--listen", "ssh"), "--listen: 'ssh' is not HOST:PORT or unix:PATH"),
        (("--listen", "65536"), "--listen: ':65536' is not HOST:PORT or unix:PATH"),
        (("--path", "ssh"), "--path: 'ssh' is not a path that begins with /"),
        (("--path", "/healthz"), "--path: /healthz is reserved: the bridge reports its health there"),
        (("--unix-mode", "rw"), "--unix-mode: 'rw' is not a mode such as 0600"),
        (("--drain", "nan"), "--drain: nan is not between 0 and 86400"),
        (("--drain", "-1"), "--drain: -1.0 is not between 0 and 86400"),
        (("--ping-interval", "inf"), "--ping-interval: inf is not between 0.1 and 86400"),
        (("--max-tunnels", "0"), "--max-tunnels: 0 is not between 1 and 1000000"),
        (("--dial-timeout", "soon"), "invalid value for '--dial-timeout'"),
        (("--log-format", "xml"), "invalid value for '--log-format'"),
        (("--no-such-option",), "there is no option --no-such-option; see wstunnel-py serve --help"),
        (("--target", "22"), "--target: '22' has no host: write 127.0.0.1:22 for a port of this machine"),
        (
            ("--target", "ssh://127.0.0.1:22"),
            "--target: 'ssh://127.0.0.1:22' is a URL: write HOST:PORT, without ssh://",
        ),
        (("ws://0.0.0.0:9001",), "--listen: 'ws://0.0.0.0:9001' is a URL: write HOST:PORT, without ws://"),
        (("extra",), "--listen: 'extra' is not HOST:PORT or unix:PATH"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_line(bed: Bed, options: tuple[str, ...], problem: str) -> None:
    finished = bed.run(*OURS, "serve", *options, seconds=20)
    assert finished.status == 2
    assert finished.stderr.startswith(f"wstunnel-py: {problem}") and finished.stderr.count("\n") == 1


def test_options_may_stand_in_the_environment(bed: Bed, echo_target: Target) -> None:
    process = bed.start(
        *(*OURS, "serve"),
        env={
            "WSTUNNEL_PY_SERVE_LISTEN": "127.0.0.1:0 [::1]:0",
            "WSTUNNEL_PY_SERVE_TARGET": f"127.0.0.1:{echo_target.port}",
            "WSTUNNEL_PY_SERVE_PATH": "/ssh",
        },
    )
    line = process.wait_for_line(r"ready on (ws://127\.0\.0\.1:\d+/ssh), (ws://\[::1\]:\d+/ssh) →")
    for url in (line[1], line[2]):
        with open_tunnel(url) as tunnel:
            assert_echo(tunnel)


def test_uvloop_is_used_only_when_asked_for(bed: Bed) -> None:
    for options, used in (((), False), (("--uvloop",), True)):
        process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", *options)
        process.wait_for_line("ready on")
        assert ("uvloop" in Path(f"/proc/{process.pid}/maps").read_text()) is used


def test_uvloop_asked_for_but_not_installed_is_one_line(bed: Bed) -> None:
    without = "import sys; sys.modules['uvloop'] = None; from tunnel.cli.main import main; sys.exit(main(sys.argv[1:]))"
    finished = bed.run(sys.executable, "-c", without, "serve", "--uvloop", seconds=20)
    assert finished.status == 2
    assert finished.stderr == (
        'wstunnel-py: --uvloop: uvloop is not installed: see "Optional packages" in docs/install.md\n'
    )


# ---- tunnels


@LOOPS
def test_many_tunnels_carry_many_bytes_at_once(start: StartBridge, loop: tuple[str, ...]) -> None:
    bridge = start(*loop)
    with ExitStack() as stack:
        tunnels = [stack.enter_context(open_tunnel(bridge.url)) for _ in range(20)]
        for n, tunnel in enumerate(tunnels):
            tunnel.send(bytes([n]) * 300_000)
        for n, tunnel in enumerate(tunnels):
            assert_received(tunnel, bytes([n]) * 300_000)
    assert_no_descriptors_are_left(bridge)


def assert_no_descriptors_are_left(bridge: Bridge) -> None:
    """All sockets of tunnels are closed: only the listener and the event loop's own are left."""
    end = time.monotonic() + LIMIT
    while True:
        left = []
        for fd in Path(f"/proc/{bridge.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                left += [fd] if "socket" in str(fd.readlink()) else []
        if len(left) <= 5:
            return
        assert time.monotonic() < end, left
        time.sleep(0.05)


@LOOPS
def test_refusals_leave_nothing_behind(start: StartBridge, loop: tuple[str, ...]) -> None:
    bridge = start(*loop)
    for _ in range(30):
        assert ask(bridge.url, headers={}).status == 426
    assert_no_descriptors_are_left(bridge)


def test_a_silent_client_is_pinged_and_given_up(start: StartBridge) -> None:
    bridge = start("--ping-interval", "0.2", "--ping-timeout", "0.5")
    with dial(bridge.url) as sock:
        sock.sendall(request_head())
        received = b""
        while b"\r\n\r\n\x89\x00" not in received:  # a ping
            chunk = sock.recv(65536)
            assert chunk, received
            received += chunk
        bridge.process.wait_for_line("reason=.*nothing was received from the peer")


# ---- the end


@LOOPS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_without_tunnels_it_ends_at_once(start: StartBridge, number: int, loop: tuple[str, ...]) -> None:
    bridge = start(*loop)
    stop(bridge.process, number)
    assert bridge.process.wait(10) == 0


@LOOPS
def test_tunnels_go_on_while_it_drains_and_no_new_ones_come(start: StartBridge, loop: tuple[str, ...]) -> None:
    bridge = start(*loop)
    with open_tunnel(bridge.url) as tunnel:
        stop(bridge.process)
        with pytest.raises(OSError):
            for _ in range(100):  # until the listener is closed
                dial(bridge.url).close()
                time.sleep(0.05)
        assert_echo(tunnel, b"x" * 1_000_000)
        assert bridge.process.status is None
    assert bridge.process.wait(10) == 0
    assert re.search('bytes_in=1000000 .* reason="(client|target) ended"', bridge.process.log())


@LOOPS
def test_tunnels_that_are_left_after_that_are_closed_with_1001(start: StartBridge, loop: tuple[str, ...]) -> None:
    bridge = start("--drain", "0.5", *loop)
    with open_tunnel(bridge.url) as tunnel:
        stop(bridge.process)
        with pytest.raises(ConnectionClosed) as closed:
            tunnel.recv(timeout=LIMIT)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "drained for 0.5 s")
    assert bridge.process.wait(10) == 0
    assert 'reason="drained for 0.5 s"' in bridge.process.log()


@LOOPS
def test_a_second_signal_closes_them_at_once(start: StartBridge, loop: tuple[str, ...]) -> None:
    bridge = start("--drain", "3600", *loop)
    with open_tunnel(bridge.url) as tunnel:
        stop(bridge.process)
        assert_echo(tunnel)
        bridge.process.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionClosed) as closed:
            tunnel.recv(timeout=LIMIT)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
    assert bridge.process.wait(10) == 0


def test_a_client_that_ignores_its_close_does_not_keep_the_bridge(start: StartBridge) -> None:
    bridge = start("--drain", "0")
    with dial(bridge.url) as sock:
        sock.sendall(request_head())
        assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
        stop(bridge.process)
        assert bridge.process.wait(15) == 0


def test_a_request_that_comes_too_late_gets_an_error_that_says_so(start: StartBridge) -> None:
    bridge = start()
    with open_tunnel(bridge.url), dial(bridge.url) as late, dial(bridge.url) as checker:
        late.sendall(request_head()[:20])
        checker.sendall(b"GET /heal")
        ask(bridge.url, "/healthz")  # accepted behind these two
        stop(bridge.process)
        late.sendall(request_head()[20:])
        refused = read_answer(late)
        assert refused.status == 503 and refused.json["error"] == "draining"
        assert refused.headers["retry-after"] == "5"
        checker.sendall(b"thz HTTP/1.1\r\nHost: x\r\n\r\n")
        health = read_answer(checker)
        assert health.status == 503
        assert health.json == {"status": "draining", "tunnels": 1, "detached": 0, "draining": True}


def test_a_request_that_never_ends_does_not_keep_the_bridge_from_ending(start: StartBridge) -> None:
    bridge = start("--drain", "0.2", "--handshake-timeout", "600")
    with dial(bridge.url) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        ask(bridge.url, "/healthz")
        stop(bridge.process)
        assert bridge.process.wait(10) == 0


def test_sighup_without_anything_to_reload_changes_nothing(start: StartBridge) -> None:
    bridge = start()
    with open_tunnel(bridge.url) as tunnel:
        bridge.process.send_signal(signal.SIGHUP)
        assert_echo(tunnel)
    assert bridge.process.status is None


def test_a_tail_is_delivered_before_the_close_of_a_drain(bed: Bed) -> None:
    """What the bridge has read from the target reaches the client before 1001 does."""
    data, said = b"tail" * 100_000, threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(data)
        said.set()
        connection.recv(1)

    with Target(talk) as target:
        bridge = start_bridge(bed, "ours", target.port, "--drain", "4")
        with open_tunnel(bridge.url) as tunnel:
            assert said.wait(LIMIT)
            stop(bridge.process)
            received = b""
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    message = tunnel.recv(timeout=LIMIT)
                    assert isinstance(message, bytes)
                    received += message
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
            assert received == data
