"""What scripts/build makes of the repository, built once in a run, whatever number of workers it has."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Built:
    """A folder with the sdist, the wheel, the single file and their checksums."""

    folder: Path

    @property
    def archive(self) -> Path:
        return self.folder / "wstunnel-py.pyz"

    @property
    def wheel(self) -> Path:
        (found,) = self.folder.glob("*.whl")
        return found

    @property
    def sdist(self) -> Path:
        (found,) = self.folder.glob("*.tar.gz")
        return found

    @property
    def checksums(self) -> str:
        return (self.folder / "SHA256SUMS").read_text()


def build(root: Path, target: Path) -> Built:
    """Run the scripts/build of a copy of the repository."""
    command = [sys.executable, str(root / "scripts" / "build"), "--out", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    return Built(target)


def build_once(folder: Path) -> Built:
    """Build into ``folder``, unless another worker has done so or does."""
    import fcntl  # not at the top, as the fast tests run on Windows, too

    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return Built(folder) if (folder / "SHA256SUMS").exists() else build(ROOT, folder)


def folder_of_run(basetemp: Path) -> Path:
    """Return what all workers of this run share; ``basetemp`` is pytest's for this process."""
    return basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp
