"""A replay without its queries, which the terminal that shows it must not answer again. Sans-I/O.

Programs query the type of a terminal, the position of its cursor and its colours. The terminal sends its answers as
input; during a replay a shell would get them, and take them for commands. So only sequences without an answer pass,
from a list, as there are too many others. Sequences with a lasting effect do not pass either: the clipboard,
notifications, printing, moving of windows. Modes that terminals report at once (focus) are set after the replay, if
they are still on: then the program that wants the reports is still running.

``web/replay.js`` is this module for browsers; a test compares them.
"""

from __future__ import annotations

import re

from tunnel.pty.protocol.sequences import ALTERNATE_SCREENS, HALF_CHARACTER, UNKNOWN_STRING

SEQUENCE_LIMIT = 4096  # bytes of a sequence that is held back; for a longer string its beginning decides

# Text: ASCII, and complete characters in UTF-8, whose bytes could look like controls. 05 queries the answerback.
_CHARACTER = (
    rb"\xc2[\x80-\x8f\x91-\x97\x99\xa0-\xbf]|[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
    rb"|[\x80-\x8f\x91-\x97\x99\xa0-\xc1\xf5-\xff]"
)
_TEXT = re.compile(rb"(?:[\x00-\x04\x06-\x1a\x1c-\x7f]+|[\x98\x9c\x9e\x9f]|\xc2\x9c|" + _CHARACTER + rb")+")
# BEL ends an OSC, but no other string.
_OSC_TEXT = re.compile(rb"(?:[\x00-\x06\x08-\x17\x19\x1c-\x7f]+|" + _CHARACTER + rb")*")
_STRING_TEXT = re.compile(rb"(?:[\x00-\x17\x19\x1c-\x7f]+|" + _CHARACTER + rb")*")
_HALF = re.compile(rb"(?:" + HALF_CHARACTER + rb"|\x1b)\Z")
# Controls within a sequence are executed at once.
_ESCAPE_CONTROLS = re.compile(rb"[\x00-\x17\x19\x1c-\x1f\x7f]*")
_ESCAPE_BODY = re.compile(rb"[\x00-\x17\x19\x1c-/\x7f]*")
_CSI_BODY = re.compile(rb"[^\x18\x1a\x1b@-~\x90\x98\x9a\x9b\x9d-\x9f]*")
_CONTROLS = re.compile(rb"[\x00-\x04\x06-\x1a\x1c-\x1f]+")
_NOT_PARAMETERS = re.compile(rb"[^ -?]+")
_STRING_END = re.compile(rb"\x07|\x1b\\|\xc2?\x9c")
_NUMBERS = re.compile(rb"[0-9;:]*")

# The sequences that pass. CSI: what is before and after the numbers, and the final byte.
_CSI = frozenset(
    [(b"", b"", final) for final in b"@ABCDEFGHIJKLMPSTUVXZ`abdefghjklmqrsu"]
    + [(b"?", b"", final) for final in b"hlrsJKW"]
    + [(b">", b"", final) for final in b"fmnpstTu"]
    + [(b"<", b"", ord("u")), (b"=", b"", ord("u"))]
    + [(b"", b" ", final) for final in b"@APqtu"]
    + [(b"", b"!", ord("p"))]
    + [(b"", b'"', final) for final in b"pq"]
    + [(b"", b"#", final) for final in b"PQpqy{}"]
    + [(b"", b"$", final) for final in b"rtvxz{|}~"]
    + [(b"", b"'", final) for final in b"z{}~"]
    + [(b"", b"*", final) for final in b"x|"]
)
_TITLE_STACK = (b"22", b"23")  # of CSI t; others are queries, or move the window
# OSC: titles, folder, link, text sizes, resets of colours, marks of shells, stacks of colours.
_OSC = frozenset((0, 1, 2, 7, 8, 66, 104, 105, 106, *range(110, 120), 133, 633, 30001, 30101))
_OSC_UNLESS_ASKING = frozenset((4, 5, 6, *range(10, 20), 21, 22))  # queries with a question mark
_DCS = re.compile(rb"[0-9;:]*[q{]|=[12]s")  # pictures, characters, synchronized updates

_REPORTED_AT_ONCE = frozenset((b"1004", b"2031", b"2048"))  # focus, light or dark, size


