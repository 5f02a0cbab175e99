"""What scripts/test checks is all that is Python: programs without an ending, too."""

from __future__ import annotations

import subprocess
import tomllib

from tests.bed.earlier import ROOT
from tests.bed.tunnels import NEWEST_WEBSOCAT

TOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]


def python_programs() -> set[str]:
    """The tracked files without an ending that begin with the call of a Python."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True)
    files = [name for name in listed.stdout.splitlines() if "." not in name.rpartition("/")[2]]
    return {name for name in files if b"python" in (ROOT / name).read_bytes().partition(b"\n")[0]}


def test_programs_without_an_ending_are_checked_too() -> None:
    programs = python_programs()
    assert {"scripts/bench", "scripts/simulate"} <= programs
    assert programs <= set(TOOLS["mypy"]["files"])
    assert programs == set(TOOLS["ruff"]["extend-include"])


def test_the_long_forms_get_the_websocat_that_they_look_for() -> None:
    assert f"local version={NEWEST_WEBSOCAT} " in (ROOT / "scripts" / "test").read_text()
