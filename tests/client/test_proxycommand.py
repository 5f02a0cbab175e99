"""The relay as its user runs it: a process with all kinds of standard streams, signals, and peers that misbehave.

Each test talks to a bridge of ours, or to a WebSocket server of `websockets` where the server's part is scripted.
"""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.bed.processes import Bed, Process, ticks
from tests.bed.targets import Target, echo, read_exactly, read_to_end
from tests.bed.tunnels import OURS, Bridge, start_bridge

LIMIT = 30.0


@pytest.fixture
def echo_bridge(bed: Bed) -> Iterator[Bridge]:
    """A bridge of ours in front of a target that sends everything back."""
    with Target(echo) as target:
        yield start_bridge(bed, "ours", target.port)


@contextlib.contextmanager
def websocket_server(script: Callable[[ServerConnection], None], **options: float | None) -> Iterator[str]:
    """Serve ``script`` with `websockets`, and yield the URL."""
    settings: dict[str, object] = {"ping_interval": None, "max_size": None, **options}
    with serve(script, "127.0.0.1", 0, **settings) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(LIMIT)


def start(bed: Bed, url: str, *options: str) -> Process:
    """Start the client with a pipe as its standard input."""
    return bed.start(*OURS, "connect", *options, url, stdin=subprocess.PIPE)


def wait_for_output(process: Process, size: int, seconds: float = LIMIT) -> None:
    for _ in ticks(seconds):
        if process.out.stat().st_size >= size:
            return
    raise AssertionError(f"{process.out.stat().st_size} of {size} bytes came\n{process.err.read_text()}")


# ---- what standard input and output can be


@pytest.mark.parametrize("options", [(), ("--stdio-threads",)])
def test_a_file_goes_through_whole(bed: Bed, echo_bridge: Bridge, tmp_path: Path, options: tuple[str, ...]) -> None:
    sample = tmp_path / "sample"
    sample.write_bytes(os.urandom(5_000_001))
    done = bed.check(*OURS, "connect", *options, echo_bridge.url, stdin=sample)
    assert done.stdout == sample.read_bytes()
    assert done.stderr == ""


@pytest.mark.parametrize("options", [(), ("--stdio-threads",)])
def test_a_pipe_carries_each_word_as_it_comes(bed: Bed, echo_bridge: Bridge, options: tuple[str, ...]) -> None:
    client = start(bed, echo_bridge.url, *options)
    for i in range(5):
        client.feed(b"word")
        wait_for_output(client, 4 * (i + 1))
    client.end_input()
    assert client.wait(LIMIT) == 0
    assert client.out.read_bytes() == b"word" * 5


