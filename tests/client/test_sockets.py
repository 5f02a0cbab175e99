"""Tunnels from Python: real sockets and streams, that end as sockets do, and say why when they break."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest
import uvloop
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websocket

import tunnel
from tests.bed.processes import Bed, free_port, ticks
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, checksum, echo, read_exactly, read_to_end, reset
from tests.bed.tunnels import start_bridge
from tests.faults.seen import wait_for_tunnels
from tunnel.client import socket_pair as pair
from tunnel.net.pump import Pump

LIMIT = 20.0
DATA = os.urandom(3_000_000)
MODES = pytest.mark.parametrize("no_resume", [False, True], ids=["resumable", "plain"])


@MODES
def test_a_socket_carries_bytes_and_half_closes(bed: Bed, no_resume: bool) -> None:
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with tunnel.open_socket(bridge.url, no_resume=no_resume) as sock:
            assert isinstance(sock, socket.socket)
            sock.settimeout(LIMIT)
            sock.sendall(DATA[:1000])
            assert read_exactly(sock, 1000) == DATA[:1000]
            sock.shutdown(socket.SHUT_WR)
            assert read_to_end(sock) == b""
        wait_for_tunnels(bridge, 0)
        bridge.process.wait_for_line('bytes_in=1000 bytes_out=1000 .*reason="target ended"')


def test_a_target_that_half_closes_first_can_still_be_written_to(bed: Bed) -> None:
    def greet_and_listen(connection: socket.socket) -> bytes:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        return read_to_end(connection)

    with Target(greet_and_listen) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with tunnel.open_socket(bridge.url) as sock:
            sock.settimeout(LIMIT)
            assert read_to_end(sock) == b"hello"
            sock.sendall(DATA)
        assert checksum(bytes(target.result())) == checksum(DATA)  # type: ignore[call-overload]


@MODES
def test_closing_the_socket_ends_the_tunnel(bed: Bed, no_resume: bool) -> None:
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        for _ in range(3):
            tunnel.open_socket(bridge.url, no_resume=no_resume).close()
        wait_for_tunnels(bridge, 0)


@MODES
def test_a_broken_tunnel_is_no_silent_end(bed: Bed, no_resume: bool) -> None:
    def send_and_reset(connection: socket.socket) -> None:
        connection.sendall(b"half")
        read_exactly(connection, 1)
        reset(connection)

    with Target(send_and_reset) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with tunnel.open_socket(bridge.url, no_resume=no_resume) as sock:
            sock.settimeout(LIMIT)
            assert read_exactly(sock, 4) == b"half"
            sock.sendall(b"x")
            with pytest.raises(ConnectionResetError, match="the target behind the bridge broke the connection"):
                sock.recv(1)
            assert isinstance(sock.failure, tunnel.ConnectionLost)


# ---- what nobody expects


class Explosion(Exception):
    """What no part of a relay expects."""


def explode(*_: object) -> None:
    raise Explosion("boom")


def send_for_ever(sock: socket.socket) -> None:
    for _ in ticks(LIMIT):
        sock.sendall(b"x" * 1000)


READERS: dict[str, Callable[[socket.socket], object]] = {
    "recv": lambda sock: sock.recv(10),
    "recv_into": lambda sock: sock.recv_into(bytearray(10)),
    "recvfrom": lambda sock: sock.recvfrom(10),
    "recvmsg": lambda sock: sock.recvmsg(10),
    "makefile": lambda sock: sock.makefile("rb").read(),
    "the descriptor": lambda sock: os.read(sock.fileno(), 10),
    "a select": lambda sock: select.select([sock], [], [], LIMIT)[0][0].recv(10),
    "a send": lambda sock: [sock.send(b"x") for _ in ticks(LIMIT)],
    "a sendall": send_for_ever,
}


@MODES
@pytest.mark.parametrize("reader", READERS)
def test_whatever_ends_a_relay_resets_the_socket(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, no_resume: bool, reader: str
) -> None:
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with tunnel.open_socket(bridge.url, no_resume=no_resume) as sock:
            assert sock.gettimeout() is None
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
            monkeypatch.setattr(Pump, "read_source", explode)
            sock.sendall(b"x")
            if reader == "the descriptor":
                select.select([sock], [], [], LIMIT)
            else:
                sock.settimeout(LIMIT)
            with pytest.raises(ConnectionResetError):
                READERS[reader](sock)
            for again in (sock.recv, sock.send):
                with pytest.raises(ConnectionResetError, match="internal error: Explosion\\('boom'\\)"):
                    again(b"x" if again == sock.send else 10)  # type: ignore[arg-type]
            assert isinstance(sock.failure, tunnel.ConnectionLost)
            assert isinstance(sock.failure.__cause__, Explosion)
        wait_for_tunnels(bridge, 0, 0 if no_resume else 1)


def test_a_session_that_finds_no_descriptors_to_come_back_with_is_reset_in_the_end(bed: Bed) -> None:
    # As a program of its own: what else is closed in this one would make room.
    program = """
