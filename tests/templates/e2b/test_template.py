"""What both SDKs of E2B build from the template, and how mistakes are reported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.bed.built import Built
from tests.bed.processes import Bed
from tests.templates.e2b.programs import LANGUAGES, NODE, build, make_key, serialised

pytestmark = pytest.mark.timeout(600)  # Node is slow to start, and the first test to ask for the wheel makes it


def test_both_languages_make_the_same_template(bed: Bed, folder: Path, wheel: Path, template: dict[str, Any]) -> None:
    key = make_key(folder, bed)
    twin = serialised(bed, folder, "typescript", "--public-key", str(key), "--bridge", str(wheel))
    assert twin == template  # the hashes of the files that are copied included


def test_the_typescript_is_well_typed(bed: Bed, folder: Path) -> None:
    finished = bed.run(str(NODE / ".bin" / "tsc"), "--project", str(folder), seconds=250)
    assert finished.status == 0, finished.text


def test_the_template_says_what_it_should(folder: Path, template: dict[str, Any]) -> None:
    assert template["fromImage"] == "ubuntu:24.04"
    assert template["startCmd"] == "/opt/wstunnel-py/start.sh 8081 2222"
    assert "sport = :8081" in template["readyCmd"]
    copies = {step["args"][0]: step["args"][1:] for step in template["steps"] if step["type"] == "COPY"}
    assert copies.pop("sshd-keys-only.conf") == ["/etc/ssh/sshd_config.d/00-keys-only.conf", "root", "0644"]
    assert copies.pop("start.sh") == ["/opt/wstunnel-py/start.sh", "root", "0755"]
    ((wheel, target),) = copies.items()
    assert re.fullmatch(r"dist/wstunnel_py-[\d.]+-py3-none-any\.whl", wheel)
    assert target == ["/opt/wstunnel-py/", "root", "0644"]
    commands = [step["args"][0] for step in template["steps"] if step["type"] == "RUN"]
    for pip in (words for command in commands for words in re.findall(r"\S*pip3? install", command)):
        assert pip == "/opt/wstunnel-py/venv/bin/pip install"
    kind, text, comment = (folder / "key.pub").read_text().split(maxsplit=2)
    assert any(f"'{kind} {text}' > /etc/ssh/authorized_keys.d/user" in command for command in commands)
    assert comment.strip() not in json.dumps(template), "whose key it is concerns nobody in the sandbox"


@pytest.mark.parametrize("language", LANGUAGES)
def test_release_and_source_of_the_bridge_are_for_the_user_to_choose(bed: Bed, folder: Path, language: str) -> None:
    key = str(make_key(folder, bed))
    chosen = serialised(
        bed, folder, language, "--public-key", key, "--release", "26.04", "--bridge", "wstunnel-py[pty]==1.0"
    )
    assert chosen["fromImage"] == "ubuntu:26.04"
    install = next(step["args"][0] for step in chosen["steps"] if "pip install" in step["args"][0])
    assert install.endswith(" 'wstunnel-py[pty]==1.0'")
    assert ".whl" not in json.dumps(chosen)


def test_the_single_file_comes_without_pip_in_both_languages(bed: Bed, folder: Path, built: Built) -> None:
    options = ("--public-key", str(make_key(folder, bed)), "--bridge", str(built.archive))
    python, typescript = (serialised(bed, folder, language, *options) for language in LANGUAGES)
    assert python == typescript
    copies = {step["args"][0]: step["args"][1:] for step in python["steps"] if step["type"] == "COPY"}
    assert copies["dist/wstunnel-py.pyz"] == ["/opt/wstunnel-py/wstunnel-py", "root", "0755"]
    commands = " ".join(step["args"][0] for step in python["steps"] if step["type"] == "RUN")
    assert "python3 " in commands and "pip" not in commands and "venv" not in commands


PROBLEMS = {
    "no such key": (("--public-key", "none.pub"), "none.pub: No such file or directory; ssh-keygen -t ed25519 makes"),
    "a private key": (("--public-key", "key"), "key is a private key, which must stay out of images; give the file"),
    "another file": (("--public-key", "start.sh"), "start.sh: not a public key file"),
    "a key cut off": (("--public-key", "cut.pub"), "cut.pub: not a public key file"),
    "no key in it": (("--public-key", "empty.pub"), "empty.pub: not a public key file"),
    "old release": (("--release", "22.04"), "--release 22.04: the bridge needs Python 3.11, so use 24.04 or later"),
    "no release": (("--release", "noble"), "--release noble: not an Ubuntu release such as 24.04 or 26.04"),
    "no wheel": (("--bridge", "none.whl"), "--bridge none.whl: there is no such file"),
    "no bridge": (("--bridge", "x; reboot"), "--bridge x; reboot: not a wheel, a .pyz file or a requirement"),
    "bad name": (("--name", "My Template"), "--name My Template: use lower-case letters, digits, - and _"),
    "no repository": ((), "this folder is not in its repository: name the bridge with --bridge"),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_mistake_is_reported_in_one_line(bed: Bed, folder: Path, language: str, problem: str) -> None:
    options, line = PROBLEMS[problem]
    key = make_key(folder, bed)
    (folder / "cut.pub").write_text(key.read_text().replace("AAAAC3Nz", "AAAAC3Nx"))
    (folder / "empty.pub").write_text("# a comment\n\n")
    usual = () if "--public-key" in options else ("--public-key", str(key))
    words = [str(folder / word) if (folder / word).exists() else word for word in (*usual, *options)]
    finished = build(bed, folder, language, "--json", *words)
    assert finished.status == 2
    assert finished.stdout == b""
    said = finished.stderr.replace(f"{folder}/", "")
    assert said.startswith(f"build.{'py' if language == 'python' else 'ts'}: {line}") and said.count("\n") == 1, said
