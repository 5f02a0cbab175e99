"""The memory of read buffers does not grow with the number of streams that a process has had."""

from __future__ import annotations

import sys

from tests.bed.processes import Bed

PROGRAM = """
from tunnel.protocol.read_buffers import ReadBuffers

def most():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1])

ReadBuffers()
before = most()
for _ in range(10):
    ReadBuffers()
print(most() - before)
"""
ALLOWED = 4096  # KiB, some pairs of buffers


def test_buffers_that_are_made_again_take_no_more_memory(bed: Bed) -> None:
    assert int(bed.check(sys.executable, "-c", PROGRAM).text) < ALLOWED
