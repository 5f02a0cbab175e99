"""A command line of websocat's, read into options and addresses, in the way that websocat reads it.

That is: short options may stand together (``-bE``); a value follows its option, stands right behind it (``-B65536``) or
behind a ``=``; headers may follow one another behind one ``-H``; ``--exec-args`` takes all that follows.
"""

from __future__ import annotations

from tunnel.client.options import LONGEST, suggestion
from tunnel.errors import UsageError
from tunnel.websocat.addresses import is_type
from tunnel.websocat.options import (
    FLAG,
    HEADERS,
    NEEDLESS,
    NUMBER,
    REST,
    SECONDS,
    SUPPORTED,
    UNSUPPORTED,
    UNSUPPORTED_SHORT,
    Option,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HIGHEST = 1 << 40  # of a number: messages or bytes
_LONG = {option.name: option for option in SUPPORTED}
_SHORT = {option.short: option for option in SUPPORTED if option.short}


class CommandLine:
    """What stood on the command line: options by name, ``operands``, and ``needless`` options for ``-v``."""

    def __init__(self, words: Sequence[str]) -> None:
        """Read ``words``. Raises UsageError, which names the word that is wrong."""
        self.operands: list[str] = []
        self.needless: list[str] = []
        self._values: dict[str, str | int | bool | list[str]] = {}
        self._words = list(words)
        self._read()

    def flag(self, name: str) -> bool:
        return self._values.get(name) is True

    def text(self, name: str) -> str | None:
        value = self._values.get(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> int | None:
        value = self._values.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def several(self, name: str) -> list[str]:
        value = self._values.get(name)
        return value if isinstance(value, list) else []

    def given(self, name: str) -> bool:
        return name in self._values

    def _read(self) -> None:
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                self.operands += self._words
                return
            if word.startswith("--"):
                self._read_long(word[2:])
            elif word.startswith("-") and len(word) > 1:
                self._read_short(word[1:])
            else:
                self.operands.append(word)

    def _read_long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        if name in NEEDLESS:
            takes_value, why = NEEDLESS[name]
            if takes_value and not equals:
                self._next(f"--{name}", "a value")
            self.needless.append(f"--{name}: {why}")
        elif name in _LONG and name not in ("verbose", "quiet"):  # these two have short names only in websocat
            self._take(_LONG[name], f"--{name}", value if equals else None)
        elif name in UNSUPPORTED:
            raise UsageError(f"the option --{name} is not supported here")
        else:
            near = suggestion(name, list(_LONG), "--")
            raise UsageError(f"there is no option --{name}{near}; see wstunnel-py websocat --help")

    def _read_short(self, letters: str) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in UNSUPPORTED_SHORT:
                raise UsageError(f"the option -{letter} (--{UNSUPPORTED_SHORT[letter]}) is not supported here")
            if letter not in _SHORT:
                raise UsageError(f"there is no option -{letter}; see wstunnel-py websocat --help")
            option = _SHORT[letter]
            if option.kind != FLAG:
                self._take(option, f"-{letter}", letters.removeprefix("=") or None)
                return
            self._take(option, f"-{letter}", None)

    def _next(self, origin: str, what: str) -> str:
        if not self._words:
            raise UsageError(f"{origin} needs a value: {what}")
        return self._words.pop(0)

    def _take(self, option: Option, origin: str, word: str | None) -> None:
        if option.kind == FLAG:
            if word is not None:
                raise UsageError(f"{origin} takes no value")
            self._values[option.name] = True
            return
        if option.kind == REST:
            self._values[option.name] = [*([word] if word is not None else []), *self._words]
            self._words = []
            return
        value = self._next(origin, option.metavar) if word is None else word
        if option.kind == HEADERS:
            self._take_headers(option, origin, value)
        elif option.kind in (NUMBER, SECONDS):
            self._values[option.name] = _number(option, origin, value)
        else:
            self._values[option.name] = value

    def _take_headers(self, option: Option, origin: str, first: str) -> None:
        taken = self._values.setdefault(option.name, [])
        if not isinstance(taken, list):
            return
        if ":" not in first:
            # The value itself may be a secret.
            raise UsageError(f"{origin}: a header is written 'Name: value'")
        taken.append(first)
        while self._words and _is_header(self._words[0]):
            taken.append(self._words.pop(0))


def _is_header(word: str) -> bool:
    """Return whether a word behind a header is one more, rather than an address."""
    name, colon, _ = word.partition(":")
    return bool(colon) and not word.startswith("-") and not is_type(name)


def _number(option: Option, origin: str, word: str) -> int:
    highest = int(LONGEST) if option.kind == SECONDS else HIGHEST
    if not (word.isascii() and word.isdigit() and len(word) <= 13 and int(word) <= highest):
        raise UsageError(f"{origin}: {word!r} is not a number from 0 to {highest}")
    return int(word)
