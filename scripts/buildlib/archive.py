"""The single file: a zip archive that Python runs (PEP 441), with the package and the packages that it needs."""

from __future__ import annotations

import hashlib
import time
import zipfile
from pathlib import Path

NAME = "wstunnel-py.pyz"
_SHEBANG = b"#!/usr/bin/env python3\n"
_START = Path(__file__).parent / "single_file"
_START_FILES = ("__main__.py", "wstunnel_py_start.py")


def build_archive(wheel: Path, vendored: dict[str, bytes], epoch: int) -> Path:
    """Make the archive of the wheel's package, beside the wheel; return its path. The same input gives the same bytes.

    ``vendored`` is what `buildlib.vendored` returns.
    """
    files = {**_package_files(wheel), **vendored}
    modules = "\n".join(sorted(name for name in files if name.endswith(".py")))
    for name in _START_FILES:
        files[name] = (_START / name).read_bytes()
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    values = {b"@DIGEST@": digest.hexdigest().encode(), b"@MODULES@": b'""' + f"\n{modules}\n".encode() + b'""'}
    for mark, value in values.items():
        files["wstunnel_py_start.py"] = files["wstunnel_py_start.py"].replace(mark, value, 1)
    target = wheel.parent / NAME
    _write(target, files, epoch)
    return target


def _package_files(wheel: Path) -> dict[str, bytes]:
    """Return the package's files and its licence from the wheel."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("tunnel/"):
                found[name] = archive.read(name)
            elif name.endswith(".dist-info/licenses/LICENSE"):
                found["licenses/wstunnel-py/LICENSE"] = archive.read(name)
    return found


def _write(target: Path, files: dict[str, bytes], epoch: int) -> None:
    date = time.gmtime(max(epoch, 315532800))[:6]  # zip archives have no times before 1980
    with target.open("wb") as stream:
        stream.write(_SHEBANG)
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in sorted(files.items()):
                entry = zipfile.ZipInfo(name, date)
                entry.create_system = 3  # Unix, wherever it is built
                entry.external_attr = 0o100644 << 16
                # Files that every start reads are not compressed.
                entry.compress_type = zipfile.ZIP_STORED if name in _START_FILES else zipfile.ZIP_DEFLATED
                archive.writestr(entry, content, compresslevel=9)
    target.chmod(0o755)
