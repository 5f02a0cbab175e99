"""Standard streams that threads read and write, as on Windows: every end is clean, and nothing is lost in between."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.bed.processes import Bed, ticks
from tests.bed.targets import Target, read_exactly, read_to_end, reset
from tests.bed.tunnels import OURS, start_bridge
from tunnel.client.socket_pair import connected_pair

LIMIT = 30.0
DRAINS = 150_000  # bytes: more than a pipe takes, less than pipe and socket pair do
SAYS = os.urandom(3_000_000)  # more than all buffers on the way to a reader that does not read


def say(connection: socket.socket) -> None:
    connection.sendall(SAYS)


@contextmanager
def client(url: str, *options: str, stdin: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """The client, with pipes as its standard streams."""
    words = (*OURS, "connect", "--stdio-threads", *options, url)
    with subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def pipe_of(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def wait_until_stuck(process: subprocess.Popen[bytes], *, has_output: bool = True) -> None:
    """Wait until all threads of a process have waited for 0.2 s: it has sent and written what it can.

    Before its first output it may also wait for a bridge that does not get the processor.
    """
    if has_output:
        assert select.select([pipe_of(process.stdout)], [], [], LIMIT)[0]
    before: list[str] = []
    for _ in ticks(LIMIT, 0.2):
        after = [(thread / "status").read_text() for thread in Path(f"/proc/{process.pid}/task").iterdir()]
        if before == after and not any("(running)" in status for status in after):
            return
        before = after
    raise AssertionError("the client is always busy")


@pytest.mark.parametrize("options", [(), ("--no-resume",)])
def test_it_exits_when_a_reader_that_hesitates_has_got_all(bed: Bed, options: tuple[str, ...]) -> None:
    with Target(say) as target, client(start_bridge(bed, "ours", target.port).url, *options) as process:
        wait_until_stuck(process)
        assert process.poll() is None
        assert pipe_of(process.stdout).read() == SAYS
        assert process.wait(LIMIT) == 0
        assert pipe_of(process.stderr).read() == b""


def test_behind_all_data_comes_the_error_that_ended_it(bed: Bed) -> None:
    def say_and_break(connection: socket.socket) -> None:
        connection.sendall(SAYS[:100_000])
        read_exactly(connection, 1)
        reset(connection)

    with Target(say_and_break) as target, client(start_bridge(bed, "ours", target.port).url) as process:
        wait_until_stuck(process)
        pipe_of(process.stdin).write(b"x")
        pipe_of(process.stdin).flush()
        line = pipe_of(process.stderr)
        assert pipe_of(process.stdout).read() == SAYS[:100_000]
        assert process.wait(LIMIT) == 69
        assert b"broke the connection" in line.read()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 0)], ids=str
)
def test_a_signal_ends_it_though_nobody_reads(bed: Bed, number: signal.Signals, status: int) -> None:
    with Target(say) as target, client(start_bridge(bed, "ours", target.port).url) as process:
        wait_until_stuck(process)
        process.send_signal(number)
        assert process.wait(LIMIT) == status


def test_a_signal_ends_the_wait_for_a_reader_behind_the_end(bed: Bed) -> None:
    with (
        Target(lambda connection: connection.sendall(SAYS[:DRAINS])) as target,
        client(start_bridge(bed, "ours", target.port).url) as process,
    ):
        wait_until_stuck(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130


@pytest.mark.parametrize("size", [DRAINS, len(SAYS)], ids=["while it drains", "while it runs"])
def test_a_reader_that_goes_ends_it_without_a_word(bed: Bed, size: int) -> None:
    with (
        Target(lambda connection: connection.sendall(SAYS[:size])) as target,
        client(start_bridge(bed, "ours", target.port).url) as process,
    ):
        wait_until_stuck(process)
        pipe_of(process.stdout).close()
        assert process.wait(LIMIT) == 141
        assert pipe_of(process.stderr).read() == b""


def test_what_was_typed_before_a_hangup_arrives(bed: Bed) -> None:
    with Target(read_to_end) as target:
        with client(start_bridge(bed, "ours", target.port).url, "-v") as process:
            while b"are connected" not in (line := pipe_of(process.stderr).readline()):
                assert line, "it has ended"
            pipe_of(process.stdin).write(SAYS[:20_000])
            pipe_of(process.stdin).flush()
            wait_until_stuck(process, has_output=False)
            process.send_signal(signal.SIGHUP)
            assert process.wait(LIMIT) == 0
        assert target.result() == SAYS[:20_000]


def test_input_that_breaks_is_an_error_and_no_end(bed: Bed) -> None:
    ours, theirs = connected_pair()
    with (
        Target(read_to_end) as target,
        theirs,
        client(start_bridge(bed, "ours", target.port).url, stdin=theirs.fileno()) as process,
    ):
        reset(ours)
        assert process.wait(LIMIT) == 69
        assert b"cannot read standard input" in pipe_of(process.stderr).read()
        with pytest.raises(ConnectionResetError):
            target.result()
