"""Learning of the end of a child without reaping it, so that its pid stays its own until the caller is ready."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable


def watch_for_exit(pid: int, on_exit: Callable[[], object]) -> None:
    """Call ``on_exit`` once in the running loop when the child ``pid`` has ended; it is not reaped by this.

    A pidfd tells of the end. (A child watcher of asyncio would cost a thread per process on Python 3.11, and would
    reap on its own.)
    """
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(pid)
    except (AttributeError, OSError):  # an older kernel, or none of Linux
        threading.Thread(target=_wait_in_thread, args=(loop, pid, on_exit), daemon=True).start()
        return

    def readable() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        on_exit()

    loop.add_reader(pidfd, readable)


def _wait_in_thread(loop: asyncio.AbstractEventLoop, pid: int, on_exit: Callable[[], object]) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        loop.call_soon_threadsafe(on_exit)
    except RuntimeError:
        pass  # the loop is closed, and the program about to end
