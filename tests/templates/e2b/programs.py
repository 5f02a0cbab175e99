"""The template as its users have it, and its programs in both languages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.bed.processes import Bed, Finished
from tests.templates.machine import Machine

TEMPLATE = Path(__file__).parents[3] / "templates" / "e2b"
NODE = Path(__file__).parents[2] / "interop" / "node" / "node_modules"
LANGUAGES = ("python", "typescript")

BASE = """
printf 'PermitRootLogin yes\\nPermitEmptyPasswords yes\\nPasswordAuthentication yes\\n' >> /etc/ssh/sshd_config
rm -rf /home/user && useradd --create-home --shell /bin/bash user && passwd -d user && passwd -d root
echo 'user ALL=(ALL:ALL) NOPASSWD: ALL' >> /etc/sudoers
rm -rf /etc/ssh/sshd_config.d/* /run/sshd
"""  # what E2B does to a base before the template's steps, as far as it matters here


def make_key(folder: Path, bed: Bed) -> Path:
    key = folder / "key"
    if not key.exists():
        bed.check("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "somebody's laptop", "-f", str(key))
    return key.with_suffix(".pub")


def build(bed: Bed, folder: Path, language: str, *options: str, env: dict[str, str] | None = None) -> Finished:
    program = {
        "python": (sys.executable, str(folder / "build.py")),
        "typescript": (str(NODE / ".bin" / "tsx"), str(folder / "build.ts")),
    }[language]
    return bed.run(*program, *options, env={"E2B_API_KEY": "", **(env or {})}, seconds=120)


def serialised(bed: Bed, folder: Path, language: str, *options: str) -> dict[str, Any]:
    finished = build(bed, folder, language, "--json", *options)
    assert finished.status == 0, finished.stderr
    template: dict[str, Any] = json.loads(finished.stdout)
    return template


def carry_out(machine: Machine, template: dict[str, Any], folder: Path) -> None:
    """Do on a machine what E2B does to a base, and then the template's steps; its files are in ``folder``."""
    machine.do(BASE)
    for step in template["steps"]:
        match step["type"], step["args"]:
            case "RUN", [command, user]:
                machine.do(command, user, connected=True)
            case "COPY", [source, target, owner, mode]:
                [file] = folder.glob(source)
                machine.copy(file, target, owner or "user", mode or "0644")
            case unknown:
                raise AssertionError(f"a step that this test does not know: {unknown}")
