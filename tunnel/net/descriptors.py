"""The limit of open files, for processes that hold a descriptor or two for each client."""

from __future__ import annotations

import resource
import sys


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return what there is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            return soft  # macOS has a hard limit beyond what it grants
    return descriptor_limit()


def descriptor_limit() -> int:
    """Return how many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
