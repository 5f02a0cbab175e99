"""The terminal service that starts the children of these tests is the one that the tests of terminals use."""

from __future__ import annotations

from tests.pty.conftest import raw, service

__all__ = ["raw", "service"]
