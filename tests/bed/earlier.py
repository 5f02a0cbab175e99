"""Our own program as it was at an earlier commit: images and laptops are not updated at the same time.

It is taken from the repository's history and started with its folder on the module path; a shallow clone fetches that
one commit.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEFORE_EDGES = "5925d8bf63d6fd90eb66626ce17eae438b69cb25"  # its ends know each other by the headers of a 101 alone


def unpack(commit: str, folder: Path) -> tuple[str, ...]:
    """Unpack the program as of ``commit`` into ``folder``; return the words that start it."""
    git = ("git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT))  # whoever owns it
    archive = subprocess.run([*git, "archive", commit, "tunnel"], capture_output=True, check=False)
    if archive.returncode:
        subprocess.run([*git, "fetch", "--quiet", "--depth", "1", "origin", commit], capture_output=True, check=False)
        archive = subprocess.run([*git, "archive", commit, "tunnel"], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the history has no commit {commit}: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from tunnel.cli.main import main; sys.exit(main())"
    return (sys.executable, "-c", code)
