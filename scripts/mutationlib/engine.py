"""mutmut, which makes the mutants and runs the tests on them: what is changed, and what came of it.

mutmut has no changes of whole statements. They are added here, and some of its own are left out.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import libcst as cst
from mutmut import __main__ as mutmut
from mutmut.mutation import file_mutation, mutators, trampoline
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import get_mutant_name, orig_function_and_class_names_from_key
from mutmut.workers import isolation

from mutationlib.survivors import Mutant

NO_TESTS = 33  # the exit status that mutmut takes for a mutant that no test calls …
UNCLEAR = 35  # … and for one of which nothing is known
KILLED = ("killed", "timeout", "segfault")
_COMMENT = re.compile(r" {2}# .*")
_SENTENCE = re.compile(r"[A-Za-z,:'] [A-Za-z]")


def statements(node: cst.SimpleStatementLine) -> Iterator[cst.SimpleStatementLine]:
    """Drop a call, an assignment to what others see, a ``del`` or a ``raise``."""
    statement = node.body[0]
    is_call = isinstance(statement, cst.Expr) and isinstance(statement.value, cst.Call)
    if is_call or isinstance(statement, cst.Raise | cst.Del) or _is_seen_by_others(statement):
        yield node.with_changes(body=[cst.Pass()])


def _is_seen_by_others(statement: cst.BaseSmallStatement) -> bool:
    if isinstance(statement, cst.Assign):
        targets = [target.target for target in statement.targets]
    elif isinstance(statement, cst.AugAssign):
        targets = [statement.target]
    else:
        return False
    return any(isinstance(target, cst.Attribute | cst.Subscript) for target in targets)


def conditions(node: cst.If | cst.While) -> Iterator[cst.If | cst.While]:
    """Turn a condition that is no comparison round."""
    if isinstance(node.test, cst.Name | cst.Attribute | cst.Call):
        yield node.with_changes(test=cst.UnaryOperation(cst.Not(), node.test))


def words(node: cst.BaseString) -> Iterator[cst.BaseString]:
    """Change strings for programs, in one way. What is a sentence for people may be put in other words."""
    if not (isinstance(node, cst.SimpleString) and _SENTENCE.search(node.value)):
        yield from itertools.islice(mutators.operator_string(node), 1)


def assignments(node: cst.Assign | cst.AnnAssign) -> Iterator[cst.CSTNode]:
    """Assign None; where False was, that would be the same."""
    if not (isinstance(node.value, cst.Name) and node.value.value in ("False", "None")):
        yield from mutators.operator_assignment(node)


def _operators() -> list[tuple[Any, Any]]:
    theirs = (mutators.operator_string, mutators.operator_assignment)
    kept = [(kind, operator) for kind, operator in mutators.mutation_operators if operator not in theirs]
    return [
        *kept,
        (cst.SimpleStatementLine, statements),
        (cst.If, conditions),
        (cst.While, conditions),
        (cst.BaseString, words),
        (cst.Assign, assignments),
        (cst.AnnAssign, assignments),
    ]


file_mutation.mutation_operators = _operators()


def choose(module: str, sample: int | None) -> list[str]:
    """Return the names of all mutants of ``module``, or of ``sample`` of them, the same ones every time."""
    mutated = file_mutation.mutate_file_contents(module, Path(module).read_text())
    names = [get_mutant_name(Path(module), name) for name in mutated.mutant_names]
    random.Random("mutants").shuffle(names)
    return names[:sample]


def run(names: Sequence[str], jobs: int) -> None:
    """Run the tests on each mutant, in the working directory."""
    # The tests have just passed, so they need not run once more without a mutant. And what the environment says of the
    # mutant is asked at every call, which takes as long as all the rest.
    isolation.ForkRunner.run_clean_tests = lambda self, tests: 0
    trampoline.get_mutant_under_test = lambda: trampoline._mutant_under_test or ""
    process = os.getpid()
    try:
        mutmut._run(list(names), jobs)
    except BaseException:
        if os.getpid() != process:  # that of one mutant, which must not go on with what follows here
            traceback.print_exc(file=sys.__stderr__)
            os._exit(UNCLEAR)
        raise


def outcomes(module: str, names: Sequence[str]) -> Iterator[tuple[Mutant, bool]]:
    """Yield each mutant, and whether a test noticed it."""
    data = SourceFileMutationData(path=Path(module))
    data.load()
    for name in names:
        exit_code = data.exit_code_by_key.get(name, NO_TESTS)
        yield _mutant(module, name), was_noticed(exit_code)


def was_noticed(exit_code: int | None) -> bool:
    """Return whether the tests of a mutant ended in a failure, too late, or by a signal."""
    return status_by_exit_code[exit_code] in KILLED or (exit_code is not None and exit_code < 0)


def _mutant(module: str, name: str) -> Mutant:
    function, owner = orig_function_and_class_names_from_key(name)
    diff = get_diff_for_mutant(name, path=Path(module)).split("\n")[3:]
    was, becomes = (
        " ".join(_COMMENT.sub("", line[1:]).strip() for line in diff if line.startswith(sign)) for sign in "-+"
    )
    return Mutant(module, f"{owner}.{function}" if owner else function, was, becomes)
