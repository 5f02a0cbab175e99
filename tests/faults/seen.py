"""What a user sees of our client: bytes on standard output, one line on standard error or none, an exit code."""

from __future__ import annotations

import json
import os
import resource
from typing import Any

from tests.bed.processes import Process, ticks
from tests.bed.tunnels import Bridge
from tests.server.clients import ask

LIMIT = 30.0  # seconds that any single wait may take


def wait_for_output(process: Process, size: int, seconds: float = LIMIT) -> None:
    """Wait until the client has written ``size`` bytes to standard output."""
    for _ in ticks(seconds):
        if process.out.stat().st_size >= size:
            return
        if process.status is not None:
            break
    raise AssertionError(
        f"{process.out.stat().st_size} of {size} bytes came, exit status {process.status}\n{process.err.read_text()}"
    )


def assert_one_line(process: Process, *words: str) -> None:
    """Our client names what happened in exactly one line."""
    line = process.err.read_text()
    assert line.startswith("wstunnel-py: ") and line.count("\n") == 1, line
    assert all(word in line for word in words), line


def health(bridge: Bridge) -> dict[str, Any]:
    """The answer of the bridge's /healthz."""
    answer: dict[str, Any] = ask(bridge.url, "/healthz", headers={}).json
    return answer


def wait_for_detached(bridge: Bridge, count: int, seconds: float = LIMIT) -> None:
    """Wait until so many sessions wait to be resumed."""
    for _ in ticks(seconds):
        if health(bridge)["detached"] == count:
            return
    raise AssertionError(f"{json.dumps(health(bridge))}: not {count} detached\n{bridge.process.log()[-3000:]}")


def wait_for_tunnels(bridge: Bridge, tunnels: int, detached: int = 0, seconds: float = LIMIT) -> None:
    """Wait until the bridge has so many tunnels, and so many sessions that wait to be resumed."""
    for _ in ticks(seconds):
        told = health(bridge)
        if (told["tunnels"], told["detached"]) == (tunnels, detached):
            return
    raise AssertionError(f"{json.dumps(told)}: not {tunnels} tunnels, {detached} detached")


def leave_one_descriptor(service: Process) -> None:
    """Let a service open one file more, and no further ones until it has closed others."""
    pid = service.pid
    before: set[int] = set()
    for _ in ticks(LIMIT, 0.2):
        taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        if taken == before:
            break
        before = taken  # connections of this test may be about to be closed
    _, limit, *_ = (number for number in range(max(before) + 3) if number not in before)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024
