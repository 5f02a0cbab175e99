"""Noticing the end of a child without reaping it, so that its pid is not reused until the caller reaps it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable

from tunnel.net.event_loop import leave_signals_to_main_thread


def watch_for_exit(pid: int, on_exit: Callable[[], object]) -> None:
    """Call ``on_exit`` once in the running loop when the child ``pid`` has ended. This does not reap it.

    It uses a pidfd. An asyncio child watcher would need a thread per process on Python 3.11, and would reap.
    """
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(pid)
    except (AttributeError, OSError):  # an old kernel, or not Linux
        threading.Thread(target=_wait_in_thread, args=(loop, pid, on_exit), daemon=True).start()
        return

    def readable() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        on_exit()

    loop.add_reader(pidfd, readable)


def _wait_in_thread(loop: asyncio.AbstractEventLoop, pid: int, on_exit: Callable[[], object]) -> None:
    leave_signals_to_main_thread()
    with contextlib.suppress(ChildProcessError):  # it has been killed and reaped meanwhile
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        loop.call_soon_threadsafe(on_exit)
    except RuntimeError:
        pass  # the loop is closed: the program is about to end
