"""Python imports this at the start of each process that has this folder on its PYTHONPATH: faults from within.

The wall clock (FAULT_CLOCK) is off by the seconds in that file, which a test writes; the monotonic clock is left alone.
At the signal `PROBE` such a process writes what its event loop still has to do into a file beside it. To resolve the
name `HANGING` never ends while the file FAULT_DNS is there.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import time

_REAL = time.time
_CLOCK = os.environ.get("FAULT_CLOCK", "")
_DNS = os.environ.get("FAULT_DNS", "")
PROBE = signal.SIGRTMIN + 5  # the product uses no such signal
HANGING = "hanging.sandbox.test"  # else it is 127.0.0.1


def _follow(place: str) -> None:
    with open(place, "rb") as file:
        offset = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)

    def wall() -> float:
        seconds: float = struct.unpack("d", offset)[0]
        return _REAL() + seconds

    time.time = wall
    time.time_ns = lambda: int(wall() * 1e9)


def _tell_tasks(number: int, frame: object) -> None:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no loop runs now
        return
    lines = sorted(task.get_coro().__qualname__ for task in tasks)
    new = f"{_CLOCK}.{os.getpid()}.new"
    with open(new, "w") as file:
        file.write("\n".join(lines))
    os.replace(new, new.removesuffix(".new"))


def _resolve_slowly() -> None:
    import socket

    resolve = socket.getaddrinfo

    def slow(host: object, *arguments: object, **options: object) -> object:
        numeric = options.get("flags") or arguments[4:5] > (0,)  # which nobody is asked about
        if host in (HANGING, HANGING.encode()) and not numeric:
            while os.path.exists(_DNS):
                time.sleep(0.1)
            host = "127.0.0.1"
        return resolve(host, *arguments, **options)  # type: ignore[arg-type]

    socket.getaddrinfo = slow  # type: ignore[assignment]


if _CLOCK:
    _follow(_CLOCK)
    signal.signal(PROBE, _tell_tasks)
if _DNS:
    _resolve_slowly()
