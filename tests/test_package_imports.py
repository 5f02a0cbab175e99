"""Which package of tunnel/ may import which: none imports a package above it.

An import counts wherever it is: at the top of a module, inside a function, for the type checker only, or as a name in
a string by which a module is started or imported later.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.earlier import ROOT
from tests.bed.sources import constants_in

TUNNEL = ROOT / "tunnel"

# From the bottom to the top: a package, and the packages that it may import.
LOWEST = ("errors", "_version")
PACKAGES: dict[str, tuple[str, ...]] = {
    "errors": (),
    "_version": (),
    "protocol": (),
    "net": ("protocol",),
    "children": ("net",),
    "pki": ("net",),
    "restart": ("children", "net"),
    "provider": ("net", "protocol"),
    "client": ("net", "protocol", "provider"),
    "server": ("children", "net", "pki", "protocol", "restart"),
    "pty": (),
    "pty.protocol": ("protocol",),
    "pty.client": ("client", "net", "protocol", "provider", "pty.protocol"),
    "pty.shell": ("client", "net", "protocol", "provider", "pty.client", "pty.protocol"),
    "pty.server": ("children", "net", "protocol", "pty.protocol", "restart", "server"),
    "pty.web": ("net", "pty.server"),
    "ssh": ("children", "client", "net", "pki", "protocol", "restart", "server", "ssh.server"),
    "ssh.server": ("children", "net", "pki", "protocol"),
    "websocat": ("children", "client", "net", "protocol", "server"),
}
# Above all packages: these wire them together, and only they may import anything.
ROOTS = ("", "run", "cli", "__main__")


def module_of(path: Path) -> str:
    parts = path.relative_to(TUNNEL).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str | None:
    """Return the package of a module (named without ``tunnel.``); None if it is above all packages."""
    parts = module.split(".")
    if parts[0] in ROOTS:
        return None
    found = ".".join(parts[:2])
    return found if found in PACKAGES else parts[0]


def imports(source: str) -> Iterator[str]:
    """Yield the modules of the package, without ``tunnel.``, that a module imports or names in a string."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and (node.module + ".").startswith("tunnel."):
            module = node.module.removeprefix("tunnel").removeprefix(".")
            for alias in node.names:
                yield ".".join(filter(None, (module, alias.name)))
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield f"(a relative import in line {node.lineno})"  # there are none, so that names can be looked for
        elif isinstance(node, ast.Import):
            yield from (each.name[7:] for each in node.names if (each.name + ".").startswith("tunnel."))
    for constant in constants_in(tree):
        if isinstance(constant.value, str):
            yield from re.findall(r"\btunnel\.((?:[a-z_]+\.)*[a-z_]+)", constant.value)


def forbidden_imports(module: str, source: str) -> list[str]:
    """Return what a module imports although its package must not."""
    package = package_of(module)
    if package is None:
        return []
    allowed = {package, *LOWEST, *PACKAGES[package]}
    return [each for each in imports(source) if package_of(each) not in allowed]


def test_no_module_imports_a_package_above_its_own() -> None:
    found = {module_of(path): forbidden_imports(module_of(path), path.read_text()) for path in TUNNEL.rglob("*.py")}
    assert {module: names for module, names in found.items() if names} == {}


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    above: set[str] = set(PACKAGES)
    while above:
        lowest = {package for package in above if not above.intersection(PACKAGES[package])}
        assert lowest, f"these import each other in a circle: {sorted(above)}"
        above -= lowest


def test_every_package_exists() -> None:
    missing = [name for name in PACKAGES if not list(TUNNEL.glob(name.replace(".", "/") + "*"))]
    assert missing == []


def test_every_package_lists_its_modules() -> None:
    unlisted = []
    for package in TUNNEL.rglob("__init__.py"):
        folder = package.parent
        if folder in (TUNNEL, TUNNEL / "cli"):  # the public names, and a module for each command
            continue
        told = ast.get_docstring(ast.parse(package.read_text())) or ""
        modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
        unlisted += [f"{module_of(package)}.{name}" for name in modules if not re.search(rf"\b{name}\b", told)]
    assert unlisted == []


@pytest.mark.parametrize(
    "source",
    [
        "from tunnel.server.bridge import Bridge",
        "from tunnel import server",
        "from ..server import bridge",
        "import tunnel.server.bridge",
        "import tunnel",
        "def late():\n    from tunnel.server import bridge",
        "BOOT = 'from tunnel.server.bridge import main; main()'",
        "ARGUMENTS = ['-m', 'tunnel.server.bridge']",
    ],
)
def test_every_form_of_import_is_found(source: str) -> None:
    assert forbidden_imports("client.dial", source)
