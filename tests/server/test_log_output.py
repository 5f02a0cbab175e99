"""A log that cannot be written: nothing else is affected, and the log reports what is missing."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, ticks
from tests.bed.targets import Target
from tests.bed.tunnels import OURS, Bridge
from tests.conftest import StartBridge
from tests.faults.peer import Peer, assert_echoes
from tests.server.clients import LIMIT, ask, assert_echo, dial, open_tunnel
from tests.server.test_log import wait_for_text
from tunnel.errors import UsageError
from tunnel.server.log import LogHandler, text_line
from tunnel.server.log_output import BACKLOG_LIMIT, Output, open_log

PIPE_SIZE = 4096


def rendered(level: int, name: str, /, **fields: object) -> bytes:
    return f"{logging.getLevelName(level)} {name} {fields}\n".encode()


# A bridge that waits for a slow reader at its end, and so for a test that does not get the processor.
PATIENT = (
    sys.executable,
    "-c",
    "import sys; from tunnel.server import log; log.FLUSH_LIMIT = 20.0; "
    "from tunnel.cli.main import main; sys.exit(main(sys.argv[1:]))",
)


@contextmanager
def bridge_with_a_reader(
    bed: Bed, target: Target, *options: str, program: tuple[str, ...] = OURS
) -> Iterator[tuple[Bridge, int]]:
    """A bridge whose stderr is a small pipe, read up to the ready line, and the reading end."""
    fifo = bed.folder / "stderr"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        process = bed.start(
            *("sh", "-c", 'exec "$@" 2>"$0"', str(fifo), *program, "serve", "--listen", "127.0.0.1:0"),
            *("--target", f"127.0.0.1:{target.port}", *options),
        )
        text = b""
        for _ in ticks(LIMIT):
            text += read_some(reader)
            if b"\n" in text:
                break
        url = re.search(rb"ready on (ws://[^\s,]+)", text)
        assert url, text
        yield Bridge(url[1].decode(), process), reader
    finally:
        os.close(reader)


def read_some(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""


def fill_the_log(url: str) -> None:
    """Cause more lines than the pipe of stderr holds."""
    for number in range(40):
        assert ask(url, f"/{number}-{'x' * 150}", "POST").status == 405
        with open_tunnel(url):
            pass


# --- A reader that stops reading


@pytest.mark.parametrize("loop", [(), ("--uvloop",)], ids=["asyncio", "uvloop"])
def test_tunnels_go_on_while_nobody_reads_the_log(bed: Bed, echo_target: Target, loop: tuple[str, ...]) -> None:
    with bridge_with_a_reader(bed, echo_target, *loop) as (bridge, _), open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel)
        fill_the_log(bridge.url)
        assert_echo(tunnel, b"x" * 1_000_000)
        assert ask(bridge.url, "/healthz").status == 200
        bridge.process.send_signal(signal.SIGHUP)
        with open_tunnel(bridge.url) as another:
            assert_echo(another)


def test_a_bridge_ends_though_nobody_reads_the_log(bed: Bed, echo_target: Target) -> None:
    with bridge_with_a_reader(bed, echo_target) as (bridge, _):
        fill_the_log(bridge.url)
        bridge.process.send_signal(signal.SIGTERM)
        assert bridge.process.wait(LIMIT) == 0


def test_a_reader_that_comes_back_gets_every_line_in_order(bed: Bed, echo_target: Target) -> None:
    with bridge_with_a_reader(bed, echo_target, program=PATIENT) as (bridge, reader):
        fill_the_log(bridge.url)
        bridge.process.send_signal(signal.SIGTERM)
        text = b""
        for _ in ticks(LIMIT):
            text += read_some(reader)
            if bridge.process.status is not None:
                break
        text += read_some(reader)
    lines = text.decode().splitlines()
    assert len([line for line in lines if " info tunnel " in line]) == 40
    times = [line[:24] for line in lines]
    assert times == sorted(times)
    assert "draining" in text.decode()


def test_stderr_is_not_made_non_blocking(bed: Bed, echo_target: Target) -> None:
    """Other processes share it, such as a shell that started the bridge with `&`, and would get errors."""
    with bridge_with_a_reader(bed, echo_target) as (bridge, _):
        flags = Path(f"/proc/{bridge.process.pid}/fdinfo/2").read_text()
    assert not int(re.search(r"flags:\s+(\d+)", flags)[1], 8) & os.O_NONBLOCK  # type: ignore[index]


def test_what_there_is_no_room_for_is_dropped_and_counted() -> None:
    reading, writing = os.pipe()
    output = Output(writing, rendered)
    line = b"x" * 199 + b"\n"
    put = BACKLOG_LIMIT // 100  # at least twice the limit
    for _ in range(put):
        output.put(line)
    os.set_blocking(reading, False)
    text = read_until(reading, b"log-dropped")
    output.put(b"later\n")
    text += read_until(reading, b"later\n")
    output.close(time.monotonic() + LIMIT)
    told = re.search(rb"WARNING log-dropped {'lines': (\d+), 'reason': 'they came faster than they could be", text)
    assert told
    assert text.count(line) + int(told[1]) == put
    assert BACKLOG_LIMIT // 300 < text.count(line) < BACKLOG_LIMIT // 200
    os.close(reading)
    os.close(writing)


def read_until(descriptor: int, end: bytes) -> bytes:
    text = b""
    for _ in ticks(LIMIT, pause=0.001):
        text += read_some(descriptor)
        if end in text:
            return text
    raise AssertionError(text[-200:])


# --- A file that cannot be written or opened


def test_a_full_disk_changes_nothing_and_is_reported_on_stderr(start: StartBridge) -> None:
    bridge = start("--log-file", "/dev/full")
    assert ask(bridge.url, headers={}).status == 426
    bridge.process.wait_for_line('error log-failed option=--log-file path=/dev/full reason="No space left on device"\n')
    peer, session = Peer.open(bridge.url)
    assert_echoes(peer, b"hello")
    peer.reset()
    with Peer(bridge.url, session.resume(1, 5)) as again:
        assert_echoes(again, b"more")
        bridge.process.send_signal(signal.SIGHUP)
        assert ask(bridge.url, headers={}).status == 426
        again.end()
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(LIMIT) == 0
    assert bridge.process.log().count("\n") == 2  # and the ready line


def test_lines_that_a_full_disk_has_swallowed_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The disk accepts half of the second line, nothing of the third and fourth, and then everything."""
    room = [100, 3, 0, 0, 0]
    write = os.write

    def write_on_full_disk(descriptor: int, data: bytes) -> int:
        left = room.pop(0) if room else len(data)
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:left])

    path = tmp_path / "log"
    descriptor = open_log(str(path))
    monkeypatch.setattr(os, "write", write_on_full_disk)
    output = Output(descriptor, rendered)
    for number, left in enumerate((4, 2, 1, 0)):
        output.put(b"line %d\n" % number)
        for _ in ticks(LIMIT):  # so that each is written separately
            if len(room) == left:
                break
        assert len(room) == left
    output.put(b"line 4\n")
    output.close(time.monotonic() + LIMIT)
    os.close(descriptor)
    told = "WARNING log-dropped {'lines': 3, 'reason': 'No space left on device'}"
    assert path.read_text().splitlines() == ["line 0", "lin", told, "line 4"]


