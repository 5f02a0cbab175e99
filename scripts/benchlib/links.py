"""What measures work with: an open tunnel as ssh would hold it, ssh itself, a process's CPU clock and memory.

Everything ends within a limit: what takes longer raises BenchError.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchlib.lab import BenchError, Lab, end_group, last_line
from benchlib.peers import Peer
from tests.bed.processes import Process

OPEN_LIMIT = 20.0
PIECE = 1 << 20


def cpu_seconds(process: subprocess.Popen[bytes] | Process | None) -> float:
    """User and system time that all threads of a running process have used so far.

    It reads the CPU clock of that process as clock_getcpuclockid(3) does on Linux: in nanoseconds, where
    /proc/PID/stat gives hundredths of a second.
    """
    return time.clock_gettime((~process.pid << 3) | 2) if process else 0.0


def pss(pid: int) -> int:
    """A process's memory in bytes; a page that n processes share counts as 1/n of itself."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise BenchError("smaps_rollup: the kernel gives no Pss line")


def read_exactly(fd: int, total: int) -> None:
    """Read and forget ``total`` bytes. Raises BenchError when the stream ends before."""
    buffer = bytearray(PIECE)
    left = total
    while left:
        size = os.readv(fd, [memoryview(buffer)[:left]])
        if not size:
            raise BenchError(f"the stream ended after {total - left} of {total} bytes")
        left -= size


class Link:
    """An open tunnel to the raw target, as ssh would hold it: one descriptor to read, one to write."""

    def __init__(self, reading: int, writing: int, client: subprocess.Popen[bytes] | None) -> None:
        self.reading = reading
        self.writing = writing
        self.client = client

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.writing, view) :]


@contextmanager
def deadline(seconds: float, cut: Callable[[], None]) -> Iterator[None]:
    """Cut the link that the block uses when it takes longer than ``seconds``: the block then raises BenchError."""
    late = threading.Event()

    def strike() -> None:
        late.set()
        cut()

    timer = threading.Timer(seconds, strike)
    timer.start()
    try:
        yield
    except (BenchError, OSError) as error:
        if late.is_set():
            raise BenchError(f"no end after {seconds:g} s") from error
        raise
    finally:
        timer.cancel()


def between_pipes(lab: Lab, argv: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, between two pipes; what it says goes to ``log``."""
    with log.open("wb") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            bufsize=0,
            env=lab.env,
            start_new_session=True,
        )


@contextmanager
def link(lab: Lab, peer: Peer, limit: float) -> Iterator[tuple[Link, float]]:
    """Open a tunnel of ``peer`` to the raw target. Yield it with the seconds until the target's greeting came.

    All that happens with the link must take at most ``limit`` seconds; BenchError otherwise, or when the tunnel breaks.
    """
    endpoint = lab.raw_endpoint(peer)
    started = time.perf_counter()
    if peer.client is None:
        with socket.create_connection(("127.0.0.1", endpoint.port), OPEN_LIMIT) as connection:
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with deadline(limit, lambda: connection.shutdown(socket.SHUT_RDWR)):
                read_exactly(connection.fileno(), 1)
                yield Link(connection.fileno(), connection.fileno(), None), time.perf_counter() - started
        return
    log = lab.directory / "client.log"
    client = between_pipes(lab, peer.client(endpoint), log)
    assert client.stdin is not None and client.stdout is not None
    with ExitStack() as stack:
        stack.callback(end_group, client, 0.5)
        stack.callback(client.stdin.close)
        stack.enter_context(client.stdout)
        try:
            with deadline(limit, client.kill):
                read_exactly(client.stdout.fileno(), 1)
                opened = time.perf_counter() - started
                yield Link(client.stdout.fileno(), client.stdin.fileno(), client), opened
        except (BenchError, OSError) as error:
            raise BenchError(f"{error} (client: {last_line(log.read_text(errors='replace'))})") from error


def over_ssh(lab: Lab, argv: list[str], total: int, stdin: int = subprocess.DEVNULL) -> float:
    """Wall time of one ssh or sftp, whose output is thrown away. Raises BenchError if it fails or takes too long."""
    log = lab.directory / "ssh.log"
    limit = transfer_limit(total)
    started = time.perf_counter()
    with log.open("wb") as output:
        ssh = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env=lab.env,
            start_new_session=True,
        )
    try:
        with deadline(limit, ssh.kill):
            status = ssh.wait()  # without a timeout of its own, which would poll every 50 ms
            took = time.perf_counter() - started
            if status:
                raise BenchError(f"{argv[0]}: exit status {status}: {last_line(log.read_text(errors='replace'))}")
    finally:
        end_group(ssh, 0.5)
    return took


def transfer_limit(total: int) -> float:
    """Return how many seconds a transfer of ``total`` bytes may take: 20 MB/s, and 30 s for the rest."""
    return 30 + total / 20e6
