"""Changes modules in small ways, runs their tests on each mutant, and compares the survivors with the list."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from lib.interpreter import ROOT
from mutationlib.copy import make_copy
from mutationlib.modules import PATHS, files_with_tests, modules_of
from mutationlib.survivors import Mutant, outdated, read_list, unexplained

LIST = "tests/mutation/survivors.toml"
MAY_LIVE = 0.05  # of the mutants of one of the `PATHS`
Outcome = tuple[Mutant, bool]  # a mutant, and whether a test noticed it


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        modules = modules_of(options.paths or PATHS)
    except ValueError as exc:
        parser.error(str(exc))
    reasons = read_list(ROOT / LIST)
    outcomes: list[Outcome] = []
    for module in modules:
        print(f"{module}", flush=True)
        # In a process of its own, as mutmut has one configuration for all of its life.
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            outcomes += pool.submit(_measure, module, options.sample, options.jobs).result()
    return _report(outcomes, reasons, is_whole=options.sample is None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/test --mutation", description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"modules or folders; by default {', '.join(PATHS)}")
    parser.add_argument("--sample", type=_count, metavar="N", help="N mutants of each module, the same ones every time")
    parser.add_argument("--jobs", type=_count, metavar="N", default=os.cpu_count() or 1, help="how many at a time")
    return parser


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"no number: {text}") from exc
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


def _measure(module: str, sample: int | None, jobs: int) -> list[Outcome]:
    tests = files_with_tests(module)
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    try:
        make_copy(folder, module, tests)
        os.chdir(folder)
        from mutationlib import engine  # mutmut reads its configuration when it is imported

        names = engine.choose(module, sample)
        if names and tests:
            engine.run(names, jobs)
        return list(engine.outcomes(module, names))
    finally:
        os.chdir(ROOT)
        shutil.rmtree(folder)


def _report(outcomes: Sequence[Outcome], reasons: dict[str, str], *, is_whole: bool) -> int:
    """Print the figures for each module, and what is wrong; return the exit status."""
    survivors = [mutant for mutant, was_noticed in outcomes if not was_noticed]
    made = Counter(mutant.module for mutant, _ in outcomes)
    alive = Counter(mutant.module for mutant in survivors)
    print("\n mutants  survived")
    wrong: list[str] = []
    for name in (*sorted(made), *PATHS):
        total = sum(count for module, count in made.items() if module.startswith(name))
        left = sum(count for module, count in alive.items() if module.startswith(name))
        if total:
            print(f"{total:8} {left:9} {left / total:7.1%}  {name}")
        is_complete = is_whole and name in PATHS and made.keys() >= set(modules_of([name]))
        if is_complete and left > total * MAY_LIVE:
            wrong.append(f"More than {MAY_LIVE:.0%} of {name} survive.")
    if unlisted := unexplained(survivors, reasons):
        lines = "\n".join(f"    '''{mutant}'''," for mutant in unlisted)
        wrong.append(f"No test notices these mutants, and {LIST} gives no reason why none has to:\n{lines}")
    if stale := outdated(made, survivors, reasons) if is_whole else []:
        lines = "\n".join(f"    '''{text}'''," for text in stale)
        wrong.append(f"{LIST} lists these mutants, but they do not survive:\n{lines}")
    for problem in wrong:
        print(f"\n{problem}", file=sys.stderr)
    return 1 if wrong else 0
