"""The shell scripts that people run and deploy have nothing that shellcheck finds fault with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bed.processes import Bed, program

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path
    for folder in ("scripts", "scripts/lib", "templates/docker")
    for path in (ROOT / folder).iterdir()
    if path.is_file() and (path.suffix == ".sh" or path.read_bytes()[:128].split(b"\n")[0].endswith((b"bash", b"/sh")))
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_is_clean(bed: Bed, script: Path) -> None:
    found = bed.run(program("shellcheck"), "-x", "-P", str(ROOT), str(script))
    assert (found.status, found.text) == (0, "")
