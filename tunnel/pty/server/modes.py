"""The modes that a terminal has after the output that has left the scrollback, which a replay cannot set any more.

Sans-I/O: output in, and the bytes that put a new terminal into the same state. This is not an emulator: it knows
neither the screen nor the position of the cursor. It searches output in blocks, with regular expressions that skip
text, colours and movements of the cursor, because it processes every byte of a busy terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tunnel.pty.protocol.sequences import ALTERNATE_SCREENS, HALF_CHARACTER, UNKNOWN_STRING
from tunnel.pty.server.colours import Rendition

BLOCK = 64 << 10  # bytes that are searched at once
SEQUENCE_LIMIT = 4096  # bytes of a sequence that is remembered; of a longer string only its kind is kept
ENTRIES = 64  # remembered modes of each kind
TITLE_LIMIT = 1024  # bytes
STACK = 16  # pushed titles, and pushed flags of the keyboard
COLOURS = 300  # changed colours of the palette

# Quantifiers are possessive, and most sequences are skipped at once: otherwise this takes several times as long.
_SEQUENCE = re.compile(
    rb"\x1b(?!\[[0-9;:]*+[A-HJKPXm])(?:"
    rb"\[(?:([?>=<])([0-9;:]*+)([hlsrumn])"  # private modes, options of the keyboard
    rb"|([0-9;]*+)( q|!p|[hlrt]))"  # modes, shape of the cursor, soft reset, margins, stack of titles
    rb"|\]([0-9]++)(;[^\x07\x18\x1a\x1b]{0,%d}+)?(?:\x07|\x1b\\)"
    rb"|([%%()*+\-./])([ -/]*[0-~])"  # character sets
    rb"|([=>c])"  # keypad, reset
    rb")" % SEQUENCE_LIMIT
)
_COLOURS = re.compile(rb"\x1b\[([0-9;:]*+)m")
# By first digit, number of semicolons, and whether there is a background: the text of a foreground, and so on.
_TRUE_COLOURS = {(b"3", 4, False): b"38", (b"4", 4, False): b"48", (b"3", 9, True): b"38;48"}
_WHOLE = re.compile(
    rb"\x1b(?:"
    rb"\[[^\x40-\x7e\x18\x1a]*[\x40-\x7e\x18\x1a]"
    rb"|\][^\x07\x18\x1a]*[\x07\x18\x1a]"
    rb"|[PX^_][^\x18\x1a]*[\x18\x1a]"
    rb"|[0-OQ-WYZ\\`-\xff\x18\x1a]"
    rb"|[\x00-\x17\x19\x1c-/]+[0-\xff\x18\x1a]"
    rb")",
    re.DOTALL,
)
_STRING = re.compile(rb"\x1b([]PX^_])")
_STRING_END = {b"]": re.compile(rb"[\x07\x18\x1a]|(?=\x1b)")}
_OTHER_STRING_END = re.compile(rb"[\x18\x1a]|(?=\x1b)")
_HALF_CHARACTER = re.compile(rb"(?:" + HALF_CHARACTER + rb")\Z")
_C1 = re.compile(rb"\xc2([\x80-\x9f])")

# These clear the screen, save the cursor, or hold the picture for a moment; 2 and 38 switch to another emulation.
_NOT_KEPT = frozenset((b"2", b"3", b"38", b"1048", b"2026"))
# The attributes of `Modes` that are kept over a restart unchanged: single values, and tables of them.
_TEXTS = ("_half", "_string", "_screen", "_shape", "_keypad", "_margins", "_shift", "_title", "_link")
_TABLES = ("_private", "_saved", "_ansi", "_charsets", "_palette", "_key_options")
_ON_AT_FIRST = frozenset((b"7", b"25"))
_OFF_AFTER_SOFT_RESET = (b"1", b"6")


class Modes:
    """The modes of one terminal; see `restore`."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._half = b""  # a sequence or character that has begun
        self._string = b""  # the kind of a long string that has begun
        self._private: dict[bytes, bytes] = {}  # the number of a mode: h or l; the last change stands last
        self._saved: dict[bytes, bytes] = {}
        self._ansi: dict[bytes, bytes] = {}
        self._screen: bytes | None = None  # the mode that switched to the alternate screen, empty: switched back
        self._shape: bytes | None = None
        self._keypad: bytes | None = None
        self._margins: bytes | None = None
        self._charsets: dict[bytes, bytes] = {}
        self._shift: bytes | None = None
        self._title: bytes | None = None
        self._titles: list[bytes | None] = []
        self._palette: dict[bytes, bytes] = {}
        self._link = b""
        self._key_options: dict[bytes, bytes] = {}
        self._key_flags: dict[bool, list[int]] | None = None  # kitty's stacks: of the main and the alternate screen
        self._rendition = Rendition()

    def capture(self) -> dict[str, Any]:
        """Return all of it as plain data, with bytes as Latin-1 text, for `adopt`."""
        self._digest()
        return {
            **{name: _text(getattr(self, name)) for name in _TEXTS},
            **{name: {_text(key): _text(value) for key, value in getattr(self, name).items()} for name in _TABLES},
            "titles": [_text(title) for title in self._titles],
            "rendition": {name: _text(value) for name, value in self._rendition.attributes.items()},
            "key_flags": None if self._key_flags is None else [self._key_flags[False], self._key_flags[True]],
        }

    def adopt(self, tree: dict[str, Any]) -> None:
        """Restore captured modes; these must be new."""
        for name in _TEXTS:
            setattr(self, name, _bytes(tree[name]))
        for name in _TABLES:
            setattr(self, name, {_bytes(key): _bytes(value) for key, value in tree[name].items()})
        self._titles = [_bytes(title) for title in tree["titles"]]
        self._rendition = Rendition({name: value.encode("latin-1") for name, value in tree["rendition"].items()})
        if tree["key_flags"] is not None:
            main, alternate = tree["key_flags"]
            self._key_flags = {False: list(main), True: list(alternate)}

    def feed(self, data: bytes) -> None:
        """Take note of output."""
        self._waiting += data
        if len(self._waiting) >= BLOCK:
            self._digest()

    def restore(self) -> bytes:
        """Return the bytes that put a new terminal, or one in an earlier state, into this state.

        The last bytes may be the beginning of a sequence or character, which later output completes.
        """
        self._digest()
        parts: list[bytes] = []
        for title in self._titles:
            parts += [*_title(title), b"\x1b[22;2t"]
        parts += _title(self._title)
        parts += (b"\x1b]%b\x1b\\" % each for each in self._palette.values())
        if self._screen is not None:
            parts.append(b"\x1b[?1047l")
        parts += self._keyboard(alternate=False)
        if self._screen:
            parts.append(b"\x1b[?%bh" % self._screen)
            parts += self._keyboard(alternate=True)
        parts += self._key_options.values()
        if self._margins is not None:
            parts.append(b"\x1b[%br" % self._margins if self._margins else b"\x1b7\x1b[r\x1b8")
        parts += (b"\x1b[%b%b" % each for each in self._ansi.items())
        parts += (b"\x1b[?%b%b" % each for each in self._private.items())
        if self._shape is not None:
            parts.append(b"\x1b[%b q" % self._shape)
        if self._keypad is not None:
            parts.append(b"\x1b" + self._keypad)
        parts += (b"\x1b%b%b" % each for each in self._charsets.items())
        if self._shift is not None:
            parts.append(self._shift)
        parts.append(self._rendition.sequence())
        if self._link:
            parts.append(b"\x1b]8%b\x1b\\" % self._link)
        parts.append(UNKNOWN_STRING.get(self._string, b"") + self._half)
        return b"".join(parts)

    def _keyboard(self, *, alternate: bool) -> Iterable[bytes]:
        if self._key_flags is None:
            return
        first, *pushed = self._key_flags[alternate]
        yield b"\x1b[<%du\x1b[=%du" % (STACK, first)
        for flags in pushed:
            yield b"\x1b[>%du" % flags

    # --- Parsing

    def _digest(self) -> None:
        data, self._half = self._half + bytes(self._waiting), b""
        self._waiting.clear()
        if not data.isascii() and b"\xc2" in data:
            data = _C1.sub(lambda found: b"\x1b" + bytes((found[1][0] - 0x40,)), data)
        if self._string:
            end = _STRING_END.get(self._string, _OTHER_STRING_END).search(data)
            if end is None:
                return
            data, self._string = data[end.end() :], b""
        begins = self._cut(data)
        since = 0  # where the last reset ends
        if b"\x1b" in data:
            for found in _SEQUENCE.finditer(data, 0, begins):
                shift = self._shift
                if self._note(found):
                    self._rendition.reset()
                    if shift is None and _last_shift(data, since, found.start()) is not None:
                        self._shift = b"\x0f"
                    since = found.end()
            self._note_colours(data, since, begins)
        self._shift = _last_shift(data, since, begins) or self._shift

    def _cut(self, data: bytes) -> int:
        """Keep an incomplete sequence at the end of ``data`` for the next block; return where it begins."""
        begins = data.rfind(b"\x1b")
        if begins >= 0 and begins == len(data) - 1:
            # Perhaps half of a terminator.
            before = data.rfind(b"\x1b", 0, begins)
            if before >= 0 and _STRING.match(data, before) and not _WHOLE.match(data, before, begins):
                begins = before
        if begins < 0 or _WHOLE.match(data, begins):
            half = _HALF_CHARACTER.search(data, max(0, len(data) - 3))
            begins = half.start() if half else len(data)
        if len(data) - begins <= SEQUENCE_LIMIT:
            self._half = data[begins:]
        elif string := _STRING.match(data, begins):
            self._string = string[1]
            self._half = b"\x1b" if data.endswith(b"\x1b") else b""
        return begins

    def _note(self, found: re.Match[bytes]) -> bool:
        """Take note of a sequence; return whether it resets the terminal."""
        kind, values, final, plain, plain_final, number, payload, charset, charset_name, single = found.groups()
        if kind is not None:
            self._note_private(found[0], kind, values, final)
        elif plain_final is not None:
            return self._note_plain(plain, plain_final)
        elif number is not None:
            self._note_string(number, payload or b"")
        elif charset is not None:
            self._charsets[charset] = charset_name
        elif single == b"c":
            self._reset()
            return True
        else:
            self._keypad = single
        return False

    def _note_private(self, whole: bytes, kind: bytes, values: bytes, final: bytes) -> None:
        if kind == b"?" and final in b"hlsr":
            for number in values.split(b";"):
                self._note_mode(number, final)
        elif final == b"u":
            self._note_keyboard(kind, values)
        elif kind == b">" and final in b"mn":
            if not values:
                self._key_options.clear()
            _remember(self._key_options, values.partition(b";")[0], whole)

    def _note_mode(self, number: bytes, final: bytes) -> None:
        if number in ALTERNATE_SCREENS:
            if final in b"hl":
                self._screen = number if final == b"h" else b""
        elif final == b"s":
            if number in self._private:
                _remember(self._saved, number, self._private[number])
        elif number and number not in _NOT_KEPT and len(number) <= 5:
            default = b"h" if number in _ON_AT_FIRST else b"l"
            _remember(self._private, number, self._saved.get(number, default) if final == b"r" else final)

    def _note_keyboard(self, kind: bytes, values: bytes) -> None:
        """Kitty's protocol for keys: flags that programs push, pop and set, for each screen."""
        if self._key_flags is None:
            self._key_flags = {False: [0], True: [0]}
        stack = self._key_flags[bool(self._screen)]
        numbers = [min(int(each or 0), 0xFFFF) if each.isdigit() else 0 for each in values[:20].split(b";")]
        if kind == b">":
            stack.append(numbers[0])
            del stack[1 : len(stack) - STACK]
        elif kind == b"<":
            del stack[max(1, len(stack) - max(numbers[0], 1)) :]
        elif kind == b"=":
            how = numbers[1] if len(numbers) > 1 else 1
            stack[-1] = {2: stack[-1] | numbers[0], 3: stack[-1] & ~numbers[0]}.get(how, numbers[0])

    def _note_plain(self, values: bytes, final: bytes) -> bool:
        if final in (b"h", b"l"):
            for number in values.split(b";"):
                if number and len(number) <= 5:
                    _remember(self._ansi, number, final)
        elif final == b" q":
            self._shape = values[:5]
        elif final == b"r":
            self._margins = b"" if values == b";" else values[:12]
        elif final == b"t":
            which = values.split(b";")
            if which[0] in (b"22", b"23") and which[1:2] != [b"1"]:
                self._note_title_stack(push=which[0] == b"22")
        else:
            self._soft_reset()
            return True
        return False

    def _note_title_stack(self, *, push: bool) -> None:
        if push:
            self._titles.append(self._title)
            del self._titles[:-STACK]
        elif self._titles:
            self._title = self._titles.pop()

    def _note_string(self, number: bytes, payload: bytes) -> None:
        if number in (b"0", b"2"):
            self._title = payload[1 : 1 + TITLE_LIMIT]
        elif number == b"8":
            self._link = payload if payload.partition(b";")[2].partition(b";")[2] else b""
        elif number == b"4":
            indexes = payload[1:].split(b";")
            for index, colour in zip(indexes[::2], indexes[1::2], strict=False):
                self._note_colour(b"4;" + index, colour)
        elif number == b"104" and not payload:
            # One entry for all of them, before what is changed later.
            kept = {key: value for key, value in self._palette.items() if key[:2] != b"4;"}
            self._palette = {b"104": b"104"} | kept
        elif number == b"104":
            for key in (b"4;" + index for index in payload[1:].split(b";")):
                if key in self._palette:
                    self._palette[key] = b"10" + key
        elif len(number) == 2 and number[:1] == b"1":
            for at, colour in enumerate(payload[1:].split(b";"), start=int(number)):
                self._note_colour(b"%d" % at, colour)
        elif len(number) == 3 and number[:2] == b"11" and number[1:] in self._palette:
            self._palette[number[1:]] = number

    def _note_colour(self, key: bytes, colour: bytes) -> None:
        if colour and colour != b"?" and len(key) <= 6 and len(colour) <= 64:
            _remember(self._palette, key, key + b";" + colour, limit=COLOURS)

    def _note_colours(self, data: bytes, start: int, end: int) -> None:
        """Take note of the rendition of characters from ``start``."""
        reset = max(data.rfind(b"\x1b[m", start, end), data.rfind(b"\x1b[0m", start, end))
        if reset >= 0:
            self._rendition.reset()
            start = reset
        # A sequence overrides an earlier one with the same text, so only the last of them counts. The same is true of
        # true colours whatever the colour; pictures consist of them.
        latest: dict[bytes, bytes] = {}  # by kind, the last one first
        for values in reversed(_COLOURS.findall(data, start, end)):
            kind = values
            if values[1:5] == b"8;2;":
                kind = _TRUE_COLOURS.get((values[:1], values.count(b";"), b";48;2;" in values), values)
            if kind not in latest:
                latest[kind] = values
        for values in reversed(latest.values()):
            self._rendition.apply(values)

    def _reset(self) -> None:
        self._soft_reset()
        for modes in (self._private, self._ansi):
            for number in modes:
                modes[number] = b"h" if modes is self._private and number in _ON_AT_FIRST else b"l"
        self._saved.clear()
        if self._screen is not None:
            self._screen = b""
        if self._key_flags is not None:
            self._key_flags = {False: [0], True: [0]}

    def _soft_reset(self) -> None:
        for number in _OFF_AFTER_SOFT_RESET:
            if number in self._private:
                self._private[number] = b"l"
        if b"25" in self._private:
            self._private[b"25"] = b"h"
        if b"4" in self._ansi:
            self._ansi[b"4"] = b"l"
        if self._keypad is not None:
            self._keypad = b">"
        if self._margins is not None:
            self._margins = b""
        if self._shape is not None:
            self._shape = b""
        if self._shift is not None:
            self._shift = b"\x0f"
        for charset in self._charsets:
            self._charsets[charset] = b"B" if charset in b"()*+" else self._charsets[charset]
        self._link = b""


def _last_shift(data: bytes, start: int, end: int) -> bytes | None:
    """Return the last shift between the character sets G0 and G1."""
    out, back = data.rfind(b"\x0e", start, end), data.rfind(b"\x0f", start, end)
    return None if out == back else b"\x0e" if out > back else b"\x0f"


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")


def _remember(entries: dict[bytes, bytes], key: bytes, value: bytes, *, limit: int = ENTRIES) -> None:
    """Set an entry and put it last; forget the oldest if there are too many."""
    entries.pop(key, None)
    entries[key] = value
    if len(entries) > limit:
        del entries[next(iter(entries))]


def _title(text: bytes | None) -> Iterable[bytes]:
    return () if text is None else (b"\x1b]2;%b\x1b\\" % text,)
