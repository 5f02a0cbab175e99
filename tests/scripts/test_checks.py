"""scripts/test checks all Python files, also programs without a suffix."""

from __future__ import annotations

import shutil
import subprocess
import tomllib

from tests.bed.earlier import ROOT
from tests.bed.processes import Bed
from tests.bed.tunnels import NEWEST_WEBSOCAT

TOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]


def python_programs() -> set[str]:
    """The tracked files without an ending that begin with the call of a Python."""
    git = ("git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT))  # whoever owns it
    listed = subprocess.run([*git, "ls-files"], capture_output=True, text=True, check=True)
    files = [name for name in listed.stdout.splitlines() if "." not in name.rpartition("/")[2]]
    return {name for name in files if b"python" in (ROOT / name).read_bytes().partition(b"\n")[0]}


def test_programs_without_an_ending_are_checked_too() -> None:
    programs = python_programs()
    assert {"scripts/bench", "scripts/simulate"} <= programs
    # mypy takes it for the same module as templates/e2b/build.py; all that it does is in scripts/buildlib.
    assert programs - {"scripts/build"} <= set(TOOLS["mypy"]["files"])
    assert programs == set(TOOLS["ruff"]["extend-include"])


def test_the_long_forms_get_the_websocat_that_they_look_for() -> None:
    assert f"local version={NEWEST_WEBSOCAT} " in (ROOT / "scripts" / "test").read_text()


def test_all_that_tests_install_from_pypi_is_locked() -> None:
    text = (ROOT / "scripts" / "test").read_text()
    commands = [line for line in text.splitlines() if "-m pip install" in line]
    assert len(commands) >= 3
    assert [line for line in commands if "-c constraints.txt" not in line] == []


def test_without_a_virtual_environment_no_install_says_how_to_make_one(bed: Bed) -> None:
    scripts = bed.folder / "scripts"
    shutil.copytree(ROOT / "scripts" / "lib", scripts / "lib")
    shutil.copy(ROOT / "scripts" / "test", scripts)
    finished = bed.run(str(scripts / "test"), "--no-install", "tests/protocol")
    assert (finished.status, finished.text) == (2, "")
    assert finished.stderr == "test: .venv is missing, and --no-install makes none: run scripts/test --fast once\n"
