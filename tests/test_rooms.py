"""The rooms of the package, and which of them may import which: nothing imports what stands above it.

An import counts wherever it stands: at the top of a module, inside a function, for the type checker only, or as a name
in a string by which a module is started or imported later.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.earlier import ROOT
from tests.bed.sources import constants_in

PACKAGE = ROOT / "tunnel"

# From the bottom to the top: a room, and the rooms that it may import.
LOWEST = ("errors", "_version")
ROOMS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "_version": (),
    "protocol": (),
    "net": ("protocol",),
    "children": ("net",),
    "pki": ("net",),
    "client": ("net", "protocol"),
    "server": ("children", "net", "pki", "protocol"),
    "pty": (),
    "pty.protocol": ("protocol",),
    "pty.client": ("client", "net", "protocol", "pty.protocol"),
    "pty.shell": ("client", "net", "protocol", "pty.client", "pty.protocol"),
    "pty.server": ("children", "net", "protocol", "pty.protocol", "server"),
    "pty.web": ("net", "pty.server"),
    "ssh": ("children", "client", "net", "pki", "protocol", "server", "ssh.server"),
    "ssh.server": ("children", "net", "pki", "protocol"),
    "websocat": ("children", "client", "net", "protocol", "server"),
}
# Above all rooms: these wire them together, and only they may import anything.
ROOTS = ("", "run", "cli", "__main__")


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """Return the room of a module (named without ``tunnel.``); None: it stands above all rooms."""
    parts = module.split(".")
    if parts[0] in ROOTS:
        return None
    found = ".".join(parts[:2])
    return found if found in ROOMS else parts[0]


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


def strangers(module: str, source: str) -> list[str]:
    """Return what a module imports though its room must not."""
    room = room_of(module)
    if room is None:
        return []
    allowed = {room, *LOWEST, *ROOMS[room]}
    return [each for each in imports(source) if room_of(each) not in allowed]


def test_no_module_imports_a_room_above_its_own() -> None:
    found = {module_of(path): strangers(module_of(path), path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {module: names for module, names in found.items() if names} == {}


def test_the_rooms_stand_in_an_order() -> None:
    above: set[str] = set(ROOMS)
    while above:
        lowest = {room for room in above if not above.intersection(ROOMS[room])}
        assert lowest, f"these import each other in a circle: {sorted(above)}"
        above -= lowest


def test_every_room_is_there() -> None:
    missing = [room for room in ROOMS if not list(PACKAGE.glob(room.replace(".", "/") + "*"))]
    assert missing == []


def test_every_package_lists_its_modules() -> None:
    unlisted = []
    for package in PACKAGE.rglob("__init__.py"):
        folder = package.parent
        if folder in (PACKAGE, PACKAGE / "cli"):  # the public names, and a module for each command
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
def test_every_way_to_import_is_noticed(source: str) -> None:
    assert strangers("client.dial", source)
