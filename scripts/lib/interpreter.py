"""The repository's virtual environment, in which Python scripts continue if they need its packages."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def use_repository(*packages: str) -> None:
    """Let the script import the repository's modules; continue in .venv if this interpreter lacks ``packages``."""
    environment = ROOT / ".venv"
    python = environment / "bin" / "python"
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing or sys.version_info < (3, 11):
        if python.exists() and Path(sys.prefix).resolve() != environment.resolve():
            os.execv(python, [str(python), *sys.argv])  # noqa: S606  # its own interpreter
        name, what = Path(sys.argv[0]).name, ", ".join(missing) or "Python 3.11"
        sys.exit(f"{name}: {what} is missing: run scripts/test --fast once, which makes .venv")
    sys.path.insert(1, str(ROOT))
