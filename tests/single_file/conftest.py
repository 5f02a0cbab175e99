"""The single file on a Python without packages."""

from __future__ import annotations

import sys

import pytest

from tests.bed.built import Built

# No site-packages, no variables of Python's, nothing of the current folder.
BARE = (sys.executable, "-I", "-S")


@pytest.fixture
def alone(built: Built) -> tuple[str, ...]:
    """The command line of the single file on a bare Python."""
    return (*BARE, str(built.archive))
