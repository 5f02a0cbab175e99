"""The files to build from: only those that Git tracks, as they are now, so that nothing else gets into a release."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_WITHOUT_GIT = 1580601600  # 2020-02-02, as in hatchling


def copy_source(root: Path, target: Path) -> None:
    """Copy the tracked files of the repository at ``root``; without Git, as in an unpacked sdist, all files."""
    listed = _git(root, "ls-files", "-z", "--cached")
    if listed is None:
        names = ("*.egg-info", ".git", ".*cache*", ".venv", ".windows", "__pycache__", "dist", "node_modules")
        shutil.copytree(root, target, ignore=shutil.ignore_patterns(*names))
    else:
        for name in filter(None, listed.split("\0")):
            path = root / name
            if path.exists():  # otherwise it was deleted without a commit
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target / name)
    for path in target.rglob("*"):
        if path.is_file():  # independent of the umask
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def source_time(root: Path) -> int:
    """Return SOURCE_DATE_EPOCH, or else the time of the last commit, in seconds since 1970."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given.isdecimal():
        return int(given)
    committed = _git(root, "log", "-1", "--format=%ct")
    return int(committed) if committed else _WITHOUT_GIT


def _git(root: Path, *words: str) -> str | None:
    """Return the output of Git in the repository whose top is ``root``; None if it is not a repository."""
    # Whoever owns it: in a container that is often not the user who builds.
    git = ["git", "-c", f"safe.directory={root.resolve()}", "-C", str(root)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True).stdout
        if Path(top.strip()).resolve() != root.resolve():
            return None
        return subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
