"""One run of a tunnel, which stops at a stage for a fault to happen, and what became of it.

Everything is real but the target: it waits at each stage until it is told to go on. The limits of client and bridge are
short, so that a fault is over in seconds.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bed.invariants import Holdings, assert_nothing_is_left, holdings
from tests.bed.processes import Bed, Process, descendants, ticks
from tests.bed.targets import Target, read_exactly, read_to_end
from tests.bed.tunnels import OURS, Bridge
from tests.faults.link import Link
from tests.server.clients import port_of

ROOT = Path(__file__).parents[3]
LIMIT = 30.0  # seconds for anything that has no limit of its own
PAUSE = 1.5  # seconds that a fault lasts which is to be got over
# Of client and bridge, in the place of the defaults that docs/reliability.md names.
RESUME_FOR, RECONNECT_FOR, CONNECT_TIMEOUT, DIAL_TIMEOUT, PING = 8, 4, 4, 2, 2

_random = random.Random("matrix")
BANNER = b"SSH-2.0-banner\r\n"
HALF, REST, TAIL = _random.randbytes(60_000), _random.randbytes(40_000), b"the last words"
UP = _random.randbytes(30_000)
MUCH = _random.randbytes(6_000_000)  # more than a process has spare memory for
STAGES = ("dial", "handshake", "banner", "bulk", "end")


@dataclass
class Outcome:
    """What a user saw: the exit status, the lines on standard error, how many bytes came; and what the target saw."""

    status: int
    lines: list[str]
    came: int
    target: str | None


class Scene:
    """A tunnel of ``kind`` (plain, resumable, TLS) through a link to ``bridge``; the target is that of the lane.

    ``stage`` is where the fault happens: `begin` starts the client, and returns when it is there.
    """

    def __init__(self, lane: Lane, kind: str, stage: str) -> None:
        self.lane = lane
        self.kind = kind
        self.stage = stage
        self._reached, self._passed = threading.Event(), threading.Event()  # the stage; and the fault has happened
        self.bridge = lane.bridge("tls" if kind == "TLS" else "tcp")
        self.link = Link(port_of(self.bridge.url))
        self.options: list[str] = []
        self.before: tuple[str, ...] = ()  # words before the client's command line
        self.host = "127.0.0.1"
        self.up, self.rest = UP, REST
        self.stdout: Path | None = None
        self.patience = LIMIT  # seconds in which the client is to end
        self.came: Callable[[], int] = lambda: self.client.out.stat().st_size  # how much of `down` the user has
        self._client: Process | None = None
        self._seen: str | None = None
        self._done = threading.Event()

    @property
    def down(self) -> bytes:
        """What the target sends in all."""
        return BANNER + HALF + self.rest + TAIL

    @property
    def client(self) -> Process:
        assert self._client is not None, "it has not been started"
        return self._client

    @property
    def pid(self) -> int:
        """The pid of the client itself, which may have been started by another program."""
        return (descendants(self.client.pid) or [self.client.pid])[-1]

    @property
    def url(self) -> str:
        scheme = "wss" if self.kind == "TLS" else "ws"
        return f"{scheme}://{self.host}:{self.link.port}"

    def begin(self) -> None:
        """Start the client, and wait until the tunnel is at the stage."""
        kinds = {
            "plain": ("--no-resume",),
            "resumable": ("--reconnect-for", str(RECONNECT_FOR)),
            "TLS": ("--reconnect-for", str(RECONNECT_FOR), "--ca-file", str(self.lane.ca_file)),
        }
        command = (
            *(*self.before, *OURS, "connect", *kinds[self.kind]),
            *("--connect-timeout", str(CONNECT_TIMEOUT), "--ping-interval", str(PING), "--ping-timeout", str(PING)),
            *(*self.options, self.url),
        )
        if self.stdout is not None:
            command = ("sh", "-c", f'exec "$@" > {self.stdout}', "sh", *command)
        self._client = self.lane.bed.start(*command, stdin=subprocess.PIPE)
        threading.Thread(target=self._talk, daemon=True).start()
        if self.stage in STAGES[2:]:
            for _ in ticks(LIMIT):
                if self._reached.is_set() and (self.stdout or self.came() >= len(BANNER) // 2):
                    return
            raise AssertionError(f"the tunnel is not at {self.stage}: {self._client.err.read_text()[-1000:]}")

    def _talk(self) -> None:
        """Play ssh: send everything, and end the input once all but the last data have come."""
        with contextlib.suppress(BrokenPipeError):
            self.client.feed(self.up)
            while self.client.status is None and self.came() < len(self.down) - len(TAIL):
                time.sleep(0.02)
            self.client.end_input()

    def go_on(self) -> None:
        """Let the target go on: the fault has happened."""
        self._passed.set()

    def serve(self, connection: socket.socket) -> None:
        """Play the target."""
        connection.settimeout(None)
        try:
            self._seen = self._serve(connection)
        except (AssertionError, ConnectionError) as exc:
            self._seen = "reset" if isinstance(exc, ConnectionError) else str(exc)
        finally:
            self._done.set()

    def _serve(self, connection: socket.socket) -> str:
        connection.sendall(BANNER[: len(BANNER) // 2])
        self._pass("banner")
        connection.sendall(BANNER[len(BANNER) // 2 :])
        received = read_exactly(connection, len(UP) // 2)
        connection.sendall(HALF)
        self._pass("bulk")
        connection.sendall(self.rest)
        received += read_to_end(connection)
        self._pass("end")
        connection.sendall(TAIL)
        return "whole" if received == self.up else f"{len(received)} of {len(self.up)} bytes, and an end"

    def _pass(self, stage: str) -> None:
        if stage == self.stage:
            self._reached.set()
            assert self._passed.wait(self.patience + LIMIT)

    def finish(self) -> Outcome:
        """Wait for the client's end, and see what came of it; raises AssertionError if it takes longer."""
        for _ in ticks(self.patience):
            if self.client.status is not None:
                break
        else:
            raise AssertionError(
                f"the client still runs after {self.patience:g} s: {self.client.err.read_text()[-1000:]}"
            )
        came = self.client.out.read_bytes()
        assert self.down.startswith(came), "other bytes came than were sent"
        self.go_on()
        if self.stage in STAGES[2:] or came == self.down:
            assert self._done.wait(RESUME_FOR + LIMIT), "the target has heard of no end"
        return Outcome(self.client.status or 0, self.client.err.read_text().splitlines(), len(came), self._seen)

    def __enter__(self) -> Scene:
        self.lane.scene = self
        self.link.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.lane.scene = None
        self.go_on()
        self.link.__exit__(None, None, None)
        if self._client is not None:
            self._client.end()
            self.lane.bed.processes.remove(self._client)


