"""Fixtures with a terminal service, shared with the tests of terminals."""

from __future__ import annotations

from tests.pty.conftest import raw, service

__all__ = ["raw", "service"]
