"""What happens to a tunnel, and when: a function for each fault of the table. It returns what became of the tunnel."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bed.processes import free_port, ticks
from tests.bed.targets import reset
from tests.faults.inside.sitecustomize import HANGING
from tests.faults.link import Break, Cut, Plan, Side
from tests.faults.matrix.scene import BANNER, CONNECT_TIMEOUT, LIMIT, MUCH, PAUSE, STAGES, TAIL, Outcome, Scene
from tests.server.clients import port_of

Fault = Callable[[Scene], Outcome]


def _break(how: Break, side: Side) -> Fault:
    def fault(scene: Scene) -> Outcome:
        if scene.stage == "dial" and how == "rst":
            scene.link.refuse_new()
        elif scene.stage == "dial":
            scene.link.plan({1: Plan(Cut(0, "up", how, side))})
        elif scene.stage == "handshake":
            scene.link.plan({1: Plan(Cut(20, "down", how, side))})
        scene.begin()
        if scene.stage not in ("dial", "handshake"):
            assert scene.link.break_all(how, side) == 1
            scene.go_on()
        return scene.finish()

    return fault


def silence(scene: Scene) -> Outcome:
    """Packets vanish silently."""
    if scene.stage != "dial":
        return _break("silence", "both")(scene)
    with full_port() as port:
        scene.link.port = port
        scene.begin()
        return scene.finish()


def delay(scene: Scene) -> Outcome:
    """Nothing passes for a while."""
    if scene.stage == "dial":
        scene.link.stall("up", "down")
    elif scene.stage == "handshake":
        scene.link.stall("down")
    scene.begin()
    scene.link.stall("up", "down")
    scene.go_on()
    time.sleep(PAUSE)
    scene.link.stall()
    return scene.finish()


def duplicate(scene: Scene) -> Outcome:
    """The request with which the client resumed its session is sent once more."""
    scene.begin()
    scene.link.break_all("rst")
    again = scene.link.wait_for_connection(2)
    for _ in ticks(LIMIT):
        if again.response.endswith(b"\r\n\r\n"):
            break
    with socket.create_connection(("127.0.0.1", port_of(scene.bridge.url)), timeout=LIMIT) as other:
        other.sendall(again.request)
        answer = other.recv(65536)
        assert answer.startswith(b"HTTP/1.1 409 "), answer
    scene.go_on()
    return scene.finish()


def stopped(who: str) -> Fault:
    """A process is stopped for a while."""

    def fault(scene: Scene) -> Outcome:
        process = scene.bridge.process
        if who == "client":
            scene.begin()
            process = scene.client
            process.send_signal(signal.SIGSTOP)
        else:
            if scene.stage in ("dial", "handshake"):
                process.send_signal(signal.SIGSTOP)
            scene.begin()
            process.send_signal(signal.SIGSTOP)
        scene.go_on()
        time.sleep(PAUSE)
        process.send_signal(signal.SIGCONT)
        return scene.finish()

    return fault


def killed_client(scene: Scene) -> Outcome:
    if scene.stage == "handshake":
        scene.link.plan({1: Plan(Cut(20, "down", "silence"))})
    scene.begin()
    if scene.stage == "handshake":
        scene.link.wait_for_breaks(1)
    scene.client.send_signal(signal.SIGKILL)
    scene.client.wait(LIMIT)
    scene.go_on()
    return scene.finish()


def killed_bridge(scene: Scene) -> Outcome:
    if scene.stage == "dial":
        scene.link.refuse_new()
    elif scene.stage == "handshake":
        scene.bridge.process.send_signal(signal.SIGSTOP)
    scene.begin()
    if scene.stage == "handshake":
        connection = scene.link.wait_for_connection(1)
        for _ in ticks(LIMIT):
            if connection.up:
                break
    scene.bridge.process.send_signal(signal.SIGKILL)
    scene.bridge.process.wait(LIMIT)
    if scene.stage not in ("dial", "handshake"):
        scene.link.refuse_new()
    scene.go_on()
    return scene.finish()


def killed_target(scene: Scene) -> Outcome:
    if scene.stage == "handshake":
        _another_target(scene, f"127.0.0.1:{free_port()}")
    scene.begin()
    if scene.stage != "handshake":
        reset(scene.lane.target.connections[-1])
        scene.go_on()
    return scene.finish()


def target_never_answers(scene: Scene) -> Outcome:
    if scene.stage == "handshake":
        with full_port() as port:
            _another_target(scene, f"127.0.0.1:{port}")
            scene.begin()
            return scene.finish()
    scene.begin()
    if scene.stage == "end":
        return scene.finish()
    time.sleep(2 * CONNECT_TIMEOUT)
    assert scene.client.status is None, scene.client.log()
    scene.go_on()
    return scene.finish()


def hanging_dns(scene: Scene) -> Outcome:
    """At the stage dial for the client, at the handshake for the bridge; later when the client dials again."""
    dns = scene.lane.dns
    if scene.stage == "dial":
        scene.host = HANGING
    if scene.stage == "handshake":
        _another_target(scene, f"{HANGING}:{scene.lane.target.port}")
    try:
        if scene.stage in ("dial", "handshake"):
            dns.touch()
            scene.begin()
            return scene.finish()
        scene.host = HANGING
        scene.begin()
        dns.touch()
        scene.link.break_all("rst")
        scene.go_on()
        time.sleep(PAUSE)
    finally:
        dns.unlink(missing_ok=True)
    return scene.finish()


def clock_jump(scene: Scene) -> Outcome:
    """The wall clock of client and bridge goes forward by a year, and back to where it was."""
    try:
        if scene.stage in ("dial", "handshake"):
            scene.link.stall("up" if scene.stage == "dial" else "down")
        scene.begin()
        scene.lane.move_clock(366 * 86400.0)
        scene.go_on()
        time.sleep(PAUSE / 2)
        scene.link.stall()
        scene.lane.move_clock(0)
        return scene.finish()
    finally:
        scene.lane.move_clock(0)


def slow_reader(scene: Scene) -> Outcome:
    """Nobody reads the client's output for a while, which the target fills meanwhile."""
    fifo = scene.lane.bed.folder / "fifo"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    scene.stdout = fifo
    came = bytearray()
    scene.came = lambda: len(came)
    opened = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(opened, True)
    paused = threading.Event()

    def read() -> None:
        with open(opened, "rb", buffering=0) as output:
            stop = {"banner": 0, "bulk": len(BANNER), "end": len(scene.down) - len(TAIL)}[scene.stage]
            while len(came) < stop:
                came.extend(output.read(min(1 << 16, stop - len(came))))
            paused.wait(LIMIT)
            while chunk := output.read(1 << 16):
                came.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    scene.begin()
    scene.go_on()
    time.sleep(PAUSE)
    paused.set()
    outcome = scene.finish()
    reader.join(LIMIT)
    outcome.came = len(came)
    return outcome


