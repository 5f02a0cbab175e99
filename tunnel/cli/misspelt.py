"""A first word that is almost the name of a command: it is taken for a typing error, not for a host."""

from __future__ import annotations

import os

from tunnel.client.layers import configured, read_environment
from tunnel.client.options import OPTIONS, parse_command_line
from tunnel.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Words that people expect to be commands, and the real commands.
_INSTEAD = {"version": "--version", "ssh-config": "config-ssh"}
_HOSTS = "sandbox"  # a common prefix of host names: sandbox1 and sandbox-a are not misspelt `sandboxes`
_SHORT = 4  # letters; such short names are often alike by chance, so only one letter may differ


def check_first_word(words: Sequence[str], commands: Iterable[str]) -> None:
    """Raise UsageError if the first word is almost one of ``commands``, and not a host in the config file."""
    word = words[0].lower()
    near = None if word.startswith(_HOSTS) else nearest(word, (*commands, *_INSTEAD))
    if near is None or _is_configured(words):
        return
    problem = f"there is no command {words[0]}; did you mean {_INSTEAD.get(near, near)}?"
    raise UsageError(f"{problem} (for a host with that name: wstunnel-py connect -- {words[0]})")


def nearest(word: str, commands: Iterable[str]) -> str | None:
    """Return the command that ``word`` could be a misspelling of; None if there is none."""
    distances = [(distance(word, command), command) for command in commands]
    near = [(far, command) for far, command in distances if far <= (1 if len(command) <= _SHORT else 2)]
    return min(near)[1] if near else None


def distance(one: str, other: str) -> int:
    """Return how many insertions, deletions, changes and swaps of neighbours turn ``one`` into ``other``."""
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
    """Return whether the first word is a host of the config file. Raises UsageError for an invalid file."""
    try:
        given, _ = parse_command_line(words)
    except UsageError:  # the options may be those of the command that was meant
        given = {}
    return configured(given, read_environment(os.environ, OPTIONS)).lookup(words[0]) is not None
