"""The copy of the repository that is mutated and tested."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Sequence
from pathlib import Path

from lib.interpreter import ROOT

_COPIED = ("tunnel", "tests", "docs", "scripts", "README.md", "CHANGELOG.md")


def make_copy(folder: Path, module: str, tests: Sequence[str]) -> None:
    """Copy what the tests need to ``folder``, with a configuration of mutmut for ``module`` and ``tests``."""
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    path = folder / module
    path.write_text(without_property_decorators(path.read_text()))
    project = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(f"{project}\n{_configuration(module, tests)}")


def _configuration(module: str, tests: Sequence[str]) -> str:
    also = [name for name in _COPIED if name not in ("tunnel", "tests")]
    return f"""[tool.mutmut]
source_paths = ["tunnel"]
only_mutate = ["{module}"]
also_copy = {also}
pytest_add_cli_args = [
    "--timeout=60", "-p", "mutationlib.plugin",
    "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:unraisableexception",
]
pytest_add_cli_args_test_selection = {list(tests)}
timeout_constant = 20.0
timeout_multiplier = 4.0
track_dependencies = false
use_git_change_detection = false
"""


def without_property_decorators(code: str) -> str:
    """Return ``code`` with ``name = property(name)`` behind each property: mutmut leaves decorated functions alone."""
    lines = code.split("\n")
    properties = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef) and [ast.unparse(made) for made in node.decorator_list] == ["property"]
    ]
    for node in sorted(properties, key=lambda node: node.lineno, reverse=True):
        assert node.end_lineno is not None
        lines.insert(node.end_lineno, f"{' ' * node.col_offset}{node.name} = property({node.name})")
        del lines[node.decorator_list[0].lineno - 1]
    return "\n".join(lines)