def move_folder(path: Path) -> Path:
    """Move the folder of the log away; return the new path of the file."""
    return path.parent.rename(path.parent.with_name("moved")) / path.name


def test_a_log_file_that_cannot_be_opened_again_changes_nothing(start: StartBridge, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "bridge.log"
    path.parent.mkdir()
    bridge = start("--log-file", str(path), "--drain", "60")
    peer, session = Peer.open(bridge.url)
    assert_echoes(peer, b"hello")
    moved = move_folder(path)
    bridge.process.send_signal(signal.SIGHUP)
    wait_for_text(
        moved,
        f'error reload-failed what=log reason="--log-file: cannot use {re.escape(str(path))}: '
        'No such file or directory" kept="the file in use"\n',
    )
    assert ask(bridge.url, headers={}).status == 426
    wait_for_text(moved, "refused .*status=426")
    peer.reset()
    wait_for_text(moved, " detached ")
    with Peer(bridge.url, session.resume(1, 5)) as again, open_tunnel(bridge.url) as tunnel:
        assert_echoes(again, b"more")
        assert_echo(tunnel)
        bridge.process.send_signal(signal.SIGTERM)
        wait_for_text(moved, " draining ")
        assert_echo(tunnel)
        again.end()
    assert bridge.process.wait(LIMIT) == 0
    assert " resumed " in moved.read_text() and "internal-error" not in moved.read_text()
    assert bridge.process.log().count("\n") == 1  # the ready line


def test_a_log_file_is_opened_at_its_place_once_that_is_possible_again(start: StartBridge, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "bridge.log"
    path.parent.mkdir()
    bridge = start("--log-file", str(path))
    moved = move_folder(path)
    bridge.process.send_signal(signal.SIGHUP)
    wait_for_text(moved, "reload-failed")
    path.parent.mkdir()
    bridge.process.send_signal(signal.SIGHUP)
    wait_for_text(path, "info reloaded what=log\n")
    ask(bridge.url, headers={})
    wait_for_text(path, "refused")


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket"])
def test_what_is_no_file_is_not_opened_in_its_place(start: StartBridge, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bridge.log"
    bridge = start("--log-file", str(path))
    moved = path.rename(tmp_path / "moved")
    with ExitStack() as stack:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(os.path.relpath(path))
        bridge.process.send_signal(signal.SIGHUP)
        reason = "Is a directory" if kind == "folder" else "it is not a regular file"
        wait_for_text(moved, f'reload-failed what=log reason="--log-file: cannot use .*: {reason}"')
    assert ask(bridge.url, headers={}).status == 426
    wait_for_text(moved, "status=426")


def test_a_fifo_is_refused_at_the_start(bed: Bed, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    finished = bed.run(*OURS, "serve", "--listen", "127.0.0.1:0", "--log-file", str(path), seconds=20)
    assert finished.status == 2
    assert finished.stderr == f"wstunnel-py: --log-file: cannot use {path}: it is not a regular file\n"
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(UsageError, match="it is not a regular file"):
        open_log(str(path))
    os.close(reader)


@pytest.mark.parametrize("path", ["/dev/stderr", "/dev/stdout", "/dev/fd/2", "/proc/self/fd/1", "/dev/null"])
def test_the_log_may_go_to_a_descriptor_or_a_device(start: StartBridge, path: str) -> None:
    bridge = start("--log-file", path)
    assert ask(bridge.url, headers={}).status == 426
    if path != "/dev/null":
        bridge.process.wait_for_line("refused .*status=426")
        bridge.process.send_signal(signal.SIGHUP)
        bridge.process.wait_for_line("reloaded what=log")


def test_it_may_go_to_a_socket_as_under_systemd(bed: Bed, echo_target: Target) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [*OURS, "serve", "--listen", "127.0.0.1:0", "--log-file", "/dev/stderr"], stderr=theirs.fileno()
        )
        try:
            theirs.close()
            ours.settimeout(LIMIT)
            text = b""
            while b"ready on" not in text:
                text += ours.recv(4096)
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()
        assert b"draining" in ours.recv(4096)


# --- No descriptor left


def limit_descriptors(process: Process, spare: int) -> tuple[int, int]:
    """Let a process open only ``spare`` more descriptors; return its previous limits."""
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + spare, limits[1]))
    return limits


def test_a_bridge_accepts_again_after_it_had_neither_log_file_nor_descriptors(
    start: StartBridge, tmp_path: Path
) -> None:
    path = tmp_path / "logs" / "bridge.log"
    path.parent.mkdir()
    bridge = start("--log-file", str(path))
    moved = move_folder(path)
    bridge.process.send_signal(signal.SIGHUP)
    wait_for_text(moved, "reload-failed")
    limits = limit_descriptors(bridge.process, 0)
    bridge.process.send_signal(signal.SIGHUP)
    waiting = [dial(bridge.url) for _ in range(5)]
    wait_for_text(moved, 'cannot-accept listener=127.0.0.1:\\d+ reason="Too many open files"')
    resource.prlimit(bridge.process.pid, resource.RLIMIT_NOFILE, limits)
    for sock in waiting:
        sock.close()
    assert ask(bridge.url, "/healthz").status == 200
    with open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel)
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(LIMIT) == 0


