"""What is measured. Each measure runs once for one peer and gives one number per quantity.

Times are wall times in seconds, on an open tunnel unless a quantity says otherwise; CPU is that of a process's own
clock, user and system, so a client's start-up isn't charged to its throughput. Every measure ends within a limit.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchlib import target
from benchlib.lab import BenchError, Lab, end_group, last_line
from benchlib.peers import Door, Peer
from tests.bed.processes import Process, free_port

OPEN_LIMIT = 20.0
ROUND_TRIPS = 2000
IDLE_TUNNELS = 100
PIECE = 1 << 20
SFTP_PEERS = ("direct", "ours", "embedded")  # what is told apart here is the server's side of it


@dataclass(frozen=True)
class Quantity:
    """One row of the report.

    Attributes:
        scale: What a stored number (seconds, bytes per second, bytes) is divided by to be shown in `unit`.
        higher: Whether more is better.
        against: The peer that ratios are taken to; None for no ratio.
    """

    key: str
    title: str
    unit: str
    scale: float = 1.0
    digits: int = 2
    higher: bool = False
    against: str | None = "direct"


QUANTITIES = (
    Quantity("startup", "`ssh host true`", "ms", 1e-3, 0),
    Quantity("ssh-download", "ssh download", "s"),
    Quantity("ssh-upload", "ssh upload", "s"),
    Quantity("sftp-download", "sftp download", "s"),
    Quantity("sftp-upload", "sftp upload", "s"),
    Quantity("raw-download", "raw TCP download", "MB/s", 1e6, 0, higher=True),
    Quantity("raw-upload", "raw TCP upload", "MB/s", 1e6, 0, higher=True),
    Quantity("open", "tunnel open, from the client's start to the target's first byte", "ms", 1e-3, 1, against=None),
    Quantity("open-cpu", "CPU of the client until then", "ms", 1e-3, 1, against=None),
    Quantity("rtt-p50", "round trip of 1 byte, median", "µs", 1e-6, 0),
    Quantity("rtt-p99", "round trip of 1 byte, 99th percentile", "µs", 1e-6, 0),
    Quantity("down-cpu-client", "CPU of the client per GB down", "s", against=None),
    Quantity("down-cpu-bridge", "CPU of the bridge per GB down", "s", against=None),
    Quantity("up-cpu-client", "CPU of the client per GB up", "s", against=None),
    Quantity("up-cpu-bridge", "CPU of the bridge per GB up", "s", against=None),
    Quantity("idle-client", "memory of an idle client (PSS)", "MB", 1e6, 1, against=None),
    Quantity("idle-bridge", "memory of the bridge per idle tunnel (PSS)", "kB", 1e3, 1, against=None),
)


@dataclass(frozen=True)
class Measure:
    """Something to run: for which peers it makes sense, and in how many rounds by default, in full and quickly."""

    run: Callable[[Lab, Peer, int], dict[str, float]]
    rounds: int
    quick_rounds: int
    fits: Callable[[Peer], bool] = lambda peer: True


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


@contextmanager
def link(lab: Lab, peer: Peer, limit: float) -> Iterator[tuple[Link, float]]:
    """Open a tunnel of ``peer`` to the raw target. Yield it with the seconds until the target's greeting came.

    All that happens with the link must take at most ``limit`` seconds; BenchError otherwise, or when the tunnel breaks.
    """
    door = lab.raw_door(peer)
    started = time.perf_counter()
    if peer.client is None:
        with socket.create_connection(("127.0.0.1", door.port), OPEN_LIMIT) as connection:
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with deadline(limit, lambda: connection.shutdown(socket.SHUT_RDWR)):
                read_exactly(connection.fileno(), 1)
                yield Link(connection.fileno(), connection.fileno(), None), time.perf_counter() - started
        return
    log = lab.directory / "client.log"
    with log.open("wb") as output:
        client = subprocess.Popen(
            peer.client(door),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            bufsize=0,
            env=lab.env,
            start_new_session=True,
        )
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


def startup(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return {"startup": over_ssh(lab, lab.ssh(peer, "true"), 0)}


def ssh_download(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return {"ssh-download": over_ssh(lab, lab.ssh(peer, f"head -c {size} /dev/zero"), size)}


def ssh_upload(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    source = subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE, start_new_session=True)
    assert source.stdout is not None
    try:
        with source.stdout:
            return {"ssh-upload": over_ssh(lab, lab.ssh(peer, "cat >/dev/null"), size, source.stdout.fileno())}
    finally:
        end_group(source)


def sftp_source(lab: Lab, size: int) -> Path:
    """Return a file of ``size`` bytes, without blocks on the disk."""
    path = lab.directory / f"source-{size}"
    path.touch()
    os.truncate(path, size)
    return path


def sftp_download(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return {"sftp-download": over_ssh(lab, lab.sftp(peer, f"get {sftp_source(lab, size)} /dev/null\n"), size)}


def sftp_upload(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return {"sftp-upload": over_ssh(lab, lab.sftp(peer, f"put {sftp_source(lab, size)} /dev/null\n"), size)}


def raw_transfer(lab: Lab, peer: Peer, size: int, order: str) -> tuple[float, float, float]:
    """Move ``size`` bytes. Return bytes per second, and CPU seconds per GB of the client and of the bridge."""
    bridge = lab.bridges.get(peer.name)
    with link(lab, peer, transfer_limit(size)) as (tunnel, _):
        client_before, bridge_before = cpu_seconds(tunnel.client), cpu_seconds(bridge)
        started = time.perf_counter()
        tunnel.write(f"{order} {size}\n".encode())
        if order == "source":
            read_exactly(tunnel.reading, size)
        else:
            zeros = memoryview(bytes(PIECE))
            for offset in range(0, size, PIECE):
                tunnel.write(zeros[: size - offset])
            read_exactly(tunnel.reading, len(target.DONE))
        took = time.perf_counter() - started
        client_cpu = cpu_seconds(tunnel.client) - client_before
        bridge_cpu = cpu_seconds(bridge) - bridge_before
    gigabytes = size / 1e9
    return size / took, client_cpu / gigabytes, bridge_cpu / gigabytes


def raw(order: str, direction: str, lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    rate, client_cpu, bridge_cpu = raw_transfer(lab, peer, size, order)
    found = {f"raw-{direction}load": rate}
    if peer.client is not None:
        found[f"{direction}-cpu-client"] = client_cpu
    if peer.bridge is not None:
        found[f"{direction}-cpu-bridge"] = bridge_cpu
    return found


def raw_download(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return raw("source", "down", lab, peer, size)


def raw_upload(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return raw("sink", "up", lab, peer, size)


def latency(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    """Open a tunnel, look at the client while it is idle, then send one byte there and back, 2000 times."""
    trips = []
    with link(lab, peer, 60) as (tunnel, opened):
        found = {"open": opened}
        if tunnel.client is not None:
            found["open-cpu"] = cpu_seconds(tunnel.client)
            found["idle-client"] = pss(tunnel.client.pid)
        tunnel.write(b"echo\n")
        for _ in range(ROUND_TRIPS):
            started = time.perf_counter()
            os.write(tunnel.writing, b"x")
            if not os.read(tunnel.reading, 1):
                raise BenchError("the echo ended early")
            trips.append(time.perf_counter() - started)
    trips.sort()
    return found | {"rtt-p50": trips[len(trips) // 2], "rtt-p99": trips[len(trips) * 99 // 100]}


def open_idle(stack: ExitStack, door: Door, offer: tuple[str, ...]) -> None:
    """Open a tunnel that has carried one byte each way, and keep it until ``stack`` closes."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    plain = socket.create_connection(("127.0.0.1", door.port), OPEN_LIMIT)  # passed in: no proxy of the environment
    subprotocols = [Subprotocol(name) for name in offer]
    websocket = connect(
        door.url, sock=plain, compression=None, subprotocols=subprotocols, open_timeout=OPEN_LIMIT, close_timeout=1
    )
    stack.enter_context(closing(websocket))
    received = b""
    try:
        websocket.send(b"echo\nx")
        while received != target.GREETING + b"x":
            message = websocket.recv(timeout=OPEN_LIMIT)
            received += message if isinstance(message, bytes) else b""  # text is the resumable wire's control line
    except (ConnectionClosed, TimeoutError) as error:
        raise BenchError(f"an idle tunnel did not come about: {error}") from error