class Replay:
    """The first ``size`` bytes of output are a replay; later output passes unchanged.

    ``alternate``: whether the alternate screen is shown at the current point of the replay.
    """

    def __init__(self, size: int) -> None:
        self.alternate = False
        self._left = size
        self._held = b""  # a sequence or character that has begun
        self._string = b""  # the kind of a long string that has begun
        self._passes = False  # that string
        self._reported: dict[bytes, None] = {}  # modes to set behind the replay
        self._over = size == 0

    @property
    def running(self) -> bool:
        """Whether the replay is not complete yet."""
        return not self._over

    def restore(self, data: bytes) -> bytes:
        """Return what to show of a `Restore` event's data, which precedes the output."""
        return self._filter(data) + self._end()

    def feed(self, data: bytes) -> bytes:
        """Return what to show of the next output."""
        if self._over:
            return data
        replayed, live = data[: self._left], data[self._left :]
        self._left -= len(replayed)
        return self._filter(replayed) + self._end() + live

    def _end(self) -> bytes:
        """If the replay is over, return the bytes that live output continues from."""
        if self._left:
            return b""
        self._over = True
        modes = b"".join(b"\x1b[?%bh" % mode for mode in self._reported)
        held, self._held = self._held, b""
        # The rest of a dropped string is live output.
        cut = UNKNOWN_STRING.get(self._string, b"")
        if self._passes:
            return b"\x1b\\" + modes + cut + held if modes else held
        return modes + cut + held

    # --- The filter

    def _filter(self, data: bytes) -> bytes:
        data, self._held = self._held + data, b""
        out: list[bytes] = []
        at = 0
        while at < len(data):
            if self._string:
                after = self._long_string(data, at, out)
            elif found := _TEXT.match(data, at):
                out.append(found[0])
                after = found.end()
            else:
                after = self._control(data, at, out)
            if after < 0:
                self._held = data[at:] if at else data
                break
            at = after
        return b"".join(out)

    def _control(self, data: bytes, at: int, out: list[bytes]) -> int:
        """Process the control or sequence at ``at``; return where it ends, -1 to wait for more."""
        first = data[at]
        if first == 0x1B:
            end = _end(_ESCAPE_CONTROLS, data, at + 1)
            if end == len(data) and end - at <= SEQUENCE_LIMIT:
                return -1
            if end == len(data) or not 0x20 <= data[end] <= 0x7E:
                out += _CONTROLS.findall(data, at, end)
                return end
            return self._sequence(data[end : end + 1], data, at, end + 1, out)
        if first == 0xC2 or first >= 0xC3:
            if _HALF.match(data, at):
                return -1
            if first == 0xC2 and data[at + 1] in b"\x90\x98\x9a\x9b\x9d\x9e\x9f":
                return self._sequence(bytes((data[at + 1] - 0x40,)), data, at, at + 2, out)
            out.append(data[at : at + 1])
        elif first in b"\x90\x9a\x9b\x9d":
            return self._sequence(bytes((first - 0x40,)), data, at, at + 1, out)
        return at + 1

    def _sequence(self, kind: bytes, data: bytes, at: int, body: int, out: list[bytes]) -> int:
        """Process the sequence from ``at``, of which ``kind`` is the second byte in seven bits."""
        if kind == b"[":
            return self._csi(data, at, body, out)
        if kind in b"]PX^_":
            return self._begun_string(kind, data, at, body, out)
        if kind < b"0":
            end = _end(_ESCAPE_BODY, data, body)
            if end == len(data) and end - at <= SEQUENCE_LIMIT:
                return -1
            if end == len(data) or not 0x30 <= data[end] <= 0x7E:
                out += _CONTROLS.findall(data, at, end)
                return end
            out.append(data[at : end + 1].replace(b"\x05", b""))
            return end + 1
        if kind == b"Z":
            out += _CONTROLS.findall(data, at, body)
        else:
            if kind == b"c":
                self.alternate = False
                self._reported.clear()
            out.append(data[at:body].replace(b"\x05", b""))
        return body

    def _csi(self, data: bytes, at: int, body: int, out: list[bytes]) -> int:
        end = _end(_CSI_BODY, data, body)
        if end == len(data):
            if end - at <= SEQUENCE_LIMIT:
                return -1
            return end  # its rest is shown as text; such a long sequence has no meaning
        if not 0x40 <= data[end] <= 0x7E:
            out += _CONTROLS.findall(data, at, end)  # it was cut off
            return end
        text = _NOT_PARAMETERS.sub(b"", data[body:end])
        before = text[:1] if text[:1] in (b"?", b">", b"<", b"=") else b""
        numbers = text[len(before) :].rstrip(b" !\"#$%&'()*+,-./")
        behind = text[len(before) + len(numbers) :]
        whole = data[at : end + 1].replace(b"\x05", b"")
        if end - at > SEQUENCE_LIMIT or not self._passes_csi(before, numbers, behind, data[end]):
            out += _CONTROLS.findall(data, at, end)
        elif before == b"?" and data[end] in b"hlr":
            out.append(self._modes(whole, numbers.split(b";"), data[end : end + 1]))
        else:
            out.append(whole)
        return end + 1

    def _passes_csi(self, before: bytes, numbers: bytes, behind: bytes, final: int) -> bool:
        if final == ord("t") and not before and not behind:
            return numbers.split(b";")[0] in _TITLE_STACK
        return _NUMBERS.fullmatch(numbers) is not None and (before, behind, final) in _CSI

    def _modes(self, whole: bytes, numbers: list[bytes], final: bytes) -> bytes:
        """Note the modes that are set or reset; return what passes."""
        numbers = [each.lstrip(b"0") for each in numbers]
        if ALTERNATE_SCREENS.intersection(numbers):
            self.alternate = final == b"h"
        reported = _REPORTED_AT_ONCE.intersection(numbers)
        if not reported:
            return whole
        if final == b"l":
            for each in reported:
                self._reported.pop(each, None)
            return whole
        if final == b"h":
            self._reported.update(dict.fromkeys(sorted(reported)))
        rest = [each for each in numbers if each not in reported]
        return b"\x1b[?%b%b" % (b";".join(rest), final) if rest else b""

    def _begun_string(self, kind: bytes, data: bytes, at: int, body: int, out: list[bytes]) -> int:
        end = _end(_OSC_TEXT if kind == b"]" else _STRING_TEXT, data, body)
        text = _CONTROLS.sub(b"", data[body:end].replace(b"\x05", b""))
        if end == len(data) or _HALF.match(data, end):
            if end - at <= SEQUENCE_LIMIT:
                return -1
            self._string, self._passes = kind, _passes_string(kind, text, whole=False)
            if self._passes:
                out.append(data[at:end].replace(b"\x05", b""))
            return end
        terminator = _string_end(data, end)
        if terminator and _passes_string(kind, text, whole=end - at <= SEQUENCE_LIMIT):
            out.append(data[at : end + terminator].replace(b"\x05", b""))
        return end + terminator  # without a terminator it was cut off

    def _long_string(self, data: bytes, at: int, out: list[bytes]) -> int:
        end = _end(_OSC_TEXT if self._string == b"]" else _STRING_TEXT, data, at)
        if end == at and _HALF.match(data, end):
            return -1
        if end < len(data) and not _HALF.match(data, end):
            terminator = _string_end(data, end)
            kept = data[at : end + terminator] if terminator else data[at:end] + b"\x1b\\"
            end += terminator
            self._string = b""
        else:
            kept = data[at:end]
        if self._passes:
            out.append(kept.replace(b"\x05", b""))
        self._passes = self._passes and bool(self._string)
        return end


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    """Return where what ``pattern`` finds at ``at`` ends."""
    found = pattern.match(data, at)
    return found.end() if found else at


def _string_end(data: bytes, at: int) -> int:
    """Return the length of the string terminator at ``at``; 0 if the string is cut off there."""
    found = _STRING_END.match(data, at)
    return len(found[0]) if found else 0


def _passes_string(kind: bytes, text: bytes, *, whole: bool) -> bool:
    """Return whether a string passes. ``whole``: ``text`` is all of it."""
    if kind == b"P":
        return _DCS.match(text) is not None
    number, _, rest = text.partition(b";")
    if kind != b"]" or not number.isdigit() or len(number) > 5:
        return False
    return int(number) in _OSC or (int(number) in _OSC_UNLESS_ASKING and whole and b"?" not in rest)
