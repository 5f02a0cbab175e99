"""What users do in a soak: shells through ssh, copies by scp, terminals by `wstunnel-py shell`; each checks its bytes.

A session runs for some seconds in its own thread. It ends with all its bytes, or the soak has killed its client, or it
is lost; then it says what was wrong.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from soaklib.lab import Lab
from tests.bed.processes import Bed, Process, descendants, ticks
from tests.bed.targets import checksum
from tests.bed.tunnels import OURS

STEP = 120.0  # seconds that one step may take: longer than all faults together, and the time to notice them
# What the client may print about an outage that it survived.
_TOLD = re.compile(r"wstunnel-py: (connection lost, trying again for|connected again after|not up yet) .*")
# What it prints if the connection broke before the session began: then nothing can be lost. An outage of a session
# begins with the same words, and a comma.
_NOT_BEGUN = re.compile(
    r"wstunnel-py: "
    r"(cannot connect to\b|connection lost:|\S+ (refused the connection|closed the connection|did not answer)\b)"
)


class Lost(Exception):
    """A session failed although nobody killed it."""


class Killed(Exception):
    """The client of a session was killed by the soak."""


class NotBegun(Exception):
    """The connection broke before there was a session."""


class Clients:
    """The client programs that run now, so that they can be stopped and killed; and the results of sessions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Process, bool] = {}  # whether it was killed
        self.done: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.lost: list[str] = []
        self._stopped = False

    def add(self, process: Process) -> None:
        with self._lock:
            self._running[process] = self._stopped
            if self._stopped:
                process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Kill all clients, also those that are started from now on; they are not lost."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                self._running[process] = True
                process.send_signal(signal.SIGKILL)

    def remove(self, process: Process) -> bool:
        """Forget a client; return whether it was killed."""
        with self._lock:
            return self._running.pop(process, False)

    def choose(self, chance: random.Random, *, kill: bool = False) -> int | None:
        """Return the pid of one of the clients, or None if there is none; ``kill`` marks it as killed."""
        with self._lock:
            candidates = sorted(self._running, key=lambda process: process.pid)
            chance.shuffle(candidates)
            for process in candidates:
                if (pid := _client_of(process)) is not None:
                    self._running[process] = self._running[process] or kill
                    return pid
        return None

    def whole(self, kind: str, size: int) -> None:
        with self._lock:
            self.done[kind] += 1
            self.sizes[kind] += size

    def ended_otherwise(self, kind: str, how: str) -> None:
        with self._lock:
            self.done[f"{kind}, {how}"] += 1

    def was_lost(self, kind: str, why: str) -> None:
        with self._lock:
            if self._stopped:
                return
            self.lost.append(f"{kind}: {why}")
            print(f"lost: {self.lost[-1]}", flush=True)


def _client_of(process: Process) -> int | None:
    """Return the pid of the client: the program itself, or the ProxyCommand of ssh or scp."""
    if process.status is not None:
        return None
    for pid in (process.pid, *descendants(process.pid)):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"tunnel" in words and (b"connect" in words or b"shell" in words) and words[0].endswith(b"python"):
                return pid
    return None


