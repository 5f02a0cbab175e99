"""Running a command line of websocat, from its words to its exit code."""

from __future__ import annotations

from tunnel.errors import spell_settings
from tunnel.websocat.command_line import CommandLine
from tunnel.websocat.options import option_of
from tunnel.websocat.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def run(words: Sequence[str]) -> int:
    """Run ``words`` like ``websocat``; return the exit code. Raises TunnelError."""
    spell_settings(option_of)
    plan = Plan(CommandLine(words))
    if plan.dials:
        from tunnel.websocat.dialling import run as dial

        return dial(plan)
    from tunnel.websocat.serving import run as serve

    return serve(plan)
