"""Executing the new version: the same interpreter with the same arguments, in the same process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

# The signals that a service handles. The kernel keeps one of each pending while they are blocked, even across an exec.
SIGNALS = frozenset(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2") if hasattr(signal, name)
)


def command() -> list[str]:
    """Return the command that starts this program again: the path of the interpreter, then the original arguments.

    Relative paths stay valid, because the working directory does not change.
    """
    return [sys.executable, *sys.orig_argv[1:]]


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block the `SIGNALS`; those that arrive meanwhile are delivered afterwards, here or to the new version."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Deliver the signals that have arrived since the old version blocked them. Install the handlers first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def inherited() -> set[int]:
    """Return the descriptors, besides the standard ones, that this process was started with and an exec keeps open.

    Options may name them (``/dev/fd/3``). Python lets an exec close all that it opens itself.
    """
    try:
        numbers = {int(name) for name in os.listdir("/dev/fd")} - {0, 1, 2}
    except OSError:
        return set()  # /proc is not mounted, so nothing can name them either
    return {number for number in numbers if _is_inheritable(number)}


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False  # the one that listed the others


def execute(environ: Mapping[str, str], kept: Iterable[int]) -> None:
    """Execute the new version, with the ``kept`` descriptors open. Raises OSError; then nothing has changed."""
    words = command()
    inheritable = []
    try:
        for fd in kept:
            os.set_inheritable(fd, True)
            inheritable.append(fd)
        os.execve(words[0], words, dict(environ))  # noqa: S606 - no shell is wanted
    finally:
        for fd in inheritable:
            os.set_inheritable(fd, False)
