"""The limit of open files, for processes that have one or two descriptors for each client."""

from __future__ import annotations

import sys

WINDOWS_LIMIT = 512  # sockets that Python's select accepts on Windows, where the loop must use it

if sys.platform == "win32":
    CALLED = "sockets (the limit of Windows' select)"
    _soft_at_start = WINDOWS_LIMIT
else:
    import resource

    CALLED = "descriptors (ulimit -n)"
    _soft_at_start = resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def soft_limit_at_start() -> int:
    """Return the soft limit of open files before this process raised it, for children that cannot handle more."""
    return _soft_at_start


def note_soft_limit(files: int) -> None:
    """Set what `soft_limit_at_start` returns, if this process raised its limit before an exec."""
    global _soft_at_start
    _soft_at_start = files


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard limit; return the new limit."""
    if sys.platform == "win32":
        return WINDOWS_LIMIT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            return soft  # macOS does not grant its own hard limit
    return descriptor_limit()


def descriptor_limit() -> int:
    """Return how many files this process may have open."""
    if sys.platform == "win32":
        return WINDOWS_LIMIT
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
