"""The template in a folder of its own, and what `build.py` makes of it."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bed.built import folder_of_run
from tests.bed.processes import Bed
from tests.templates.e2b.programs import NODE, TEMPLATE, make_key, serialised


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a user has copied it out of the repository, with a key and E2B's JavaScript SDK."""
    folder = tmp_path_factory.mktemp("e2b") / "template"
    shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("dist", "node_modules", "__pycache__"))
    (folder / "node_modules").symlink_to(NODE)
    return folder


@pytest.fixture(scope="package")
def wheel(folder: Path, shared_bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `build.py` makes of the repository. It puts it into the repository, as does each worker's."""
    command = (sys.executable, str(TEMPLATE / "build.py"), "--json", "--public-key", str(make_key(folder, shared_bed)))
    with open(folder_of_run(tmp_path_factory.getbasetemp()) / "wheel.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        steps = json.loads(shared_bed.check(*command, seconds=250).text)["steps"]
        copied: list[str] = [step["args"][0] for step in steps if step["type"] == "COPY"]
        made = next(TEMPLATE / name for name in copied if name.endswith(".whl"))
        return Path(shutil.copy(made, tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="package")
def template(folder: Path, wheel: Path, shared_bed: Bed) -> dict[str, Any]:
    key = make_key(folder, shared_bed)
    return serialised(shared_bed, folder, "python", "--public-key", str(key), "--bridge", str(wheel))