# ---- stderr is closed


def test_without_stderr_a_bridge_serves_and_no_client_gets_its_lines(bed: Bed, tmp_path: Path) -> None:
    """Otherwise a connection could get descriptor 2, and a client would read the log."""
    log, folder = tmp_path / "log", tmp_path / "s"
    process = bed.start(
        *("sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *OURS, "serve", "--listen", "127.0.0.1:0"),
        *("--target", "127.0.0.1:9", "--log-file", str(log), "--log-format", "json"),
    )
    url = wait_for_text(log, r'"listen": "(ws://[^"]+)"')[1]
    opened = {number: os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1, 2)}
    assert set(opened.values()) == {"/dev/null"}
    assert ask(url, headers={}).status == 426
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0
    assert not folder.exists()


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_log_that_reaches_nobody_keeps_nobody(
    bed: Bed, echo_target: Target, short_folder: Path, redirection: str
) -> None:
    path = short_folder / "bridge"
    process = bed.start(
        *("sh", "-c", f'exec "$@" {redirection}', "sh", *OURS, "serve", "--listen", f"unix:{path}"),
        *("--target", f"127.0.0.1:{echo_target.port}"),
    )
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(LIMIT)
        for _ in ticks(LIMIT):
            if sock.connect_ex(str(path)) == 0:
                break
        with open_tunnel("ws://bridge.test/", sock=sock) as tunnel:
            assert_echo(tunnel)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0


def test_a_reader_that_has_gone_changes_nothing(bed: Bed, echo_target: Target) -> None:
    with bridge_with_a_reader(bed, echo_target) as (bridge, _):
        pass
    fill_the_log(bridge.url)
    with open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel)
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(LIMIT) == 0


# ---- the thread


def test_a_thread_that_meets_a_bug_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = LogHandler(text_line, str(path))
    write, failed = Output._send, threading.Event()

    def fail_once(self: Output, data: bytes) -> int:
        if b"second" in data:
            failed.set()
            raise MemoryError
        return write(self, data)

    def emit(name: str) -> None:
        handler.emit(logging.makeLogRecord({"levelno": logging.ERROR, "event": name, "fields": {}}))

    monkeypatch.setattr(Output, "_send", fail_once)
    emit("first")
    wait_for_text(path, " first")  # else the second could be written with it
    emit("second")
    assert failed.wait(LIMIT)
    emit("third")
    handler.close()
    assert [line.split()[2] for line in path.read_text().splitlines()] == ["first", "third"]
