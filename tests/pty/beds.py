"""Tools for tests of terminal clients: a service, and output that tests wait for."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.bed.processes import Bed, Process
from tests.bed.tunnels import OURS

LIMIT = 20.0  # seconds to wait for output, on a busy machine


@dataclass(frozen=True)
class Service:
    """A running terminal service and its URL."""

    url: str
    process: Process


def start_service(bed: Bed, *options: str) -> Service:
    process = bed.start(*OURS, "serve", "--listen", "none", "--pty", "127.0.0.1:0", *options)
    return Service(process.wait_for_line(r"(http://127\.0\.0\.1:\d+)")[1], process)


class Output:
    """An ``on_data`` callback that keeps the output and lets tests wait for it."""

    def __init__(self) -> None:
        self.data = b""
        self._more = threading.Condition()

    def __call__(self, data: bytes) -> None:
        with self._more:
            self.data += data
            self._more.notify_all()

    def wait_for(self, wanted: bytes) -> None:
        self.wait_for_match(re.escape(wanted))

    def wait_for_line(self, line: bytes) -> None:
        """Wait for a line, whatever bash prints before it."""
        self.wait_for_match(rb"[\r\n]" + re.escape(line) + rb"\r\n")

    def wait_for_match(self, pattern: bytes) -> None:
        with self._more:
            found = self._more.wait_for(lambda: re.search(pattern, self.data), LIMIT)
            assert found, f"no {pattern!r} in {self.data!r}"


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
