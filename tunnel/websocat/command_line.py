"""A command line of websocat, parsed into options and addresses, in the same way as by websocat.

Short options may be combined (``-bE``). A value is the next word, or follows its option directly (``-B65536``) or after
``=``. Several headers may follow one ``-H``. ``--exec-args`` takes all words after it.
"""

from __future__ import annotations

from tunnel.client.options import LONGEST
from tunnel.client.words import Words, refuse_value, unknown_option
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

HIGHEST = 1 << 40  # the highest number of messages or bytes
_LONG = {option.name: option for option in SUPPORTED}
_SHORT = {option.short: option for option in SUPPORTED if option.short}


class CommandLine:
    """A parsed command line: options by name, ``operands``, and ``needless`` options, reported with ``-v``."""

    def __init__(self, words: Sequence[str]) -> None:
        """Parse ``words``. Raises UsageError, which names the wrong word."""
        self.operands: list[str] = []
        self.needless: list[str] = []
        self._values: dict[str, str | int | bool | list[str]] = {}
        self._words = Words(words)
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
        for name, attached in self._words.items(_stands_alone):
            if not name:
                self.operands.append(attached or "")
            elif name.startswith("--"):
                self._read_long(name[2:], attached)
            elif name[1:] in UNSUPPORTED_SHORT:
                raise UsageError(f"the option {name} (--{UNSUPPORTED_SHORT[name[1:]]}) is not supported here")
            elif name[1:] not in _SHORT:
                raise unknown_option(name, (), "websocat")
            else:
                # A value may follow a = here, too.
                self._take(_SHORT[name[1:]], name, (attached or "").removeprefix("=") or None)

    def _read_long(self, name: str, attached: str | None) -> None:
        if name in NEEDLESS:
            takes_value, why = NEEDLESS[name]
            if takes_value:
                self._words.value(f"--{name}", attached, "a value")
            self.needless.append(f"--{name}: {why}")
        elif name in _LONG and name not in ("verbose", "quiet"):  # websocat has only short names for these two
            self._take(_LONG[name], f"--{name}", attached)
        elif name in UNSUPPORTED:
            raise UsageError(f"the option --{name} is not supported here")
        else:
            raise unknown_option(f"--{name}", list(_LONG), "websocat")

    def _take(self, option: Option, origin: str, word: str | None) -> None:
        if option.kind == FLAG:
            refuse_value(origin, word)
            self._values[option.name] = True
            return
        if option.kind == REST:
            self._values[option.name] = [*([word] if word is not None else []), *self._words.rest]
            self._words.rest = []
            return
        value = self._words.value(origin, word, option.metavar)
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
            # Without the value, which may be a secret.
            raise UsageError("write a header as 'Name: value'", origin=origin)
        taken.append(first)
        while self._words.rest and _is_header(self._words.rest[0]):
            taken.append(self._words.rest.pop(0))


def _stands_alone(letter: str) -> bool:
    return letter not in _SHORT or _SHORT[letter].kind == FLAG


def _is_header(word: str) -> bool:
    """Return whether a word after a header is another header, not an address."""
    name, colon, _ = word.partition(":")
    return bool(colon) and not word.startswith("-") and not is_type(name)


def _number(option: Option, origin: str, word: str) -> int:
    highest = int(LONGEST) if option.kind == SECONDS else HIGHEST
    if not (word.isascii() and word.isdigit() and len(word) <= 13 and int(word) <= highest):
        raise UsageError(f"{word!r} is not a number from 0 to {highest}", origin=origin)
    return int(word)
