"""scripts/build: the same bytes from the same sources, all of them in the sdist, and the metadata for PyPI."""

from __future__ import annotations

import email
import email.message
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from trove_classifiers import classifiers

from buildlib.source import copy_source, source_time
from buildlib.vendored import Unlocked, vendored_files
from tests.bed.built import ROOT, Built, build
from tests.bed.processes import Bed

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = ROOT / "constraints.txt"
pytestmark = pytest.mark.timeout(700)  # a build takes a while, and one of these waits for two


@pytest.fixture(scope="module")
def metadata(built: Built) -> email.message.Message:
    with zipfile.ZipFile(built.wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(wheel.read(name))


def test_another_folder_umask_and_time_give_the_same_bytes_from_the_sdist_alone(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o077)
    try:
        with tarfile.open(built.sdist) as archive:
            archive.extractall(tmp_path, filter="data")
        (unpacked,) = tmp_path.iterdir()
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(source_time(ROOT)))
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        again = build(unpacked, tmp_path / "again")
    finally:
        os.umask(before)
    assert again.checksums == built.checksums
    assert built.checksums.count("\n") == 3


def test_the_wheel_of_the_tree_is_that_of_the_sdist(built: Built, bed: Bed) -> None:
    copy_source(ROOT, bed.folder / "tree")
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(bed.folder / "dist"))
    script = ("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(bed.folder / "tree"))
    bed.check(*script, *command, env={"SOURCE_DATE_EPOCH": str(source_time(ROOT))}, seconds=300)
    assert (bed.folder / "dist" / built.wheel.name).read_bytes() == built.wheel.read_bytes()


def test_the_sdist_has_every_file_of_the_repository(built: Built, tmp_path: Path) -> None:
    copy_source(ROOT, tmp_path / "tree")
    tree = {path.relative_to(tmp_path / "tree").as_posix() for path in (tmp_path / "tree").rglob("*") if path.is_file()}
    with tarfile.open(built.sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {"scripts/test", "templates/e2b/template.py", "tests/conftest.py", "docs/cli.md", "tunnel/py.typed"} <= tree
    assert packed - tree == {"PKG-INFO"}
    assert tree - packed == set()


def test_the_pypi_page_has_no_broken_link(metadata: email.message.Message) -> None:
    page = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 20 and [link for link in links if not link.startswith("https://")] == []
    ours = [link for link in links if f"/blob/v{metadata['Version']}/" in link]
    assert len(ours) > 20
    for link in ours:
        assert (ROOT / link.partition(f"/blob/v{metadata['Version']}/")[2].partition("#")[0]).exists(), link


def test_classifiers_are_known_and_urls_are_there(metadata: email.message.Message) -> None:
    given = metadata.get_all("Classifier") or []
    assert set(given) <= set(classifiers)
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= set(given)
    named = {line.partition(",")[0] for line in metadata.get_all("Project-URL") or []}
    assert named == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert metadata["License-Expression"] == "Apache-2.0 AND MIT"


def test_packages_are_only_taken_as_they_are_locked_and_as_they_were_published(tmp_path: Path) -> None:
    assert {"click/__init__.py", "websockets/__init__.py"} <= vendored_files(CONSTRAINTS).keys()
    other = tmp_path / "constraints.txt"
    other.write_text(re.sub(r"(?m)^click==.*", "click==1.0", CONSTRAINTS.read_text()))
    with pytest.raises(Unlocked, match=r"click \S+ is installed, but constraints\.txt requires 1\.0"):
        vendored_files(other)


def wanted() -> list[Requirement]:
    groups = PROJECT["dependency-groups"]
    found = [text for group in groups.values() for text in group if isinstance(text, str)]
    found += PROJECT["project"]["dependencies"]
    found += [text for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra]
    return [Requirement(text) for text in found]


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_every_package_that_tests_want_is_pinned_once_for_each_python_and_system(version: str, platform: str) -> None:
    environment = {key: str(value) for key, value in default_environment().items()}
    environment.update(python_version=version, python_full_version=f"{version}.0", extra="")
    environment.update(sys_platform=platform, os_name="nt" if platform == "win32" else "posix")
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    pins: dict[str, Requirement] = {}
    for pin in map(Requirement, lines):
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in pins, "two versions of one package"
            assert str(pin.specifier).startswith("==")
            pins[pin.name] = pin
    missing = []
    for requirement in wanted():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            pinned = pins.get(re.sub(r"[-_.]+", "-", requirement.name).lower())
            if pinned is None or not requirement.specifier.contains(str(pinned.specifier).removeprefix("==")):
                missing.append(str(requirement))
    assert missing == [], "scripts/lock adds them"


def test_npm_s_packages_are_pinned_and_name_no_registry() -> None:
    lock = (ROOT / "tests/interop/node/package-lock.json").read_text()
    assert lock.count('"integrity"') > 50 and "resolved" not in lock
    npm = subprocess.run(
        ["npm", "ls", "--prefix", str(ROOT / "tests/interop/node"), "--package-lock-only", "--all", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert npm.returncode == 0, npm.stderr


def test_a_build_that_cannot_be_is_reported_in_one_line(bed: Bed) -> None:
    copy_source(ROOT, bed.folder / "tree")
    lock = bed.folder / "tree" / "constraints.txt"
    lock.write_text(re.sub(r"(?m)^websockets==.*", "websockets==1.0", lock.read_text()))
    finished = bed.run(sys.executable, str(bed.folder / "tree" / "scripts" / "build"), "--out", str(bed.folder / "out"))
    assert finished.status == 1
    assert finished.stderr.splitlines()[-1].endswith("run scripts/test once, which installs what is locked")
    assert not (bed.folder / "out").exists()
