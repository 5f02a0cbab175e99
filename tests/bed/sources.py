"""Looking at the source of the package."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def constants_in(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the constants of a module, but for its docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield node
