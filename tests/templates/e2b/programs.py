"""The template as its users have it, and its programs in both languages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.bed.processes import Bed, Finished

TEMPLATE = Path(__file__).parents[3] / "templates" / "e2b"
NODE = Path(__file__).parents[2] / "interop" / "node" / "node_modules"
LANGUAGES = ("python", "typescript")


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
    return bed.run(*program, *options, env={"E2B_API_KEY": "", **(env or {})})


def serialised(bed: Bed, folder: Path, language: str, *options: str) -> dict[str, Any]:
    finished = build(bed, folder, language, "--json", *options)
    assert finished.status == 0, finished.stderr
    template: dict[str, Any] = json.loads(finished.stdout)
    return template