import os, resource, signal, sys, tunnel
sock = tunnel.open_socket(sys.argv[1], reconnect_for=5)
sock.settimeout(20)
sock.sendall(b"hello")
assert sock.recv(5) == b"hello"
lowest = os.dup(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.kill(int(sys.argv[2]), signal.SIGKILL)
try:
    print(sock.recv(1))
except ConnectionResetError as exc:
    print(exc)
"""
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        finished = bed.check(sys.executable, "-c", program, bridge.url, str(bridge.process.pid))
    assert "this machine cannot open a tunnel now: Too many open files" in finished.text


def test_a_socket_does_not_tell_the_address_of_this_machine_as_its_peers(bed: Bed) -> None:
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with tunnel.open_socket(bridge.url) as sock:
            assert (sock.getpeername(), sock.getsockname()) == ("", "")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_came_before_a_reset_can_still_be_read(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with tunnel.open_socket(bridge.url) as sock:
            sock.settimeout(LIMIT)
            sock.sendall(b"hello")
            assert sock.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL) == b"hello"
            monkeypatch.setattr(Pump, "read_source", explode)
            sock.sendall(b"x")
            for _ in ticks(LIMIT):
                if sock.failure is not None:
                    break
            assert sock.recv(5) == b"hello"
            with pytest.raises(ConnectionResetError):
                sock.recv(5)


def test_without_descriptors_no_socket_is_opened_and_none_is_left(bed: Bed, sshd: Sshd) -> None:
    # A target of this process would lack descriptors, too.
    bridge = start_bridge(bed, "ours", sshd.port)
    tunnel.open_socket(bridge.url, no_resume=True).close()  # imports what it needs
    wait_for_tunnels(bridge, 0)
    before = len(os.listdir("/proc/self/fd"))
    highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    try:
        for spare in range(1, 16):
            # From the lowest number that is free on, so many can be opened.
            lowest = [fd for fd in range(before + 100) if not os.path.exists(f"/proc/self/fd/{fd}")]
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest[spare - 1], highest[1]))
            try:
                opened.append(tunnel.open_socket(bridge.url, no_resume=True))
                break
            except tunnel.DialError as exc:
                assert "Too many open files" in str(exc)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, highest)
    assert spare > 3 and opened
    opened[0].close()
    wait_for_tunnels(bridge, 0)
    for _ in ticks(LIMIT):
        if len(os.listdir("/proc/self/fd")) <= before:
            break
    assert len(os.listdir("/proc/self/fd")) <= before


def test_without_loopback_the_socket_says_at_least_itself_that_it_broke(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not here")

    monkeypatch.setattr(pair, "_tcp_pair", refuse)
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with tunnel.open_socket(bridge.url) as sock:
            assert sock.family == socket.AF_UNIX
            sock.settimeout(LIMIT)
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
            monkeypatch.setattr(Pump, "read_source", explode)
            sock.sendall(b"x")
            with pytest.raises(ConnectionResetError, match="Explosion"):
                sock.recv(1)


def test_what_cannot_be_opened_says_why_before_there_is_a_socket(bed: Bed) -> None:
    bridge = start_bridge(bed, "ours", free_port())
    with pytest.raises(tunnel.UpgradeRefused, match=r"502.*refused"):
        tunnel.open_socket(bridge.url)
    with pytest.raises(tunnel.UsageError, match="there is no option colour"):
        tunnel.open_socket(bridge.url, colour="red")  # type: ignore[call-arg]
    with pytest.raises(tunnel.UsageError, match="connect_timeout"):
        tunnel.open_socket(bridge.url, connect_timeout=-1)


def test_token_and_headers_go_along(bed: Bed, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port, "--token-file", str(tokens))
        with pytest.raises(tunnel.UpgradeRefused, match="401"):
            tunnel.open_socket(bridge.url, headers={"X-Forwarded-For": "192.0.2.1"})
        with tunnel.open_socket(bridge.url, token="secret", headers={"X-Forwarded-For": "192.0.2.7"}) as sock:
            sock.settimeout(LIMIT)
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
        bridge.process.wait_for_line("forwarded=192.0.2.7")
        assert "secret" not in bridge.process.log()


@pytest.mark.parametrize("place", ["table", "top", "environment"])
def test_the_token_of_the_call_overrides_that_of_the_config_file_and_the_environment(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    tokens, config, other = tmp_path / "tokens", tmp_path / "config.toml", tmp_path / "other"
    for path, text in ((tokens, "secret\n"), (other, "another\n"), (config, "")):
        path.write_text(text)
        path.chmod(0o600)
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port, "--token-file", str(tokens))
        line = f'token-file = "{other}"\n'
        table = f'[hosts.box]\nurl = "{bridge.url}/{{host}}"\n'
        config.write_text({"table": table + line, "top": line + table, "environment": table}[place])
        if place == "environment":
            monkeypatch.setenv("WSTUNNEL_PY_TOKEN", "another")
        with tunnel.open_socket("box", token="secret", config=str(config)) as sock:
            sock.settimeout(LIMIT)
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"


def test_a_program_that_just_ends_leaves_no_session_behind(bed: Bed) -> None:
    program = "import tunnel, sys; s = tunnel.open_socket(sys.argv[1]); s.sendall(b'x'); s.recv(1)"
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        bed.check(sys.executable, "-c", program, bridge.url)
        wait_for_tunnels(bridge, 0)


def test_paramiko_takes_the_socket(bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(sshd.folder / "known_hosts"))
        client.connect("bed", sock=tunnel.open_socket(bridge.url), **sshd.paramiko)
        _, stdout, _ = client.exec_command("echo through; exit 7", timeout=LIMIT)
        assert (stdout.read(), stdout.channel.recv_exit_status()) == (b"through\n", 7)
    wait_for_tunnels(bridge, 0)


# ---- asyncio


def test_streams_are_awaited_or_entered(bed: Bed) -> None:
    async def work(url: str) -> None:
        reader, writer = await tunnel.open_connection(url)
        writer.write(DATA)
        writer.write_eof()
        assert checksum(await reader.read()) == checksum(DATA)
        writer.close()
        await writer.wait_closed()
        async with tunnel.open_connection(url) as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"

    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        asyncio.run(asyncio.wait_for(work(bridge.url), LIMIT))
        wait_for_tunnels(bridge, 0)


def test_a_break_reaches_the_reader_of_a_stream(bed: Bed) -> None:
    async def work(url: str) -> None:
        async with tunnel.open_connection(url) as (reader, writer):
            writer.write(b"x")
            with pytest.raises(ConnectionResetError, match="broke the connection"):
                await reader.read()

    def read_and_reset(connection: socket.socket) -> None:
        read_exactly(connection, 1)
        reset(connection)

    with Target(read_and_reset) as target:
        bridge = start_bridge(bed, "ours", target.port)
        asyncio.run(asyncio.wait_for(work(bridge.url), LIMIT))


def test_whatever_ends_a_relay_reaches_the_reader_of_a_stream(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(url: str) -> None:
        async with tunnel.open_connection(url) as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            monkeypatch.setattr(Pump, "read_source", explode)
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.read()

    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        asyncio.run(asyncio.wait_for(work(bridge.url), LIMIT))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            monkeypatch.undo()
            runner.run(asyncio.wait_for(work(bridge.url), LIMIT))


def test_dialling_does_not_block_the_loop_and_can_be_cancelled() -> None:
    async def work(url: str) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(tunnel.open_connection(url, connect_timeout=2)._open(), 0.3)

    with Target(read_to_end) as target:  # never answers
        asyncio.run(work(f"ws://127.0.0.1:{target.port}"))


def test_asyncssh_connects_through_a_tunnel(bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)

    async def work() -> None:
        async with tunnel.ssh.connect(bridge.url, host_key_alias="bed", **sshd.asyncssh) as connection:
            finished = await connection.run("echo through; exit 7")
            assert (finished.stdout, finished.exit_status) == ("through\n", 7)

    asyncio.run(asyncio.wait_for(work(), LIMIT))
    wait_for_tunnels(bridge, 0)


# ---- forwarded ports


def start_forward(bed: Bed, *words: str) -> tuple[str, int]:
    """Start ``forward``; return where it listens and its number among the bed's processes."""
    process = bed.start(sys.executable, "-m", "tunnel", "forward", *words)
    return process.wait_for_line(r"^forwarding (\S+) →")[1], len(bed.processes) - 1


def test_ssh_goes_through_a_forwarded_port(bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    address, _ = start_forward(bed, bridge.url)
    host, _, port = address.rpartition(":")
    assert host == "127.0.0.1"
    config = sshd.write_client_config(bed.folder / "config", ("unused",))
    direct = ("ssh", "-F", str(config), "-o", "ProxyCommand=none", "-p", port, "127.0.0.1")
    runs = [subprocess.Popen([*direct, f"echo {n}"], stdout=subprocess.PIPE, text=True) for n in range(5)]
    assert [run.communicate(timeout=LIMIT)[0] for run in runs] == [f"{n}\n" for n in range(5)]
    wait_for_tunnels(bridge, 0)


def test_a_forwarded_unix_socket_is_for_its_owner_only(bed: Bed, short_folder: Path) -> None:
    path = short_folder / "socket"
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        address, number = start_forward(bed, f"unix:{path}", bridge.url)
        assert address == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(LIMIT)
            sock.connect(str(path))
            sock.sendall(DATA)
            sock.shutdown(socket.SHUT_WR)
            assert checksum(read_to_end(sock)) == checksum(DATA)
        bed.processes[number].send_signal(signal.SIGTERM)
        assert bed.processes[number].wait(LIMIT) == 143
        assert not path.exists()


def test_a_forward_that_is_stopped_ends_its_tunnels_well(bed: Bed) -> None:
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        address, number = start_forward(bed, "0", bridge.url)
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), LIMIT) as sock:
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
            bed.processes[number].send_signal(signal.SIGINT)
            assert bed.processes[number].wait(LIMIT) == 130
            assert read_to_end(sock) == b""
        wait_for_tunnels(bridge, 0)


