"""Programs that tests start: their output goes to files, every wait has a limit, and none outlives its test.

Files, not pipes, because ssh leaves children behind that hold a pipe open long after ssh itself has ended.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT = 60.0  # seconds for a program to start, to say something or to be gone, on a machine with much else to do
open_beds: list[Bed] = []  # what a failing test shows the logs of


@dataclass(frozen=True)
class Finished:
    """A command that has ended: its exit status (negative: the signal) and what it wrote."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode()

    def last_words(self) -> str:
        """What may tell why it failed; some programs complain on standard output."""
        return f"{self.stderr}\n{self.stdout[-2000:].decode(errors='replace')}"


class Process:
    """A running program in a process group of its own, with its output in files under ``folder``."""

    def __init__(
        self,
        argv: Sequence[str],
        stem: Path,
        *,
        stdin: Path | int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.argv = list(argv)
        self.out = stem.with_suffix(".out")
        self.err = stem.with_suffix(".err")
        with contextlib.ExitStack() as files:
            source = files.enter_context(stdin.open("rb")) if isinstance(stdin, Path) else stdin
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL if source is None else source,
                stdout=files.enter_context(self.out.open("wb")),
                stderr=files.enter_context(self.err.open("wb")),
                env=env,
                cwd=stem.parent,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, or None while the program runs."""
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def feed(self, data: bytes) -> None:
        """Write to the standard input of a program that was started with ``stdin=subprocess.PIPE``."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def end_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self, seconds: float) -> int:
        """Wait for the program's own end; raises AssertionError with its log when it takes longer."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s: {shlex.join(self.argv)}\n{self.log()}") from None

    def wait_for_line(self, pattern: str, seconds: float = LIMIT) -> re.Match[str]:
        """Wait until the program has written something that ``pattern`` finds, on either output."""
        for _ in ticks(seconds):
            running = self.status is None
            match = re.search(pattern, self.log())
            if match:
                return match
            if not running:
                break
        raise AssertionError(f"no {pattern!r} within {seconds} s from {shlex.join(self.argv)}\n{self.log()}")

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in (self.out, self.err))

    def end(self, seconds: float = 20) -> None:
        """End the program and everything that it started: SIGTERM, then SIGKILL for what is left."""
        family = [self.pid, *descendants(self.pid)] if self.status is None else []
        for number, limit in ((signal.SIGTERM, seconds), (signal.SIGKILL, LIMIT)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            for pid in family[1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(limit)
                break
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        assert self.status is not None, f"cannot be ended: {shlex.join(self.argv)}"


class Bed:
    """What one test, or a whole run, has started; leaving the ``with`` block ends it all, last started first.

    Its programs have this process's environment, or ``environment`` instead; ``env`` is what one of them has more.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._environment = os.environ if environment is None else environment
        self.processes: list[Process] = []
        self._count = 0

    def __enter__(self) -> Bed:
        open_beds.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        open_beds.remove(self)
        for process in reversed(self.processes):
            process.end()

    def start(
        self,
        *argv: str,
        stdin: Path | int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        self._count += 1
        stem = self.folder / f"{self._count:03}-{Path(argv[0]).name}"
        process = Process(argv, stem, stdin=stdin, env={**self._environment, **(env or {})})
        self.processes.append(process)
        return process

    def run(
        self,
        *argv: str,
        stdin: Path | bytes | None = None,
        env: Mapping[str, str] | None = None,
        seconds: float = 60,
    ) -> Finished:
        """Run a command to its end. Raises AssertionError when it takes longer than ``seconds``."""
        if isinstance(stdin, bytes):
            source = self.folder / f"{self._count + 1:03}-stdin"
            source.write_bytes(stdin)
            stdin = source
        process = self.start(*argv, stdin=stdin, env=env)
        try:
            status = process.wait(seconds)
        finally:
            process.end()
        self.processes.remove(process)
        return Finished(status, process.out.read_bytes(), process.err.read_text(errors="replace"))

    def check(
        self,
        *argv: str,
        stdin: Path | bytes | None = None,
        env: Mapping[str, str] | None = None,
        seconds: float = 60,
    ) -> Finished:
        """`run`, for a command that must succeed."""
        finished = self.run(*argv, stdin=stdin, env=env, seconds=seconds)
        assert finished.status == 0, f"exit status {finished.status}: {shlex.join(argv)}\n{finished.last_words()}"
        return finished

    def start_on_free_port(
        self,
        command: Callable[[int], Sequence[str]],
        ready: str | None = None,
    ) -> tuple[Process, int]:
        """Start a server that cannot choose its port itself.

        Another program may take the port between the choice and the start, so that is tried a few times.
        ``ready`` is the line to wait for; None waits until the port takes connections.
        """
        for _ in range(5):
            port = free_port()
            process = self.start(*command(port))
            try:
                if ready is None:
                    wait_for_port(port, process)
                else:
                    process.wait_for_line(ready)
                return process, port
            except AssertionError:
                process.end()
                if not re.search(r"(?i)in use|cannot bind|unable to create listening", process.log()):
                    raise
        raise AssertionError(f"found no free port for {shlex.join(command(0))}")


def program(name: str) -> str:
    """Return the path of a program that the machine must have; daemons are not on every user's PATH."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/local/sbin")
    assert found, f"{name} is missing: scripts/test installs it"
    return found


def ticks(seconds: float, pause: float = 0.02) -> Iterator[None]:
    """Yield now and then until ``seconds`` have passed: the loop of every wait."""
    end = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() >= end:
            return
        time.sleep(pause)


def free_port() -> int:
    """Return a closed loopback port that nothing else will open: each is given out once.

    It is below those that the kernel assigns, and each worker of pytest-xdist has a range of its own.
    """
    for port in _ports:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports have been given away")


def _own_ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % len(_RANGES)
    ports = list(_RANGES[worker])
    start = random.randrange(len(ports))  # those of the last run may still be waiting for stray packets
    yield from ports[start:] + ports[:start]


_RANGES = [range(start, start + 3000) for start in range(20_000, 32_000, 3000)]
_ports = _own_ports()


def wait_for_port(port: int, process: Process, seconds: float = LIMIT) -> None:
    """Wait until ``process`` takes connections on the loopback port."""
    for _ in ticks(seconds):
        assert process.status is None, f"ended at once: {shlex.join(process.argv)}\n{process.log()}"
        with socket.socket() as probe:
            failure = probe.connect_ex(("127.0.0.1", port))
        if failure == 0:
            return
        assert failure == errno.ECONNREFUSED, os.strerror(failure)
    raise AssertionError(f"no connection within {seconds} s: {shlex.join(process.argv)}\n{process.log()}")


def descendants(pid: int) -> list[int]:
    """The processes that ``pid`` has started, directly or not, and that still run."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = []
    waiting = [pid]
    while waiting:
        offspring = children.get(waiting.pop(), [])
        found += offspring
        waiting += offspring
    return found


def running(argument: str) -> list[int]:
    """All processes that have ``argument`` on their command line, started by this test or not."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if argument.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
