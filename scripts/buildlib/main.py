"""The command line of scripts/build.

Builds the published files into dist: the sdist, the wheel, the single file wstunnel-py.pyz, and their checksums. The
same commit gives the same bytes: times are those of the commit (or SOURCE_DATE_EPOCH), order and modes are fixed, and
constraints.txt locks the build tools and the packages that are included. Only files that Git tracks are used.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from buildlib.archive import build_archive
from buildlib.distributions import build_distributions
from buildlib.source import copy_source, source_time
from buildlib.vendored import Unlocked, vendored_files
from lib.interpreter import ROOT

CHECKSUMS = "SHA256SUMS"


def main() -> int:
    description = (__doc__ or "").partition("\n\n")[2]
    parser = argparse.ArgumentParser(prog="build", description=description)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="FOLDER", help="default: dist")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="build-") as name:
        made = Path(name, "dist")
        try:
            _build(Path(name, "source"), made)
        except Unlocked as exc:
            print(f"build: {exc}: run scripts/test once, which installs what is locked", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as exc:
            print(f"build: {' '.join(map(str, exc.cmd[2:4]))} failed; see above", file=sys.stderr)
            return 1
        options.out.mkdir(parents=True, exist_ok=True)
        for path in sorted(made.iterdir()):
            print(shutil.move(path, options.out / path.name))
    return 0


def _build(source: Path, made: Path) -> None:
    vendored = vendored_files(ROOT / "constraints.txt")
    epoch = source_time(ROOT)
    copy_source(ROOT, source)
    wheel = build_distributions(source, made, epoch)
    packages = [str(path) for path in sorted(made.iterdir())]
    # W002: one licence is in the wheel twice, where pip shows it and beside what it is of.
    contents = ("check_wheel_contents", "--ignore", "W002", str(wheel))
    for check in (("twine", "check", "--strict", *packages), contents):
        subprocess.run([sys.executable, "-m", *check], check=True, stdout=sys.stderr)
    build_archive(wheel, vendored, epoch)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(made.iterdir())]
    (made / CHECKSUMS).write_text("".join(sums))
