"""Children that end with this process, however it ends: on Linux the kernel kills them (PR_SET_PDEATHSIG).

Only the child itself can ask for that, and only after it has changed its user, which resets the setting. There are two
ways to do so between fork and exec of the command:

- setpriv(1) of util-linux sets it and then executes /bin/sh. The child can be started with vfork(2), whose cost does
  not depend on this process's memory; setpriv takes 0.7 ms.
- Without setpriv, or if `subprocess` must fork anyway to change the user, Python sets it in the child. fork(2) copies
  page tables: 2 ms, or 20 ms if this process has 400 MB. This is safe even with other threads: the child makes two
  system calls through a function that was looked up before, with numbers as arguments, so it waits for no lock that
  another thread may have held; the C library takes care of the allocator's locks. ``PyDLL`` keeps the GIL, which the
  forking thread holds.

Then the child checks that its parent is still this process, which may have ended before. For the kernel the parent is
the thread that forked, so children are started in a service's main thread.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

RUN = 'exec "$@"'  # a script that executes its arguments
_SHELL = ("/bin/sh", "-c")
_CHECK = '[ "$PPID" = "$1" ] || exit 1; shift; '
_PROBE_LIMIT = 5.0  # seconds

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_GET_CHILD_SUBREAPER = 37


def _look_up() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        prctl = ctypes.PyDLL(None).prctl
        prctl.argtypes = (ctypes.c_int, *(4 * [ctypes.c_ulong]))
        prctl.restype = ctypes.c_int
    except (ImportError, OSError, AttributeError):
        return None  # a Python without ctypes: children only notice the end of their streams
    found: Callable[..., int] = prctl
    return found


_prctl = _look_up()


def tied(script: str, arguments: Sequence[str], *, forks: bool) -> tuple[list[str], Callable[[], None] | None]:
    """Return the command for a ``script`` of /bin/sh that ends with this process, and a function to call before exec.

    ``forks``: the child will be started with fork(2) in any case.
    """
    setpriv = None if forks or _prctl is None else _setpriv()
    if setpriv is None:
        return untied(script, arguments), _ask_in_child()
    return [*setpriv, *_SHELL, _CHECK + script, "sh", str(os.getpid()), *arguments], None


def untied(script: str, arguments: Sequence[str]) -> list[str]:
    """Return the command for a ``script`` of /bin/sh that need not end with this process."""
    return list(arguments) if script == RUN else [*_SHELL, script, "sh", *arguments]


@functools.cache
def _setpriv() -> tuple[str, ...] | None:
    """Return a command line prefix that requests the signal; None if there is no suitable setpriv."""
    path = shutil.which("setpriv")
    if path is None:
        return None
    command = (path, "--pdeathsig", "KILL", "--")
    try:
        probe = subprocess.run(
            [*command, *_SHELL, "exit 42"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_LIMIT,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return command if probe.returncode == 42 else None  # BusyBox's setpriv lacks the option


def _ask_in_child() -> Callable[[], None] | None:
    if _prctl is None:
        return None
    prctl, parent = _prctl, os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent has ended already
            os._exit(1)

    return ask


def is_subreaper() -> bool:
    """Return whether orphaned descendants of this process become its children, as they become those of process 1."""
    if _prctl is None:
        return False
    import ctypes

    answer = ctypes.c_int()
    return _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer), 0, 0, 0) == 0 and answer.value != 0
