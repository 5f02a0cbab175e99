"""The commands of docs/install.md are run unchanged, from a copy of the repository, with an empty home."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.bed.built import Built
from tests.bed.processes import Bed, Finished, program
from tests.bed.tunnels import PROGRAMS
from tests.docs.blocks import blocks_of, languages_of
from tests.docs.page import text_of
from tunnel._version import __version__

ROOT = Path(__file__).parents[1]
PAGE = text_of("install.md")
BLOCKS = blocks_of(PAGE, "sh")
WHEEL = f"wstunnel_py-{__version__}-py3-none-any.whl"
LIMIT = 300  # seconds; packages may have to be downloaded

# The words by which each block is known.
RUN = {
    "uv": ("uv tool install .",),
    "uv again": ("uv tool install --force .",),
    "pipx": ("pipx install .",),
    "pipx again": ("pipx install --force .",),
    "venv": ("ln -sf ~/.wstunnel-py/bin/wstunnel-py",),
    "build all": ("scripts/build\n",),
    "one file": ("cp dist/wstunnel-py.pyz",),
    "build": ("pip wheel --no-deps",),
    "uv build": ("uv build --wheel",),
    "install": ("pip install wstunnel_py-", "--version"),
    "install with terminals": ("[pty]",),
    "install again": ("--force-reinstall",),
    "collect": ("pip wheel --wheel-dir wheels .",),
    "install without an index": ("--no-index --find-links wheels",),
}
# Blocks that are run elsewhere or nowhere, with the reason. Nothing else may be left out.
NOT_RUN_HERE = {
    "docker build -f templates/docker/Dockerfile -t sandbox .": (
        "a Docker engine is not here; tests/templates/test_docker.py builds the same file with podman"
    ),
    "docker build -f templates/docker/bridge/Dockerfile -t wstunnel-py .": (
        "a Docker engine is not here; tests/templates/test_bridge_image.py builds the same file with podman"
    ),
}

pytestmark = [pytest.mark.full, pytest.mark.timeout(2 * LIMIT)]  # they download packages


class Machine:
    """A shell in a copy of the repository, with an empty home and no package of this project installed."""

    def __init__(self, bed: Bed, folder: Path, cache: Path) -> None:
        self._bed = bed
        self.home, self.source, tools = folder / "home", folder / "source", folder / "tools"
        for each in (self.home, self.source, tools):
            each.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.source)
        no_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "tunnel", self.source / "tunnel", ignore=no_caches)
        shutil.copytree(ROOT / "docs" / "man", self.source / "docs" / "man")
        # Not the tests' own environment, whose wstunnel-py would hide a missing one.
        tools.joinpath("python3").symlink_to(Path(sys.executable).resolve())
        for name in ("uv", "pipx"):
            found = PROGRAMS / name
            assert found.exists() or shutil.which(name), f"{name} is missing: scripts/test installs it"
            tools.joinpath(name).symlink_to(found if found.exists() else program(name))
        self._environment = {
            "HOME": str(self.home),
            "PATH": f"{self.home}/.local/bin:{tools}:/usr/bin:/bin",
            "PYTHONPATH": "",
            "PIP_CACHE_DIR": str(cache / "pip"),
            "UV_CACHE_DIR": str(cache / "uv"),
            "UV_PYTHON": str(tools / "python3"),
            **_index_for_uv(bed),
        }

    def run(self, block: str, folder: Path | None = None) -> Finished:
        script = f"cd {folder or self.source}\nset -euo pipefail\n{block}"
        return self._bed.check("bash", "-c", script, env=self._environment, seconds=LIMIT)

    def version(self, command: str = "wstunnel-py") -> str:
        return self.run(f"{command} --version", self.home).text


def _index_for_uv(bed: Bed) -> dict[str, str]:
    """The index that pip uses on this machine, for uv."""
    found = bed.run(sys.executable, "-m", "pip", "config", "get", "global.index-url")
    index = os.environ.get("PIP_INDEX_URL") or (found.text.strip() if found.status == 0 else "")
    return {"UV_DEFAULT_INDEX": index} if index else {}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip and uv keep what they have downloaded, for all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def machine(bed: Bed, tmp_path: Path, cache: Path) -> Machine:
    return Machine(bed, tmp_path, cache)


def block(name: str) -> str:
    [found] = [each for each in BLOCKS if all(word in each for word in RUN[name])]
    return found


@pytest.mark.parametrize(("first", "again"), [("uv", "uv again"), ("pipx", "pipx again"), ("venv", None)])
def test_the_command_is_there_after_an_installation(machine: Machine, first: str, again: str | None) -> None:
    machine.run(block(first))
    assert machine.run("command -v wstunnel-py").text.strip() == f"{machine.home}/.local/bin/wstunnel-py"
    assert machine.version() == f"wstunnel-py {__version__}\n"
    if again is not None:
        machine.run(block(again))
        assert machine.version() == f"wstunnel-py {__version__}\n"


def test_one_file_is_the_command_wherever_it_was_copied(machine: Machine, built: Built) -> None:
    assert block("build all").endswith("\nscripts/build\n"), "which has made what is here"
    shutil.copytree(built.folder, machine.source / "dist")
    machine.run(block("one file"))
    assert machine.version() == f"wstunnel-py {__version__}\n"


def test_a_wheel_is_built_and_installed_where_only_it_was_copied_and_replaces_one_of_the_same_version(
    machine: Machine, tmp_path: Path
) -> None:
    machine.run(block("build"))
    assert [path.name for path in (machine.source / "dist").iterdir()] == [WHEEL]
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    shutil.copy(machine.source / "dist" / WHEEL, sandbox)
    assert machine.run(block("install"), sandbox).text.endswith(f" {__version__}\n")
    machine.run(block("install with terminals"), sandbox)
    machine.run("~/.wstunnel-py/bin/python -c 'import aiohttp, httpx, tunnel'", sandbox)
    machine.run("rm ~/.wstunnel-py/lib/python3*/site-packages/tunnel/_version.py")
    machine.run(block("install again"), sandbox)
    assert machine.version("~/.wstunnel-py/bin/wstunnel-py") == f"wstunnel-py {__version__}\n"


def test_uv_builds_the_same_file(machine: Machine) -> None:
    machine.run(block("uv build"))
    assert WHEEL in [path.name for path in (machine.source / "dist").iterdir()]


def test_a_folder_of_wheels_is_enough_without_an_index(machine: Machine, tmp_path: Path) -> None:
    machine.run(block("collect"))
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    (machine.source / "wheels").rename(sandbox / "wheels")
    machine.run(block("install without an index"), sandbox)
    assert machine.version("~/.wstunnel-py/bin/wstunnel-py") == f"wstunnel-py {__version__}\n"


@pytest.mark.parametrize("command", NOT_RUN_HERE)
def test_blocks_that_are_not_run_here_say_why(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{command}\n" in BLOCKS
    with capsys.disabled():
        print(f"\nNOT RUN: {command}\n  {NOT_RUN_HERE[command]}")


def test_the_image_is_built_from_a_file_that_exists_by_the_command_of_its_own_page() -> None:
    for command in NOT_RUN_HERE:
        assert (ROOT / command.split()[3]).exists()
        assert f"    {command}" in (ROOT / "templates" / "docker" / "README.md").read_text()


def test_no_block_is_left_out() -> None:
    assert languages_of(PAGE) == {"sh", "powershell"}  # the page says that the latter, for Windows, is untried
    assert sorted([*map(block, RUN), *(f"{command}\n" for command in NOT_RUN_HERE)]) == sorted(BLOCKS)
