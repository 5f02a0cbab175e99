"""Reads pages into values (named numbers, tables, blocks of code), and modules into their constants."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
UNITS = {"": 1, "s": 1, "ms": 0.001, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_QUANTITY = r"([0-9][0-9,.^]*)\s*(s|ms|B|KiB|MiB|GiB)?"
_NAMED = re.compile(rf"`([a-z][a-z0-9-]+)`\s+\({_QUANTITY}\)")
_LISTED = re.compile(rf"^\| `([a-z][a-z0-9-]+)` \| {_QUANTITY} \|", re.MULTILINE)
_TABLE = "\n## Numbers\n"
_HEADER = re.compile(r"Wstunnel-[A-Za-z]+(?:-[A-Za-z]+)*")

# A constant is told by its module and its name, so that a module that is renamed is changed in one place only.
Constant = tuple[ModuleType, str]


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def unwrapped(text: str) -> str:
    """Return the text with spaces for all line ends, to find in it what may be wrapped."""
    return " ".join(text.split())


def value_of(constant: Constant) -> float:
    module, name = constant
    value = getattr(module, name)
    assert isinstance(value, (int, float)), f"{module.__name__}.{name}"
    return float(value)


def numbers(text: str) -> Iterator[tuple[str, float]]:
    """Yield each number that the page gives a name to, wherever it does."""
    for name, digits, unit in (*_NAMED.findall(text), *_LISTED.findall(text.partition(_TABLE)[2])):
        base, _, exponent = digits.replace(",", "").partition("^")
        yield name, (float(base) ** int(exponent) if exponent else float(base)) * UNITS[unit]


def listed(text: str) -> list[str]:
    """Return the names of the table of numbers."""
    return [name for name, *_ in _LISTED.findall(text.partition(_TABLE)[2])]


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table that begins with the header row ``heading``."""
    lines = text[text.index(f"{heading}\n") :].splitlines()[2:]
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def block(text: str, language: str, after: str) -> str:
    """Return the first block of code in ``language`` behind the line ``after``."""
    rest = text[text.index(f"{after}\n") :]
    return rest.partition(f"```{language}\n")[2].partition("```")[0]


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """Yield all modules in a package, and in those below it."""
    yield package
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(info.name)


def tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def constants_of(module: ModuleType) -> Iterator[Constant]:
    """Yield the public constants that a module itself defines, as far as they are numbers or texts."""
    for node in tree(module).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(name, ast.Name) and re.fullmatch(r"[A-Z][A-Z0-9_]+", name.id):
                    value = getattr(module, name.id, None)
                    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
                        yield module, name.id


def unknown(found: Iterable[Constant], known: Iterable[str]) -> list[str]:
    """Return the constants that are there more often than ``known``, and those of ``known`` that are not there."""
    there = [(f"{module.__name__}.{name}", name) for module, name in found]
    surplus = Counter(name for _, name in there)
    surplus.subtract(Counter(known))
    return [
        f"{name} (in {', '.join(full for full, short in there if short == name)})" for name, n in surplus.items() if n
    ]


def headers(modules: Iterable[ModuleType]) -> set[str]:
    """Return the names of our own header fields that modules mention."""
    return {name for module in modules for name in _HEADER.findall(inspect.getsource(module))}


def headers_told(text: str) -> set[str]:
    return set(_HEADER.findall(text))
