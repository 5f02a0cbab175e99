"""What the tests of restarts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.restart.installed import Installed


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    folder = tmp_path / "installed"
    folder.mkdir()
    return Installed(folder)