def test_socket_pairs_serve_as_standard_input_and_output(echo_bridge: Bridge) -> None:
    """As Node.js gives them to its children."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(LIMIT)
        process = subprocess.Popen([*OURS, "connect", echo_bridge.url], stdin=theirs.fileno(), stdout=theirs.fileno())
        theirs.close()
        data = os.urandom(300_000)

        def send() -> None:
            ours.sendall(data)
            ours.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert read_to_end(ours) == data
        sender.join()
        assert process.wait(LIMIT) == 0


def test_a_terminal_can_be_typed_into(echo_bridge: Bridge) -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    process = subprocess.Popen(
        [*OURS, "connect", echo_bridge.url], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True
    )
    try:
        os.write(ours, b"typed")
        heard = b""
        while len(heard) < 5:
            heard += os.read(ours, 100)
        assert heard == b"typed"
        assert os.get_blocking(theirs), "a terminal is shared with the shell and must stay as it is"
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=LIMIT)
        os.close(ours)
        os.close(theirs)
    assert errors.count("\n") == 1 and "ProxyCommand" in errors, "one line tells what this program is for"


def test_a_pipes_blocking_mode_is_given_back(bed: Bed, echo_bridge: Bridge) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x")
    os.close(writer)
    process = bed.start(*OURS, "connect", echo_bridge.url, stdin=reader)
    assert process.wait(LIMIT) == 0
    assert os.get_blocking(reader)
    os.close(reader)


@pytest.mark.parametrize(
    ("redirection", "line"), [("<&-", "cannot read standard input"), (">&-", "cannot write to standard output")]
)
def test_closed_standard_streams_are_reported_in_one_line(
    bed: Bed, echo_bridge: Bridge, redirection: str, line: str
) -> None:
    done = bed.run("sh", "-c", f'exec "$@" {redirection}', "sh", *OURS, "connect", echo_bridge.url)
    assert done.status == 69
    assert line in done.stderr and done.stderr.count("\n") == 1


# ---- what ends it


def test_sighup_sends_what_was_read_and_is_success(bed: Bed) -> None:
    began = threading.Event()

    def listen(connection: socket.socket) -> bytes:
        first = read_exactly(connection, 6)
        began.set()
        return first + read_to_end(connection)

    with Target(listen) as target:
        client = start(bed, start_bridge(bed, "ours", target.port).url)
        client.feed(b"first ")
        assert began.wait(LIMIT)
        client.feed(b"last words")
        client.send_signal(signal.SIGHUP)
        assert client.wait(LIMIT) == 0
        assert target.result() == b"first last words"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_other_signals_break_the_stream_off(bed: Bed, number: signal.Signals, status: int) -> None:
    with Target(read_to_end) as target:
        client = start(bed, start_bridge(bed, "ours", target.port).url, "-v")
        client.wait_for_line("are connected")
        client.send_signal(number)
        assert client.wait(LIMIT) == status
        with pytest.raises(ConnectionResetError):
            target.result()


def test_a_closed_reader_ends_it_even_when_nothing_moves(bed: Bed, echo_bridge: Bridge) -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(
        [*OURS, "connect", echo_bridge.url], stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.PIPE
    ) as process:
        os.close(writer)
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        assert os.read(reader, 1) == b"x"
        os.close(reader)
        assert process.wait(LIMIT) == 141
        assert process.stderr.read() == b""


def test_the_peers_close_ends_it_at_once_though_input_stays_open(bed: Bed) -> None:
    with websocket_server(lambda connection: connection.send(b"bye")) as url:
        client = start(bed, url)
        assert client.wait(LIMIT) == 0
        assert client.out.read_bytes() == b"bye"


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        (1001, 75, "the bridge is stopping: because"),
        (4001, 69, "the target behind the bridge broke the connection: because"),
        (4003, 75, "the tunnel is over: a time limit passed at the peer: because"),
        (4002, 69, "did not accept everything that was sent: because"),
        (1011, 76, "closed the tunnel with code 1011: because"),
    ],
)
def test_what_a_close_code_means_is_one_line_and_an_exit_code(bed: Bed, code: int, status: int, words: str) -> None:
    with websocket_server(lambda connection: connection.close(code, "because")) as url:
        client = start(bed, url)
        assert client.wait(LIMIT) == status
        errors = client.err.read_text()
        assert words in errors and errors.count("\n") == 1


def test_a_peer_that_hangs_up_without_a_close_is_an_error_behind_its_data(bed: Bed) -> None:
    def script(connection: ServerConnection) -> None:
        connection.send(b"half a ")
        connection.socket.shutdown(socket.SHUT_RDWR)

    with websocket_server(script) as url:
        client = start(bed, url)
        assert client.wait(LIMIT) == 69
        assert client.out.read_bytes() == b"half a "
        assert "connection lost" in client.err.read_text()


def test_a_violation_is_answered_with_its_code_and_reported(bed: Bed) -> None:
    answers: list[int | None] = []

    def script(connection: ServerConnection) -> None:
        connection.socket.sendall(b"\x82\x04good" + b"\xc2\x00")
        with contextlib.suppress(ConnectionClosed):
            connection.recv(timeout=LIMIT)
        answers.append(connection.close_code)

    with websocket_server(script) as url:
        client = start(bed, url)
        assert client.wait(LIMIT) == 76
        assert client.out.read_bytes() == b"good"
        assert "reserved bit" in client.err.read_text()
        for _ in ticks(LIMIT):  # the server's thread may be behind the client's end
            if answers:
                break
    assert answers == [1002]


def test_a_peer_that_falls_silent_is_given_up_in_time(bed: Bed) -> None:
    """Frozen by SIGSTOP, as a paused sandbox is: the connection stays, but nothing comes."""
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        client = start(bed, bridge.url, "--no-resume", "--ping-interval", "0.4", "--ping-timeout", "0.8", "-v")
        client.wait_for_line("are connected")
        bridge.process.send_signal(signal.SIGSTOP)
        try:
            assert client.wait(LIMIT) == 69
        finally:
            bridge.process.send_signal(signal.SIGCONT)
        assert "nothing was received from the peer" in client.err.read_text()


def test_pings_keep_an_idle_tunnel_alive_on_both_sides(bed: Bed) -> None:
    with Target(echo) as target:
        limits = ("--ping-interval", "0.3", "--ping-timeout", "0.6")
        client = start(bed, start_bridge(bed, "ours", target.port, *limits).url, *limits)
        time.sleep(2.5)
        client.feed(b"still here")
        wait_for_output(client, 10)
        client.end_input()
        assert client.wait(LIMIT) == 0


# ---- memory


def test_a_frame_of_100_mb_passes_in_the_memory_of_one_read(bed: Bed) -> None:
    size = 100_000_000

    def script(connection: ServerConnection) -> None:
        connection.socket.sendall(b"\x82\x7f" + size.to_bytes(8, "big"))
        for _ in range(100):
            connection.socket.sendall(bytes(size // 100))
        with contextlib.suppress(ConnectionClosed):
            connection.recv(timeout=LIMIT)

    with websocket_server(script) as url:
        client = start(bed, url)
        wait_for_output(client, size, 60)
        status = Path(f"/proc/{client.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0])
        assert peak < 50_000, f"{peak} KiB"
        client.end_input()
        client.wait(LIMIT)
