"""The sandboxes of the test cloud: each is a real bridge and terminal service, stopped and continued as its state says.

A sandbox that is paused is stopped (SIGSTOP), with all that runs in it, and its connections are cut; one that is killed
is ended.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.bed.processes import Bed, Process, descendants
from tests.bed.tunnels import OURS

BRIDGE, DAEMON = 8081, 49983  # ports in a sandbox: of the bridge, and of E2B's daemon, which terminals are from
RUNNING, PAUSING, PAUSED, KILLED = "running", "pausing", "paused", "killed"


class Machine:
    """One sandbox. ``ends`` and ``started`` are seconds since the epoch, ``longest`` how long it may live at all."""

    def __init__(self, template: str, request: dict[str, Any], *, longest: float) -> None:
        self.id = "i" + secrets.token_hex(10)[:19]
        self.template = template
        self.metadata: dict[str, str] = request.get("metadata") or {}
        self.longest = longest
        self.auto_pause = bool(request.get("autoPause"))
        self.auto_resume = bool((request.get("autoResume") or {}).get("enabled"))
        self.is_private = (request.get("network") or {}).get("allowPublicTraffic") is False
        self.envd_token = "ea_" + secrets.token_hex(20)
        self.traffic_token = "ta_" + secrets.token_hex(20)
        self.connection_limit = 1000
        self.state = RUNNING
        self.ports: dict[int, int] = {}
        self.cut: set[Callable[[], object]] = set()  # what cuts each of its connections
        self.process: Process | None = None
        self.begin(float(request.get("timeout", 15)))

    def begin(self, seconds: float) -> None:
        self.started = time.time()
        self.ends = self.started + min(seconds, self.longest)

    def boot(self, bed: Bed, target_port: int, domain: str) -> None:
        """Start the bridge to a target, and the terminal service, which takes the sandbox's access token."""
        token = bed.folder / f"{self.id}.token"
        token.touch(mode=0o600)
        token.write_text(f"{self.envd_token}\n")
        self.process = bed.start(
            *OURS, "serve", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target_port}", "--pty", "127.0.0.1:0",
            "--pty-token-file", str(token), "--pty-host", f"{DAEMON}-{self.id}.{domain.partition(':')[0]}",
        )  # fmt: skip
        bridge = self.process.wait_for_line(r"ready on ws://127\.0\.0\.1:(\d+)")[1]
        daemon = self.process.wait_for_line(r"http://127\.0\.0\.1:(\d+)")[1]
        self.ports = {BRIDGE: int(bridge), DAEMON: int(daemon)}

    def extend(self, seconds: float, *, shorter: bool = False) -> bool:
        """Let it live for ``seconds`` from now; return False if its longest life is over."""
        now = time.time()
        left = self.started + self.longest - now
        if left <= 0:
            return False
        ends = now + min(left, seconds)
        self.ends = ends if shorter else max(ends, self.ends)
        return True

    def pause(self) -> None:
        self.state = PAUSED
        self._signal(signal.SIGSTOP)
        self.cut_connections()

    def resume(self, seconds: float) -> None:
        self._signal(signal.SIGCONT)
        self.begin(seconds)
        self.state = RUNNING

    def kill(self) -> None:
        self.state = KILLED
        self._signal(signal.SIGCONT)
        if self.process is not None:
            self.process.end()
        self.cut_connections()

    def rotate(self) -> None:
        """Give it another traffic token; connections that are open stay so until they are cut."""
        self.traffic_token = "ta_" + secrets.token_hex(20)

    def cut_connections(self) -> None:
        for cut in list(self.cut):
            cut()

    def _signal(self, number: int) -> None:
        if self.process is not None and self.process.status is None:
            for pid in (self.process.pid, *descendants(self.process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


class Clockwork:
    """Pauses or kills the sandboxes whose time is over, as E2B's orchestrator does."""

    def __init__(self, machines: dict[str, Machine], lock: threading.RLock) -> None:
        self._machines = machines
        self._lock = lock
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            with self._lock:
                for machine in list(self._machines.values()):
                    if machine.state == RUNNING and time.time() >= machine.ends:
                        machine.pause() if machine.auto_pause else machine.kill()
