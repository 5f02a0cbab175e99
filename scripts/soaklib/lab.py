"""The servers of a soak: two bridges and a terminal service, each behind a link that fails on request.

The target of one bridge is an OpenSSH server, that of the other the embedded SSH server; a third process also serves
terminals and their page. `Lab.check` compares what they hold while nobody is connected with what they held at first.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bed.invariants import Holdings, assert_nothing_is_left, holdings
from tests.bed.processes import Bed, descendants, ticks
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, Bridge
from tests.faults.inside.sitecustomize import PROBE
from tests.faults.link import Link
from tests.faults.seen import resident
from tests.server.clients import port_of

ROOT = Path(__file__).resolve().parents[2]
GROWTH = 40 << 20  # bytes by which a bridge may grow after the first round
LIMIT = 65.0  # seconds until everything must be released: a minute after a restart in place, more on a busy machine
_QUICK = ("--ping-interval", "2", "--ping-timeout", "3")  # so that silence is noticed before a session expires


class NoRestart(Exception):
    """The bridge cannot be restarted in place."""


@dataclass
class Server:
    """A server under test: its bridge, and what it held before the first client.

    ``memory`` is that after the first round, when everything is loaded; ``asked`` counts restarts in place.
    """

    name: str
    bridge: Bridge
    holdings: Holdings
    tasks: Counter[str]
    memory: int = 0
    asked: int = 0

    def restarted(self) -> list[str]:
        """Return the lines of the log about restarts; those of failures give the reason."""
        return re.findall(r"^\S+ \w+ (restarted|restart-failed .*)", self.bridge.process.log(), re.MULTILINE)

    def restart(self) -> bool:
        """Start a restart in place, unless one is under way."""
        if len(self.restarted()) < self.asked:
            return False
        self.asked += 1
        self.bridge.process.send_signal(signal.SIGUSR2)
        return True

    def wait_for_restart(self) -> str:
        """Wait for the last restart, and return its line of the log."""
        for _ in ticks(LIMIT, 0.1):
            if len(told := self.restarted()) >= self.asked:
                return told[-1]
            assert self.bridge.process.status is None, f"{self.name} is gone\n{self.bridge.process.log()[-2000:]}"
        raise AssertionError(f"{self.name} was not restarted within {LIMIT} s\n{self.bridge.process.log()[-2000:]}")


class Lab:
    """The servers, as a context manager. ``links`` are in front of the bridges and of the terminal service.

    ``resume_for`` is how many seconds a session of a killed client stays.
    """

    def __init__(self, folder: Path, resume_for: int) -> None:
        self.folder = folder
        self.resume_for = resume_for
        self._stack = contextlib.ExitStack()
        self.servers: list[Server] = []
        self._clock = folder / "clock"
        self._clock.write_bytes(struct.pack("d", 0.0))
        for name in ("bed", "home"):
            (folder / name).mkdir()
        # Shells read the account's own profile. If that is pyenv's, each takes a lock, and one that is killed meanwhile
        # makes all others wait for a minute.
        self._no_rehash = folder / "no-rehash"
        self._no_rehash.write_text('[ "${0##*/}" != pyenv-rehash ] || exit 0\n')

    def __enter__(self) -> Lab:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        bed = self.bed = self.new_bed("bed")
        self.sshd = Sshd(bed, self.folder / "sshd")
        self.token = secrets.token_urlsafe(16)
        self.token_file = self.folder / "token"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(f"{self.token}\n")
        common = (
            *OURS,
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--resume-for",
            str(self.resume_for),
            "--drain",
            "0",
            *_QUICK,
        )
        keys = self.sshd.folder
        sshd = ("--target", f"127.0.0.1:{self.sshd.port}")
        options = {
            "the bridge": sshd,
            "the embedded server": (
                *("--target", "embedded", "--authorized-keys", str(keys / "authorized_keys")),
                *("--host-key", str(keys / "host")),
            ),
            "the terminals": (*sshd, "--pty", "127.0.0.1:0", "--web", "--pty-token-file", str(self.token_file)),
        }
        processes = {name: bed.start(*common, *more) for name, more in options.items()}
        for name, process in processes.items():
            url = process.wait_for_line(r"ready on (ws://[^\s,]+)")[1]
            bridge = Bridge(url, process)
            self.servers.append(Server(name, bridge, holdings(bridge), self._tasks(bridge)))
        service = processes["the terminals"].wait_for_line(r"http://127\.0\.0\.1:(\d+)")[1]
        ports = [*(port_of(server.bridge.url) for server in self.servers[:2]), int(service)]
        *self.links, self.service = (self._stack.enter_context(Link(port)) for port in ports)
        self.configs = [self._ssh_config(number, link) for number, link in enumerate(self.links)]
        self._own = {process.pid for process in bed.processes}

    def try_restarts(self) -> list[Server]:
        """Restart each server in place; return those that can be. Raises NoRestart if the bridge cannot."""
        able = []
        for server in self.servers:
            status = Path(f"/proc/{server.bridge.process.pid}/status").read_text()
            caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
            if not caught >> (signal.SIGUSR2 - 1) & 1:
                raise NoRestart(f"{server.name} does not restart in place: it would die of SIGUSR2")
            server.restart()
        for server in self.servers:
            how = server.wait_for_restart()
            if how == "restarted":
                able.append(server)
                server.holdings, server.tasks = holdings(server.bridge), self._tasks(server.bridge)
            elif server is self.servers[0]:
                raise NoRestart(f"{server.name} does not restart in place: {how}")
            else:
                print(f"{server.name}: no restart in place: {how}", flush=True)
        return able

    def new_bed(self, name: str) -> Bed:
        """Return a separate bed to start programs in; they see the moved clock."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WSTUNNEL_PY_", "XDG_"))}
        environment = {
            **{name: value for name, value in kept.items() if not name.lower().endswith("_proxy")},
            "HOME": str(self.folder / "home"),
            "HISTFILE": "/dev/null",
            "BASH_ENV": str(self._no_rehash),
            "PYTHONPATH": os.pathsep.join((str(ROOT / "tests/faults/inside"), str(ROOT))),
            "FAULT_CLOCK": str(self._clock),
        }
        return self._stack.enter_context(Bed(folder, environment))

    def _ssh_config(self, number: int, link: Link) -> Path:
        command = (*OURS, "connect", *_QUICK, "--wait", "30", link.url)
        return self.sshd.write_client_config(self.folder / f"ssh_config.{number}", command)

    # ---- the clock

    def move_clock(self, seconds: float) -> None:
        """Let the wall clock of all processes under test be off by ``seconds``."""
        with self._clock.open("r+b") as file:
            file.write(struct.pack("d", seconds))

    # ---- checks

    def check(self) -> list[str]:
        """Return a line for each thing that is left now that nobody is connected; none if all is as before."""
        left = []
        for server in self.servers:
            name, bridge = server.name, server.bridge
            try:
                assert_nothing_is_left(bridge, server.holdings, self.resume_for + LIMIT)
            except AssertionError as exc:
                left.append(f"{name}: {exc}")
                continue
            for _ in ticks(LIMIT, 0.2):
                more = self._tasks(bridge) - server.tasks
                if not more:
                    break
            if more:
                left.append(f"{name}: tasks left: {dict(more)}")
            memory = resident(bridge.process.pid)
            server.memory = server.memory or memory
            if memory > server.memory + GROWTH:
                left.append(f"{name}: memory grew from {server.memory >> 20} MiB to {memory >> 20} MiB")
        programs: Mapping[int, str] = {}
        for _ in ticks(LIMIT, 0.2):
            programs = dict(self._strangers())
            if not programs:
                break
        left += [f"a process: {line}" for line in programs.values()]
        return left

    def memory(self) -> str:
        return ", ".join(f"{resident(server.bridge.process.pid) >> 20} MiB" for server in self.servers)

    def _strangers(self) -> Iterator[tuple[int, str]]:
        """Yield the processes of users, and of their shells behind sshd; the bridges' processes are not among them."""
        mark = f"FAULT_CLOCK={self._clock}".encode()
        kept = self._own.union(*(descendants(server.bridge.process.pid) for server in self.servers))
        behind = set(descendants(self.sshd.process.pid))
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            with contextlib.suppress(OSError):
                ours = pid in behind or mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if ours and pid not in kept and words[0]:  # a zombie has no words
                    yield pid, b" ".join(words).decode(errors="replace").strip()

    def _tasks(self, bridge: Bridge) -> Counter[str]:
        """Return the tasks of the bridge's event loop, by the names of their coroutines."""
        pid = bridge.process.pid
        told = Path(f"{self._clock}.{pid}")
        told.unlink(missing_ok=True)
        for _ in ticks(LIMIT, 0.5):
            bridge.process.send_signal(PROBE)
            for _ in ticks(0.5):
                if told.exists():
                    return Counter(told.read_text().splitlines())
        raise AssertionError(f"process {pid} did not report its tasks")
