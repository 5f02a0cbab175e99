"""Where a bridge listens: TCP and Unix sockets, several at once, addresses in use, and a lack of descriptors."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import stat
from pathlib import Path

import pytest

from tests.bed.processes import Bed, free_port
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tests.conftest import StartBridge
from tests.server.clients import LIMIT, ask, assert_echo, dial, open_tunnel, port_of


def connect_unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(LIMIT)
    sock.connect(str(path))
    return sock


def refused_start(bed: Bed, *options: str) -> str:
    """Start a bridge that cannot listen; return its error."""
    finished = bed.run(*OURS, "serve", *options, seconds=20)
    assert finished.status == 69, finished.stderr
    assert finished.stderr.count("\n") == 1
    return finished.stderr.strip()


def test_a_bridge_can_listen_on_several_addresses(bed: Bed, echo_target: Target, short_folder: Path) -> None:
    path = short_folder / "bridge"
    process = bed.start(
        *(*OURS, "serve", "--target", f"127.0.0.1:{echo_target.port}"),
        *("--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", f"unix:{path}"),
    )
    line = process.wait_for_line(r"ready on (ws://127\.0\.0\.1:\d+), (ws://\[::1\]:\d+), unix:(\S+) →")
    assert line[3] == str(path)
    for url in (line[1], line[2]):
        with open_tunnel(url) as tunnel:
            assert_echo(tunnel)
    with connect_unix(path) as sock, open_tunnel("ws://bridge.test/", sock=sock) as tunnel:
        assert_echo(tunnel)
    process.wait_for_line("tunnel client=unix target=")
    process.wait_for_line(r"tunnel client=\[::1\]:\d+ target=")


@pytest.mark.parametrize("host", ["", "*"])
def test_no_host_means_all_addresses_of_both_families(bed: Bed, echo_target: Target, host: str) -> None:
    process = bed.start(*OURS, "serve", "--listen", f"{host}:0", "--target", f"127.0.0.1:{echo_target.port}")
    port = process.wait_for_line(r"ready on ws://\[::\]:(\d+) ")[1]
    for address in ("127.0.0.1", "[::1]"):
        with open_tunnel(f"ws://{address}:{port}") as tunnel:
            assert_echo(tunnel)
    process.wait_for_line(r"tunnel client=127\.0\.0\.1:\d+ ")  # not as ::ffff:127.0.0.1


@pytest.mark.parametrize("words", [("0",), (":0",), ("--listen", "0"), ("--listen=:0",)], ids=" ".join)
def test_a_port_alone_means_all_addresses(bed: Bed, echo_target: Target, words: tuple[str, ...]) -> None:
    process = bed.start(*OURS, "serve", *words, "--target", f"127.0.0.1:{echo_target.port}")
    port = process.wait_for_line(r"ready on ws://\[::\]:(\d+) ")[1]
    for address in ("127.0.0.1", "[::1]"):
        with open_tunnel(f"ws://{address}:{port}") as tunnel:
            assert_echo(tunnel)


def test_the_port_in_the_variable_may_be_alone(bed: Bed) -> None:
    process = bed.start(*OURS, "serve", env={"WSTUNNEL_PY_SERVE_LISTEN": "0 127.0.0.1:0"})
    process.wait_for_line(r"ready on ws://\[::\]:\d+, ws://127\.0\.0\.1:\d+ ")


def test_an_address_without_an_option_is_one_to_listen_on(bed: Bed, echo_target: Target) -> None:
    target = ("--target", f"127.0.0.1:{echo_target.port}")
    process = bed.start(*OURS, "serve", "[::1]:0", *target, "127.0.0.1:0", "--listen", "127.0.0.2:0")
    urls = process.wait_for_line(r"ready on (.+) →")[1].split(", ")
    assert [url.rpartition(":")[0] for url in urls] == ["ws://127.0.0.2", "ws://[::1]", "ws://127.0.0.1"]
    for url in urls:
        with open_tunnel(url) as tunnel:
            assert_echo(tunnel)


def test_an_address_takes_the_place_of_the_variable(bed: Bed) -> None:
    variable = {"WSTUNNEL_PY_SERVE_LISTEN": "[::1]:0"}
    process = bed.start(*OURS, "serve", "127.0.0.1:0", env=variable)
    process.wait_for_line(r"ready on ws://127\.0\.0\.1:\d+ →")
    refused = bed.run(*OURS, "serve", "nowhere", env=variable)
    assert refused.status == 2
    assert refused.stderr == "wstunnel-py: --listen: 'nowhere' is not HOST:PORT or unix:PATH\n"


def test_a_name_is_resolved(bed: Bed, echo_target: Target) -> None:
    process = bed.start(*OURS, "serve", "--listen", "localhost:0", "--target", f"127.0.0.1:{echo_target.port}")
    url = process.wait_for_line(r"ready on (ws://[^\s,]+)")[1]
    with open_tunnel(url) as tunnel:
        assert_echo(tunnel)


def test_a_port_in_use_is_one_line(bed: Bed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused_start(bed, "--listen", f"127.0.0.1:{port}")
        terminals = refused_start(bed, "--listen", "none", "--pty", f"127.0.0.1:{port}")
    problem = f"wstunnel-py: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert (
        line == f"{problem}; is a bridge running already? Stop it, or choose another address, or none (--listen none)"
    )
    assert terminals == f"{problem}; another program listens there: stop it, or choose another --pty"


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("192.0.2.1:0", "cannot listen on 192.0.2.1:0: Cannot assign requested address"),
        ("no-such-host.invalid:0", "cannot listen on no-such-host.invalid:0: "),
        ("unix:/no/such/folder/socket", "cannot listen on unix:/no/such/folder/socket: No such file or directory"),
        (f"unix:/tmp/{'x' * 120}", f"cannot listen on unix:/tmp/{'x' * 120}: AF_UNIX path too long"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_line(bed: Bed, address: str, line: str) -> None:
    assert refused_start(bed, "--listen", address).startswith(f"wstunnel-py: {line}")


def test_a_failing_address_leaves_nothing_of_the_others(bed: Bed, short_folder: Path) -> None:
    path = short_folder / "bridge"
    refused_start(bed, "--listen", f"unix:{path}", "--listen", "192.0.2.1:0")
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "mode"), [((), 0o600), (("--unix-mode", "0660"), 0o660), (("--unix-mode", "666"), 0o666)]
)
def test_a_unix_socket_has_the_mode_asked_for_and_is_removed_at_the_end(
    bed: Bed, echo_target: Target, short_folder: Path, options: tuple[str, ...], mode: int
) -> None:
    path = short_folder / "bridge"
    process = bed.start(
        *OURS, "serve", "--listen", f"unix:{path}", "--target", f"127.0.0.1:{echo_target.port}", *options
    )
    process.wait_for_line("ready on")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    process.end(LIMIT)
    assert process.status == 0
    assert not path.exists()


def test_a_socket_left_behind_by_a_killed_bridge_is_replaced(bed: Bed, short_folder: Path) -> None:
    path = short_folder / "bridge"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    process = bed.start(*OURS, "serve", "--listen", f"unix:{path}")
    process.wait_for_line("ready on")
    connect_unix(path).close()


def test_a_socket_that_somebody_answers_on_is_left_alone(bed: Bed, short_folder: Path) -> None:
    path = short_folder / "bridge"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert refused_start(bed, "--listen", f"unix:{path}").startswith(
            f"wstunnel-py: cannot listen on unix:{path}: Address already in use; is a bridge running"
        )
        connect_unix(path).close()


def test_a_file_that_is_no_socket_is_left_alone(bed: Bed, short_folder: Path) -> None:
    path = short_folder / "bridge"
    path.write_text("precious")
    assert refused_start(bed, "--listen", f"unix:{path}").endswith(f"{path}: a file that is not a socket exists there")
    assert path.read_text() == "precious"


def test_a_bridge_does_not_remove_the_socket_of_its_successor(bed: Bed, short_folder: Path) -> None:
    path = short_folder / "bridge"
    process = bed.start(*OURS, "serve", "--listen", f"unix:{path}")
    process.wait_for_line("ready on")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        process.end(LIMIT)
        assert process.status == 0
        assert path.is_socket()


def test_a_bridge_survives_a_lack_of_descriptors_and_says_so_once(bed: Bed, echo_target: Target) -> None:
    process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{echo_target.port}")
    url = process.wait_for_line(r"ready on (ws://[^\s,]+)")[1]
    open_files = len(os.listdir(f"/proc/{process.pid}/fd"))
    with open_tunnel(url) as healthy:
        assert_echo(healthy)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_files + 10, open_files + 10))
        connections = [dial(url) for _ in range(60)]
        process.wait_for_line(r'cannot-accept listener=127\.0\.0\.1:\d+ reason="Too many open files"')
        # Silent clients are evicted, also for a tunnel, which needs two descriptors.
        assert ask(url, "/healthz", headers={}).status == 200
        with open_tunnel(url) as tunnel:
            assert_echo(tunnel)
        assert_echo(healthy)
        for connection in connections:
            connection.close()
    assert len(re.findall("cannot-accept", process.log())) == 1


def test_a_free_port_is_taken_and_shown_for_port_0(start: StartBridge) -> None:
    assert 0 < port_of(start().url) < 65536


def test_a_bridge_can_start_again_at_once_on_its_port(bed: Bed, echo_target: Target) -> None:
    port = free_port()
    for _ in range(2):
        process = bed.start(
            *OURS, "serve", "--listen", f"127.0.0.1:{port}", "--target", f"127.0.0.1:{echo_target.port}"
        )
        process.wait_for_line("ready on")
        with open_tunnel(f"ws://127.0.0.1:{port}") as tunnel:
            assert_echo(tunnel)
            process.send_signal(signal.SIGTERM)
            process.wait_for_line("draining")
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0
