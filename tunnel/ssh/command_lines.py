"""The command lines of ssh, scp and sftp: where their options end, and which hosts they name.

The options are those of POSIX getopt: letters, some with a value, up to the first operand or ``--``. Only ssh accepts
further options after its host. Nothing is checked here: the program itself reports errors.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# Letters whose options take a value, of all OpenSSH versions.
TAKE_VALUE = {
    "ssh": frozenset("bcDEeFIiJLlmOoPpQRSWwB"),
    "scp": frozenset("cDFiJloPSX"),
    "sftp": frozenset("bcDFiJloPRSsXB"),
}
_JUMP = re.compile(r"\s*proxyjump(?:\s*=\s*|\s+)\"?([^\"]*)\"?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Letter:
    """One option: its letter and value, and its position: word ``start`` at ``offset``, up to word ``stop``."""

    letter: str
    value: str
    start: int
    offset: int
    stop: int

    @property
    def jump(self) -> str | None:
        """The jump hosts, if this option names some (``-J``, ``-o ProxyJump``)."""
        if self.letter == "J":
            return self.value
        found = _JUMP.fullmatch(self.value) if self.letter == "o" else None
        return found[1] if found else None


@dataclass(frozen=True)
class Remote:
    """An operand on another machine: its host without brackets, and whether it has a user."""

    at: int
    host: str
    has_user: bool


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line of ssh, scp or sftp. ``end`` is where options can be inserted after all others."""

    words: list[str]
    options: list[Letter]
    end: int
    remotes: list[Remote]

    def value(self, letter: str) -> str | None:
        """Return the value of an option, the last one if it is repeated; None without it."""
        return next((each.value for each in reversed(self.options) if each.letter == letter), None)

    def has(self, letter: str) -> bool:
        return any(each.letter == letter for each in self.options)

    @property
    def long_options(self) -> list[str]:
        """The options that look like long ones, which none of the three programs has."""
        return [self.words[each.start] for each in self.options if each.letter == "-" and each.offset == 1]


def parse(program: str, words: Sequence[str]) -> CommandLine:
    """Parse the words after ``program``: ssh, scp or sftp."""
    words = list(words)
    options, at, end = _scan(words, 0, TAKE_VALUE[program])
    operands = range(at, len(words))
    if program == "scp":
        return CommandLine(words, options, end, [each for at in operands if (each := _remote(words[at], at, "scp"))])
    if not operands:
        return CommandLine(words, options, end, [])
    if program == "sftp":
        found = _remote(words[at], at, "sftp") or _destination(words[at], at)
        return CommandLine(words, options, end, [found])
    if end == at:  # without a "--", ssh also accepts options after the host
        more, _, end = _scan(words, at + 1, TAKE_VALUE[program])
        options += more
    return CommandLine(words, options, end, [_uri(words[at], at, "ssh") or _destination(words[at], at)])


def without_options(line: CommandLine, gone: Sequence[Letter]) -> CommandLine:
    """Return the command line without the options ``gone``, which take a value."""
    words = list(line.words)
    for each in sorted(gone, key=lambda each: -each.start):
        words[each.start : each.stop] = [words[each.start][: each.offset]] if each.offset > 1 else []

    def moved(at: int) -> int:
        return at - sum(each.stop - each.start - (each.offset > 1) for each in gone if each.start < at)

    remotes = [Remote(moved(each.at), each.host, each.has_user) for each in line.remotes]
    return CommandLine(words, [each for each in line.options if each not in gone], moved(line.end), remotes)


def _scan(words: Sequence[str], at: int, take_value: frozenset[str]) -> tuple[list[Letter], int, int]:
    """Return the options from word ``at`` on, where the operands begin, and where the options end: before a "--"."""
    found: list[Letter] = []
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        word = words[at]
        if word == "--":
            return found, at + 1, at
        stop = at + 1
        for offset, letter in enumerate(word[1:], 1):
            if letter not in take_value:
                found.append(Letter(letter, "", at, offset, stop))
                continue
            value = word[offset + 1 :]
            if not value and stop < len(words):
                value = words[stop]
                stop += 1
            found.append(Letter(letter, value, at, offset, stop))
            break
        at = stop
    return found, at, at


def _remote(word: str, at: int, scheme: str) -> Remote | None:
    """Return the host of ``host:path`` or of a URI, None for a local path."""
    if found := _uri(word, at, scheme):
        return found
    if sys.platform == "win32" and word[1:2] == ":" and word[0].isalpha():
        return None  # a drive letter
    colon = _colon(word)
    return _destination(word[:colon], at) if colon else None


def _colon(word: str) -> int:
    """Return the position of the colon after the host, 0 if there is none; not after a slash or in brackets."""
    brackets = word.startswith("[")
    for at, char in enumerate(word):
        brackets = brackets or word.startswith("@[", at)
        if char == ":" and not brackets:
            return at
        if char == "]" and brackets and word.startswith(":", at + 1):
            return at + 1
        if char == "/":
            return 0
    return 0


def _destination(word: str, at: int) -> Remote:
    user, sign, host = word.rpartition("@")
    return Remote(at, _bare(host), bool(sign and user))


def _uri(word: str, at: int, scheme: str) -> Remote | None:
    start = f"{scheme}://"
    if not word.lower().startswith(start):
        return None
    user, sign, place = word[len(start) :].partition("/")[0].rpartition("@")
    host = place if place.endswith("]") or ":" not in place else place.rpartition(":")[0]
    return Remote(at, _bare(host), bool(sign and user))


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host