class Lane:
    """A target with its bridges, for one scene after another; several lanes run at a time."""

    def __init__(self, folder: Path, ca_file: Path, certificate: Path) -> None:
        folder.mkdir()
        self.ca_file, self.certificate = ca_file, certificate
        self.clock, self.dns = folder / "clock", folder / "dns"
        self.move_clock(0)
        inside = os.pathsep.join((str(ROOT / "tests/faults/inside"), str(ROOT)))
        environment = {"PYTHONPATH": inside, "FAULT_CLOCK": str(self.clock), "FAULT_DNS": str(self.dns)}
        self.bed = Bed(folder, {**os.environ, **environment})
        self.scene: Scene | None = None
        self.target = Target(self._serve)
        self._bridges: dict[str, Bridge] = {}
        self._before: dict[str, tuple[Bridge, Holdings | None, int]] = {}

    def __enter__(self) -> Lane:
        self.bed.__enter__()
        self.target.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.bed.__exit__()
        self.target.__exit__(None, None, None)

    def _serve(self, connection: socket.socket) -> None:
        if self.scene is not None:
            self.scene.serve(connection)

    def move_clock(self, seconds: float) -> None:
        with open(self.clock, "r+b" if self.clock.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))

    def bridge(self, kind: str) -> Bridge:
        """Return the bridge of a kind (tcp or tls), which is started anew if it is no more."""
        known = self._bridges.get(kind)
        if known is not None and known.process.status is None:
            return known
        tls = ("--tls-cert", str(self.certificate)) if kind == "tls" else ()
        bridge = self._bridges[kind] = self.start_bridge(f"127.0.0.1:{self.target.port}", *tls)
        self._before[kind] = (bridge, holdings(bridge) if kind == "tcp" else None, _descriptors(bridge))
        return bridge

    def bridge_to(self, target: str, kind: str) -> Bridge:
        """Return a new bridge, for one scene, to another target."""
        tls = ("--tls-cert", str(self.certificate)) if kind == "TLS" else ()
        bridge = self.start_bridge(target, *tls)
        self._before[f"{len(self._before)}, to {target}"] = (bridge, None, _descriptors(bridge))
        return bridge

    def left_behind(self) -> list[str]:
        """Return what the bridges have more, now that no client is there, than they had before the first."""
        self.scene = None
        left = []
        for kind, (bridge, before, descriptors) in self._before.items():
            if bridge.process.status == -signal.SIGKILL:
                continue  # by a fault
            try:
                assert bridge.process.status is None, (
                    f"it is gone: {bridge.process.status} {bridge.process.log()[-2000:]}"
                )
                if before is not None:
                    assert_nothing_is_left(bridge, before)
                for _ in ticks(LIMIT, 0.2):
                    if _descriptors(bridge) <= descriptors:
                        break
                else:
                    raise AssertionError(f"{_descriptors(bridge)} descriptors, where {descriptors} were")
            except AssertionError as exc:
                left.append(f"left at the bridge ({kind}): {exc}")
        return left

    def start_bridge(self, target: str, *options: str) -> Bridge:
        process = self.bed.start(
            *(*OURS, "serve", "--listen", "127.0.0.1:0", "--target", target, "--resume-for", str(RESUME_FOR)),
            *("--dial-timeout", str(DIAL_TIMEOUT), "--ping-interval", str(PING), "--ping-timeout", str(PING)),
            *options,
        )
        return Bridge(process.wait_for_line(r"ready on (wss?://[^\s,]+)")[1], process)


def _descriptors(bridge: Bridge) -> int:
    return len(os.listdir(f"/proc/{bridge.process.pid}/fd"))
