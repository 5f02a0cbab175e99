"""The packages that go into the single file: the installed ones, pure Python only, if their versions are locked."""

from __future__ import annotations

import base64
import hashlib
from importlib.metadata import PackagePath, distribution
from pathlib import Path

from packaging.requirements import Requirement

PACKAGES = ("click", "websockets")
# websockets' own I/O; the bridge only parses requests with it.
_LEFT_OUT = ("websockets/asyncio/", "websockets/legacy/", "websockets/sync/", "websockets/trio/")


class Unlocked(Exception):
    """A package is not the locked version, or was changed after its installation."""


def vendored_files(constraints: Path) -> dict[str, bytes]:
    """Return path in the archive → content, with the licences in ``licenses/``. Raises `Unlocked`."""
    locked = _locked(constraints)
    found: dict[str, bytes] = {}
    for name in PACKAGES:
        package = distribution(name)
        if package.version != locked.get(name):
            raise Unlocked(f"{name} {package.version} is installed, but {constraints.name} requires {locked.get(name)}")
        licences = 0
        for path in package.files or ():
            text = path.as_posix()
            if ".dist-info/" in text and "license" in text.lower():
                found[f"licenses/{name}-{package.version}/{path.name}"] = _checked(path)
                licences += 1
            elif text.startswith(f"{name}/") and text.endswith(".py") and not text.startswith(_LEFT_OUT):
                found[text] = _checked(path)
        if not licences or f"{name}/__init__.py" not in found:
            raise Unlocked(f"{name} is installed without its files or its licence")
    return found


def _locked(constraints: Path) -> dict[str, str]:
    versions = {}
    for line in constraints.read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line)
            versions[requirement.name] = str(requirement.specifier).removeprefix("==")
    return versions


def _checked(path: PackagePath) -> bytes:
    content = Path(str(path.locate())).read_bytes()
    if path.hash is None or path.hash.mode != "sha256":
        raise Unlocked(f"{path} has no checksum")
    found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    if found != path.hash.value:
        raise Unlocked(f"{path} was changed after it was installed")
    return content
