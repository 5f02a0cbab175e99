"""Restarts in place, from outside: the signal, and the log line with the result."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.bed.processes import Process, ticks
from tunnel.restart import state

LIMIT = 60.0  # seconds for a restart on a machine that is busy


def carried(tree: state.Tree) -> state.Tree:
    """Return what comes of a state that is written into a file and read from it."""
    file = state.create()
    try:
        state.write(file, "0", {"part": tree}, state.Kept())
        return state.read(file, on_trial=False)[0]["part"]
    finally:
        os.close(file)


def restart(process: Process) -> str:
    """Restart the service in place; return the line that tells so, of the new version."""
    return _signal(process, "restarted")


def refused(process: Process) -> str:
    """Ask for a restart that is refused; return the reason."""
    line = _signal(process, "restart-failed")
    match = re.search(r'reason="(.*?)" kept="the version in use"', line)
    assert match, line
    return match[1]


def lines_of(process: Process, event: str) -> list[str]:
    return re.findall(rf"^\S+ \w+ {event}\b.*$", process.log(), re.MULTILINE)


def wait_for_lines(process: Process, event: str, count: int) -> list[str]:
    for _ in ticks(LIMIT):
        lines = lines_of(process, event)
        if len(lines) >= count:
            return lines
        assert process.status is None, f"ended with {process.status}\n{process.log()}"
    raise AssertionError(f"{count} lines of {event} did not come within {LIMIT} s\n{process.log()}")


def wait_for(path: Path) -> None:
    for _ in ticks(LIMIT):
        if path.exists():
            return
    raise AssertionError(f"no {path} within {LIMIT} s")


def _signal(process: Process, event: str) -> str:
    before = len(lines_of(process, event))
    process.send_signal(signal.SIGUSR2)
    return wait_for_lines(process, event, before + 1)[-1]
