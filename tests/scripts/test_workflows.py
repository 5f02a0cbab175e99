"""The workflows of .github: well-formed, with no more rights than they need, and without logic of their own."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bed.built import ROOT
from tests.bed.processes import Bed
from tunnel._version import __version__

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PUBLISH = str(ROOT / "scripts" / "publish")


def jobs_of(path: Path) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return jobs


def test_github_accepts_the_workflows(bed: Bed) -> None:
    command = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows")
    bed.check(*command, *map(str, WORKFLOWS))
    broken = bed.folder / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs-in:"))
    assert bed.run(*command, str(broken)).status == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_rights_are_the_least_and_what_others_wrote_is_pinned(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    rights = {name: job["permissions"] for name, job in jobs_of(path).items() if "permissions" in job}
    assert (
        rights
        == {
            "test": {},
            "release": {
                "pypi": {"contents": "read", "id-token": "write"},
                "image": {"contents": "read", "packages": "write"},
                "release": {"contents": "write"},
                "site": {"pages": "write", "id-token": "write"},
            },
        }[path.stem]
    )
    for line in re.findall(r"uses: (.*)", path.read_text()):
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)
    for job in jobs_of(path).values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"] == {"persist-credentials": False}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_all_that_they_run_is_a_script(path: Path) -> None:
    commands = [step["run"] for job in jobs_of(path).values() for step in job["steps"] if "run" in step]
    assert len(commands) >= 2
    for command in commands:
        assert re.fullmatch(r"scripts/[a-z-]+( --?[a-z]+| [a-z]+)*( \"\$GITHUB_REF_NAME\")?", command), command
        assert (ROOT / command.split()[0]).exists()


def test_every_python_that_the_package_claims_is_tested() -> None:
    claimed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    versions = re.findall(r"Programming Language :: Python :: (3\.\d+)$", "\n".join(claimed), re.MULTILINE)
    for job in jobs_of(ROOT / ".github" / "workflows" / "test.yml").values():
        assert job["strategy"]["matrix"]["python"] == versions


def test_a_tag_is_published_only_if_it_matches_the_version_and_the_changelog(bed: Bed) -> None:
    folder = bed.folder / "repository"
    for name in ("tunnel/_version.py", "scripts/publish", "scripts/lib/machine.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
        (folder / name).chmod(0o755)
    changelog = folder / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## [Unreleased]\n\n- Something new.\n")
    check = (str(folder / "scripts" / "publish"), "check")
    refused = bed.run(*check, f"v{__version__}")
    assert (refused.status, refused.stderr) == (
        1,
        f'publish: CHANGELOG.md has nothing under "## [{__version__}]"\n',
    )
    changelog.write_text(f"# Changelog\n\n## [Unreleased]\n\n## [{__version__}] - 2030-01-01\n\n- Something.\n")
    bed.check(*check, f"v{__version__}")
    changelog.write_text(changelog.read_text() + "- Something.\n" * 100_000)  # more than a pipe takes
    bed.check(*check, f"v{__version__}")
    refused = bed.run(*check, "v9.9")
    assert (refused.status, refused.stderr.startswith("publish: the tag is v9.9, and ")) == (1, True)


@pytest.mark.parametrize("words", [(), ("everything",), ("image",), ("assets",)])
def test_a_wrong_call_gets_one_line(bed: Bed, words: tuple[str, ...]) -> None:
    finished = bed.run(PUBLISH, *words)
    assert finished.status == 2
    assert finished.stderr.startswith("publish: ") and finished.stderr.count("\n") == 1