def idle_tunnels(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    """How much a fresh bridge grows by 100 idle tunnels, each. Memory of the kernel's sockets is not in it."""
    assert peer.bridge is not None
    door = Door("ws", free_port())
    with ExitStack() as life, ExitStack() as tunnels:
        bridge = lab.start(f"the {peer.name} bridge", peer.bridge(door.port, lab.target_port), door.port)
        life.callback(bridge.end)
        open_idle(tunnels, door, peer.offer)  # what is loaded and allocated once is no tunnel's
        time.sleep(0.3)
        before = pss(bridge.pid)
        for _ in range(IDLE_TUNNELS):
            open_idle(tunnels, door, peer.offer)
        time.sleep(0.3)
        return {"idle-bridge": (pss(bridge.pid) - before) / IDLE_TUNNELS}


MEASURES = {
    "startup": Measure(startup, 30, 16),
    "ssh-download": Measure(ssh_download, 5, 4),
    "ssh-upload": Measure(ssh_upload, 5, 4),
    "sftp-download": Measure(sftp_download, 5, 4, lambda peer: peer.name in SFTP_PEERS),
    "sftp-upload": Measure(sftp_upload, 5, 4, lambda peer: peer.name in SFTP_PEERS),
    "raw-download": Measure(raw_download, 5, 4, lambda peer: not peer.embedded),
    "raw-upload": Measure(raw_upload, 5, 4, lambda peer: not peer.embedded),
    "latency": Measure(latency, 10, 5, lambda peer: not peer.embedded),
    "memory": Measure(idle_tunnels, 3, 1, lambda peer: peer.bridge is not None and not peer.embedded),
}