def full_disk(scene: Scene) -> Outcome:
    """At the stages dial and handshake the client's log, later its output."""
    if scene.stage in ("dial", "handshake"):
        scene.options += ["--log-file", "/dev/full"]
        scene.begin()
        return scene.finish()
    output = scene.lane.bed.folder / "output"
    if scene.stage == "banner":
        scene.stdout = Path("/dev/full")
        output.write_bytes(b"")
        scene.begin()
    else:
        scene.stdout = output
        scene.came = lambda: output.stat().st_size if output.exists() else 0
        scene.begin()
        for _ in ticks(LIMIT):
            if output.stat().st_size >= len(BANNER) + 1000:
                break
        size = output.stat().st_size
        resource.prlimit(scene.pid, resource.RLIMIT_FSIZE, (size, size))
    scene.go_on()
    outcome = scene.finish()
    outcome.came = output.stat().st_size
    return outcome


def no_descriptors_for_the_client(scene: Scene) -> Outcome:
    if scene.stage == "dial":
        scene.before = ("sh", "-c", 'ulimit -n 6; exec "$@"', "sh")
        scene.begin()
        return scene.finish()
    scene.begin()
    with _no_descriptors(scene.client.pid):
        if scene.kind != "plain":
            scene.link.break_all("rst")  # so that it needs some
        scene.go_on()
        time.sleep(PAUSE)
    return scene.finish()


def no_descriptors_for_the_bridge(scene: Scene) -> Outcome:
    if scene.stage in ("dial", "handshake"):
        # One of its own, where no earlier client's session could be evicted.
        _another_target(scene, f"127.0.0.1:{scene.lane.target.port}")
        with _no_descriptors(scene.bridge.process.pid, but=STAGES.index(scene.stage)):
            scene.begin()
            return scene.finish()
    scene.begin()
    with _no_descriptors(scene.bridge.process.pid):
        scene.go_on()
        return scene.finish()


@contextmanager
def _no_descriptors(pid: int, but: int = 0) -> Iterator[None]:
    """Let a process open no more files than ``but``."""
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken: set[int] = set()
    for _ in ticks(LIMIT, 0.2):  # what is open for a moment only does not count
        before, taken = taken, {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        if taken == before:
            break
    free = [number for number in range(max(taken) + 2 + but) if number not in taken]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[but], usual[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def no_memory(who: str) -> Fault:
    """A process gets no more memory than it has, while it has to keep much that is not acknowledged."""

    def fault(scene: Scene) -> Outcome:
        if who == "client":
            scene.up = MUCH
        else:
            scene.rest = MUCH
        scene.begin()
        scene.link.stall("down" if who == "client" else "up")
        pid = scene.client.pid if who == "client" else scene.bridge.process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_AS)
        status = Path(f"/proc/{pid}/status").read_text()
        size = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize:")) * 1024
        resource.prlimit(pid, resource.RLIMIT_AS, (size, usual[1]))
        try:
            scene.go_on()
            time.sleep(PAUSE)
            scene.link.stall()
            return scene.finish()
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_AS, usual)

    return fault


def _another_target(scene: Scene, target: str) -> None:
    scene.bridge = scene.lane.bridge_to(target, scene.kind)
    scene.link.flip(port_of(scene.bridge.url))


@contextmanager
def full_port() -> Iterator[int]:
    """A port that answers no more connections, as if packets were dropped: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


FAULTS: dict[str, Fault] = {
    "cut": _break("rst", "both"),
    "FIN": _break("fin", "both"),
    "RST": _break("rst", "client"),
    "half-close": _break("fin", "bridge"),
    "stall": silence,
    "delay": delay,
    "duplicate": duplicate,
    "slow reader": slow_reader,
    "full disk": full_disk,
    "EMFILE, client": no_descriptors_for_the_client,
    "EMFILE, bridge": no_descriptors_for_the_bridge,
    "ENOMEM, client": no_memory("client"),
    "ENOMEM, bridge": no_memory("bridge"),
    "silent target": target_never_answers,
    "hanging DNS": hanging_dns,
    "clock jump": clock_jump,
    "SIGSTOP, client": stopped("client"),
    "SIGSTOP, bridge": stopped("bridge"),
    "SIGKILL, client": killed_client,
    "SIGKILL, bridge": killed_bridge,
    "SIGKILL, target": killed_target,
}