class User:
    """A user, who runs one session after another until ``over``, of random ``kinds``."""

    def __init__(self, lab: Lab, clients: Clients, name: str, seed: str, kinds: tuple[str, ...]) -> None:
        self._lab = lab
        self._clients = clients
        self._bed: Bed = lab.new_bed(name)
        self._chance = random.Random(f"{seed} {name}")
        self._kinds = kinds
        self._acts: dict[str, Callable[[], int]] = {
            "ssh": lambda: self._shell(0),
            "ssh to the embedded server": lambda: self._shell(1),
            "scp": lambda: self._copy(0),
            "scp to the embedded server": lambda: self._copy(1),
            "shell": self._terminal,
        }

    def run(self, over: threading.Event) -> None:
        while not over.is_set():
            kind = self._chance.choice(self._kinds)
            try:
                self._do(kind)
            except Exception as exc:  # any error counts as a loss, and is reported
                self._clients.was_lost(kind, f"{type(exc).__name__}: {exc}")

    def _do(self, kind: str) -> None:
        try:
            size = self._acts[kind]()
        except Killed:
            self._clients.ended_otherwise(kind, "killed")
        except NotBegun:
            self._clients.ended_otherwise(kind, "not begun")
        else:
            self._clients.whole(kind, size)
        for path in self._bed.folder.iterdir():
            path.unlink()

    # ---- programs

    def _start(self, *argv: str) -> Process:
        process = self._bed.start(*argv, stdin=subprocess.PIPE)
        self._clients.add(process)
        return process

    def _finish(self, process: Process) -> None:
        """Wait for the end of a program. Raises Lost, or Killed."""
        try:
            with contextlib.suppress(BrokenPipeError):  # the exit status shows why
                process.end_input()
            ended = process.wait(STEP)
        finally:
            killed = self._clients.remove(process)
            process.end()
            self._bed.processes.remove(process)
        if killed:
            raise Killed
        lines = process.err.read_text(errors="replace").splitlines()
        if ended and any(map(_NOT_BEGUN.match, lines)) and not process.out.stat().st_size:
            raise NotBegun
        if ended:
            raise Lost(f"exit status {ended} after {process.out.stat().st_size} bytes: {' / '.join(lines)[-500:]}")
        if other := [line for line in lines if not _TOLD.fullmatch(line)]:
            raise Lost(f"it said {' / '.join(other)[-500:]}")

    def _converse(self, process: Process, word: Callable[[int], tuple[bytes, bytes]]) -> int:
        """Send data and wait for the answer, several times; then end. Returns the number of bytes received."""
        expected = b""
        try:
            until = time.monotonic() + self._chance.uniform(2, 8)
            number = 0
            while time.monotonic() < until:
                said, answer = word(number)
                expected += answer
                number += 1
                process.feed(said)
                for _ in ticks(STEP):
                    if process.out.stat().st_size >= len(expected) or process.status is not None:
                        break
                else:
                    raise Lost(
                        f"{process.out.stat().st_size} of {len(expected)} bytes came back within {STEP:g} s; "
                        f"{process.err.read_text(errors='replace')[-500:]}"
                    )
                if process.status is not None:
                    break
                time.sleep(self._chance.uniform(0, 0.5))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the exit status shows why
        except Lost:
            process.send_signal(signal.SIGKILL)
            if self._clients.remove(process):
                raise Killed from None
            raise
        self._finish(process)
        came = process.out.read_bytes()
        if came != expected:
            raise Lost(f"{len(came)} bytes arrived instead of {len(expected)}")
        return len(came)

    # ---- what they do

    def _shell(self, number: int) -> int:
        """Talk through ssh to a program that sends everything back."""

        def word(_: int) -> tuple[bytes, bytes]:
            data = self._chance.randbytes(self._chance.choice((1, 10, 1000, 100_000, 1_000_000)))
            return data, data

        return self._converse(self._start("ssh", "-F", str(self._lab.configs[number]), "box", "cat"), word)

    def _copy(self, number: int) -> int:
        """Copy a file up or down, for some seconds."""
        size = self._chance.choice((0, 1, 65_536, 1_000_000, 4_000_000))
        near, far = self._bed.folder / "near", self._bed.folder / "far"
        data = self._chance.randbytes(size)
        up = self._chance.random() < 0.5
        (near if up else far).write_bytes(data)
        places = (str(near), f"box:{far}") if up else (f"box:{far}", str(near))
        process = self._start("scp", "-F", str(self._lab.configs[number]), "-q", "-l", "10000", *places)
        self._finish(process)
        if checksum((far if up else near).read_bytes()) != checksum(data):
            raise Lost("the copy differs from the file")
        return size

    def _terminal(self) -> int:
        """Type lines on a terminal, whose program answers each of them, and then end it."""
        program = "stty -echo; echo ready; while read -r word; do echo got-$word; done"
        url = f"http://127.0.0.1:{self._lab.service.port}"
        options = ("--token-file", str(self._lab.token_file), "--grace", str(self._lab.resume_for))
        process = self._start(*OURS, "shell", url, *options, "--", "/bin/sh", "-c", program)

        def word(number: int) -> tuple[bytes, bytes]:
            if number == 0:
                return b"", b"ready\r\n"
            text = b"%d-%s" % (number, self._chance.randbytes(40).hex().encode())
            return text + b"\n", b"got-" + text + b"\r\n"

        return self._converse(process, word)
