"""The package installed in a folder of its own, which a test can change as an upgrade would."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.bed.earlier import ROOT
from tests.bed.processes import Bed, Process


class Installed:
    """A copy of the package, and a script that starts it, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "tunnel", folder / "tunnel", ignore=shutil.ignore_patterns("__pycache__"))
        self.script = folder / "wstunnel-py"
        self.script.write_text("import sys\nfrom tunnel.cli.main import main\nsys.exit(main())\n")

    def change(self, module: str, before: str, after: str) -> None:
        """Replace a text that stands in ``module`` once or first."""
        path = self.folder / "tunnel" / module
        text = path.read_text()
        assert before in text, f"{module} has changed, and this test with it"
        path.write_text(text.replace(before, after, 1))

    def serve(self, bed: Bed, port: int, *options: str) -> tuple[Process, str]:
        """Start a bridge to a target on loopback; return it and its URL."""
        target = ("--target", f"127.0.0.1:{port}")
        process = bed.start(
            *(sys.executable, str(self.script), "serve", "--listen", "127.0.0.1:0", *target, *options),
            env={"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        return process, process.wait_for_line(r"ready on (wss?://[^\s,]+)")[1]
