"""The code around mutmut: which mutants may survive, and that properties have mutants."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutationlib.copy import without_property_decorators
from mutationlib.main import LIST, main
from mutationlib.modules import PATHS, files_with_tests, modules_of
from mutationlib.survivors import Mutant, outdated, read_list, unexplained
from tests.bed.earlier import ROOT

LIVES = Mutant("tunnel/a.py", "f", "x = 1", "x = 2")
OTHER = Mutant("tunnel/b.py", "C.g", "y()", "pass")


def test_each_mutant_that_may_live_is_one_of_a_module_that_is_there_with_a_reason() -> None:
    for text, reason in read_list(ROOT / LIST).items():
        module, function, *change = text.split(" | ")
        source = (ROOT / module).read_text()
        assert module.startswith(PATHS) and len(reason) > 20
        assert f"def {function.rpartition('.')[2]}(" in source
        code = " ".join(line.partition("  # ")[0].strip() for line in source.split("\n"))
        # What was there may have a bar in it, too.
        assert any(" | ".join(change[:end]) in code for end in range(1, len(change))), f"no such line any more: {text}"


def test_survivors_without_a_reason_and_reasons_without_a_survivor_are_reported() -> None:
    reasons = {str(LIVES): "because"}
    assert unexplained([LIVES, OTHER, OTHER], reasons) == [OTHER]
    assert outdated(["tunnel/a.py", "tunnel/b.py"], [LIVES], reasons) == []
    assert outdated(["tunnel/a.py"], [OTHER], reasons) == [str(LIVES)]
    assert outdated(["tunnel/b.py"], [OTHER], reasons) == [], "that module was not tested"


@pytest.mark.parametrize("group", ['reason = " "\nmutants = []', 'reason = "x"\nmutants = ["a", "a"]'])
def test_a_list_without_a_reason_or_with_the_same_mutant_twice_is_refused(tmp_path: Path, group: str) -> None:
    path = tmp_path / "list.toml"
    path.write_text(f"[[group]]\n{group}\n")
    with pytest.raises(ValueError, match=str(path)):
        read_list(path)


def test_a_property_stays_one_without_its_decorator() -> None:
    code = """
class C:
    @property
    def a(self):
        return (
            1
        )

    @staticmethod
    def b():
        return 2

    @property
    def c(self): return 3
"""
    changed = without_property_decorators(code)
    assert "@property" not in changed and "@staticmethod" in changed
    names: dict[str, type] = {}
    exec(changed, names)
    made = names["C"]()
    assert (made.a, made.b(), made.c) == (1, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tunnel/net/none.py"], "tunnel/net/none.py: no module of tunnel that can be changed is there"),
        (["tests/mutation"], "tests/mutation: no module of tunnel that can be changed is there"),
        (
            ["tunnel/protocol/capture.py"],
            "tunnel/protocol/capture.py: no module of tunnel that can be changed is there",
        ),
        (["/"], "/: no module of tunnel that can be changed is there"),
        (["--sample", "0"], "argument --sample: at least 1"),
        (["--jobs", "-1"], "argument --jobs: at least 1"),
        (["--jobs", "many"], "argument --jobs: no number: many"),
    ],
)
def test_a_mistake_in_an_argument_is_reported_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {said}\n")


def test_each_module_has_tests_of_its_own() -> None:
    modules = modules_of(PATHS)
    assert "tunnel/net/pump.py" in modules and "tunnel/server/session_registry.py" in modules
    without = {module for module in modules if not files_with_tests(module)}
    assert without <= {"tunnel/protocol/byte_stream.py"}, "that one has no code"
