"""An installation of this checkout as users have it, for start-up to be measured on.

An editable installation adds a finder to every start, and without bytecode the compiler would be measured.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

from benchlib.peers import ROOT

# As pip (since 25.0) and uv write it.
STUB = """\
#!{python}
import sys
from tunnel.cli.main import main
if __name__ == "__main__":
    sys.argv[0] = sys.argv[0].removesuffix(".exe")
    sys.exit(main())
"""


def install(folder: Path) -> Path:
    """Make a virtual environment in ``folder``, with this interpreter's packages too; return where its programs are."""
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    shutil.copytree(ROOT / "tunnel", packages / "tunnel", ignore=shutil.ignore_patterns("__pycache__"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = programs / "python3"
    subprocess.run([python, "-I", "-m", "compileall", "-q", packages / "tunnel"], check=True, timeout=120)
    stub = programs / "wstunnel-py"
    stub.write_text(STUB.format(python=python))
    stub.chmod(0o755)
    return programs
