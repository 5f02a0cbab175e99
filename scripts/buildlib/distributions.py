"""The sdist, and the wheel, which is built from the sdist, as packagers do it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def build_distributions(source: Path, target: Path, epoch: int) -> Path:
    """Build the sdist and the wheel of ``source`` into ``target``; return the wheel. Raises CalledProcessError."""
    target.mkdir(parents=True, exist_ok=True)
    # With the build system of this environment, which is locked, instead of the newest one from the index.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    (wheel,) = target.glob("*.whl")
    return wheel