def test_a_forward_says_what_to_do_about_a_tunnel_that_broke(bed: Bed) -> None:
    def refuse(connection: ServerConnection) -> None:
        connection.recv()
        connection.close(1009)

    with serve_websocket(refuse, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address, number = start_forward(bed, "0", f"ws://127.0.0.1:{server.socket.getsockname()[1]}")
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), LIMIT) as sock:
            sock.sendall(b"hello")
            bed.processes[number].wait_for_line(r"1009; set a smaller --max-message")
        server.shutdown()
        thread.join(LIMIT)


def test_a_forward_whose_bridge_is_gone_says_so_for_each_connection_and_goes_on(bed: Bed) -> None:
    bridge = start_bridge(bed, "ours", free_port())
    address, number = start_forward(bed, bridge.url)
    for _ in range(2):
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        with socket.create_connection(place, LIMIT) as sock, pytest.raises(ConnectionResetError):
            sock.recv(1)
    log = bed.processes[number].err.read_text()
    assert log.count("\n") == 2 and log.count("answered 502: the target cannot be reached") == 2
    assert bed.processes[number].status is None


def open_descriptors(pid: int) -> set[int]:
    """Return the descriptors of a process, once those of its last connection are closed."""
    before: set[int] = set()
    for _ in ticks(LIMIT, 0.2):
        now = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        if now == before:
            break
        before = now
    return before


