"""Letting children end with this process, however it ends: on Linux the kernel kills them (PR_SET_PDEATHSIG).

A process can only ask for that itself, and after the change of its user, which would take it back. There are two ways
to do it between fork and the command:

- setpriv(1) of util-linux asks and then turns into /bin/sh. So the child is started with vfork(2), which costs nothing
  however much memory this process has, and setpriv 0.7 ms.
- Where there is no such setpriv, and where `subprocess` has to fork anyway as the user changes, Python asks in the
  child. fork(2) copies page tables meanwhile: 2 ms, and 20 ms when this process has 400 MB. That is safe although other
  threads may exist: it makes two system calls through a function that was looked up beforehand, with numbers as
  arguments, and so waits for no lock that a thread may have held at the fork; the allocator's locks are seen to by the
  C library. ``PyDLL`` keeps hold of the interpreter's lock, which the forking thread has.

Either way the child then looks whether its parent is still this process, which may have ended before. The kernel counts
the thread that has forked as the parent, so children are started in a service's main thread.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

RUN = 'exec "$@"'  # a script that turns into the command that it is given
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
        return None  # a Python without ctypes: children are told by the ends of their streams only
    found: Callable[..., int] = prctl
    return found


_prctl = _look_up()


def tied(script: str, arguments: Sequence[str], *, forks: bool) -> tuple[list[str], Callable[[], None] | None]:
    """Return the command that runs a ``script`` of /bin/sh and ends with this process, and what is called before exec.

    ``forks``: the child is started with fork(2), whatever this does.
    """
    setpriv = None if forks or _prctl is None else _setpriv()
    if setpriv is None:
        return untied(script, arguments), _ask_in_child()
    return [*setpriv, *_SHELL, _CHECK + script, "sh", str(os.getpid()), *arguments], None


def untied(script: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a ``script`` of /bin/sh, and need not end with this process."""
    return list(arguments) if script == RUN else [*_SHELL, script, "sh", *arguments]


@functools.cache
def _setpriv() -> tuple[str, ...] | None:
    """Return the beginning of a command line that asks for the signal; None: there is no such program."""
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
    return command if probe.returncode == 42 else None  # BusyBox's does not know the option


def _ask_in_child() -> Callable[[], None] | None:
    if _prctl is None:
        return None
    prctl, parent = _prctl, os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it has ended before that
            os._exit(1)

    return ask


def is_subreaper() -> bool:
    """Whether orphans among this process's descendants become its children, as those of process 1 do."""
    if _prctl is None:
        return False
    import ctypes

    answer = ctypes.c_int()
    return _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer), 0, 0, 0) == 0 and answer.value != 0
