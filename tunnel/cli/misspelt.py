"""A first word that is nearly a command: it was hardly meant as the name of a sandbox."""

from __future__ import annotations

import os

from tunnel.client.layers import configured, read_environment
from tunnel.client.options import OPTIONS, parse_command_line
from tunnel.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What people take for a command, and what there is instead.
_INSTEAD = {"version": "--version", "ssh-config": "config-ssh"}
_SHORT = 4  # letters of a command; names as short as that are alike by chance, so that they may differ in one only


def check_first_word(words: Sequence[str], commands: Iterable[str]) -> None:
    """Raise UsageError if the first of ``words`` is nearly one of ``commands``, and no host in the config file."""
    word = words[0].lower()
    near = nearest(word, (*commands, *_INSTEAD))
    if near is None or _is_configured(words):
        return
    problem = f"there is no command {words[0]}; did you mean {_INSTEAD.get(near, near)}?"
    raise UsageError(f"{problem} (a host of that name: wstunnel-py connect -- {words[0]})")


def nearest(word: str, commands: Iterable[str]) -> str | None:
    """Return the command that ``word`` is most like, if it could be a slip of the fingers."""
    distances = [(distance(word, command), command) for command in commands]
    near = [(far, command) for far, command in distances if far <= (1 if len(command) <= _SHORT else 2)]
    return min(near)[1] if near else None


def distance(one: str, other: str) -> int:
    """Return how many letters must be inserted, left out, changed or swapped with the next to get from one to other."""
    before: list[int] = []
    row: list[int] = [*range(len(other) + 1)]
    for at, letter in enumerate(one, 1):
        before, last, row = row, before, [at]
        for to, wanted in enumerate(other, 1):
            cost = min(before[to] + 1, row[to - 1] + 1, before[to - 1] + (letter != wanted))
            if at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == wanted:
                cost = min(cost, last[to - 2] + 1)
            row.append(cost)
    return row[-1]


def _is_configured(words: Sequence[str]) -> bool:
    """Return whether the config file knows the first word as a host. Raises UsageError for a file that is wrong."""
    try:
        given, _ = parse_command_line(words)
    except UsageError:  # the options are those of the command that was meant
        given = {}
    return configured(given, read_environment(os.environ, OPTIONS)).lookup(words[0]) is not None