def test_a_forward_without_descriptors_resets_the_connection_and_goes_on(bed: Bed) -> None:
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        address, number = start_forward(bed, bridge.url)
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        process = bed.processes[number]
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        for spare in (1, 2, 3, 4):
            used = open_descriptors(process.pid)
            lowest = [fd for fd in range(max(used) + 20) if fd not in used]
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (lowest[spare], limits[1]))
            with pytest.raises(ConnectionResetError), socket.create_connection(place, LIMIT) as sock:
                assert sock.recv(1) != b""
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        with socket.create_connection(place, LIMIT) as sock:
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
        assert "Too many open files" in process.err.read_text() and "Traceback" not in process.log()


def test_a_forward_that_cannot_even_accept_waits_and_goes_on(bed: Bed) -> None:
    with Target(echo) as target:
        address, number = start_forward(bed, start_bridge(bed, "ours", target.port).url)
        process = bed.processes[number]
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        used = open_descriptors(process.pid)
        lowest = next(fd for fd in range(max(used) + 2) if fd not in used)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (lowest, limits[1]))
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), LIMIT) as sock:
            process.wait_for_line("cannot accept connections at the moment: Too many open files")
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "HOST is missing"),
        (("a", "b", "c"), "unexpected 'c'; usage: wstunnel-py forward [OPTIONS] [LISTEN] HOST"),
        (("box", "2222"), "'box' is not LISTEN, which is PORT, HOST:PORT or unix:PATH; usage: "),
        (("nonsense:port", "ws://127.0.0.1:1"), "LISTEN: 'nonsense:port' is not HOST:PORT"),
        (("192.0.2.1:0", "ws://127.0.0.1:1"), "cannot listen on 192.0.2.1:0"),
        (("--stdio-threads", "ws://127.0.0.1:1"), "there is no option --stdio-threads"),
    ],
)
def test_a_forward_that_cannot_be_is_one_line(bed: Bed, words: tuple[str, ...], problem: str) -> None:
    done = bed.run(sys.executable, "-m", "tunnel", "forward", *words)
    assert done.status in (2, 69)
    assert done.stderr.startswith(f"wstunnel-py: {problem}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "patch",
    ["from gevent import monkey; monkey.patch_all()", "import eventlet; eventlet.monkey_patch()"],
    ids=["gevent", "eventlet"],
)
@pytest.mark.parametrize("before", ["", "from tunnel import open_socket; "], ids=["before", "after"])
@MODES
def test_programs_that_are_patched_for_green_threads_have_tunnels_too(
    bed: Bed, patch: str, before: str, no_resume: bool
) -> None:
    """Whether they are patched before or after this library is imported."""
    program = (
        f"{before}{patch}; import tunnel, sys; s = tunnel.open_socket(sys.argv[1], no_resume={no_resume}); "
        "s.settimeout(20); s.sendall(b'hello'); print(s.recv(5)); s.close()"
    )
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        assert bed.check(sys.executable, "-W", "ignore", "-c", program, bridge.url).text == "b'hello'\n"


def test_a_program_in_which_nothing_can_poll_still_has_tunnels(bed: Bed) -> None:
    program = (
        "import select, selectors; del select.poll, selectors.PollSelector; import tunnel, sys; "
        "s = tunnel.open_socket(sys.argv[1]); s.settimeout(20); s.sendall(b'hello'); print(s.recv(5))"
    )
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        assert bed.check(sys.executable, "-c", program, bridge.url).text == "b'hello'\n"


def test_importing_what_opens_sockets_needs_neither_asyncio_nor_asyncssh(bed: Bed) -> None:
    program = "import tunnel, sys, json; tunnel.open_socket; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(bed.check(sys.executable, "-c", program).stdout)
    assert not {"asyncio", "asyncssh", "click", "websockets", "logging"} & set(modules)
