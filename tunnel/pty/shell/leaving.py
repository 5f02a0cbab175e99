"""What a program in the sandbox has changed about the local terminal, and how to undo that when this command leaves.

Otherwise the local shell would be on a full-screen program's screen, and a click of the mouse would be typed into it.
Sans-I/O: output in, bytes for the local terminal out. Only what hinders a shell is noted.
"""

from __future__ import annotations

import re

from tunnel.pty.protocol.sequences import ALTERNATE_SCREENS

CUT = 64  # bytes of a sequence that may arrive in two pieces

_SEQUENCE = re.compile(
    rb"\x1b(?:\[\?([0-9;]++)([hl])"  # modes
    rb"|\[([><=])([0-9]*+)(?:;[0-9]*+)?([um])"  # kitty's keys: pushed, popped, set; xterm's
    rb"|\[([0-9;]*+)r"  # margins
    rb"|([=>])"  # keypad
    rb"|(c))"  # reset
)
# Cursor keys, reversed colours, mouse, focus, pasting, pictures held back, reports of colours and of the size.
_OFF = frozenset(b"1 5 9 1000 1001 1002 1003 1004 1005 1006 1015 1016 2004 2026 2031 2048".split())
_ON = frozenset((b"7", b"25"))  # wrapping, cursor
_OTHER_KEYS = b"\x1b[>4m"
_KEYPAD = b"\x1b>"
_MARGINS = b"\x1b7\x1b[r\x1b8"


class Leaving:
    """Tracks the output, and knows how to restore the terminal after it."""

    def __init__(self) -> None:
        self._cut = b""
        self._forget()

    def _forget(self) -> None:
        self._screen = b""  # the mode that switched to the alternate screen
        self._needed: dict[bytes, None] = {}  # sequences that undo the changes
        self._pushed = {False: 0, True: 0}  # kitty's keys, on the main and the alternate screen

    def feed(self, data: bytes) -> None:
        """Take note of output."""
        data = self._cut + data
        end = 0
        for found in _SEQUENCE.finditer(data):
            end = found.end()
            self._note(*found.groups())
        begins = data.rfind(b"\x1b", max(end, len(data) - CUT))
        self._cut = data[begins:] if begins >= 0 else b""

    def sequence(self) -> bytes:
        """Return the bytes that restore the terminal for a shell."""
        parts = [self._popped(alternate=True), b"\x1b[?%bl" % self._screen] if self._screen else []
        return b"".join((*parts, self._popped(alternate=False), *self._needed, b"\x1b[m"))

    def _popped(self, *, alternate: bool) -> bytes:
        pushed = self._pushed[alternate]
        return b"\x1b[<%du" % pushed if pushed else b""

    def _note(
        self, modes: bytes | None, final: bytes, kind: bytes | None, number: bytes, what: bytes, margins: bytes | None,
        keypad: bytes | None, reset: bytes | None,
    ) -> None:  # fmt: skip
        if modes is not None:
            for mode in modes.split(b";"):
                self._note_mode(mode, on=final == b"h")
        elif kind is not None and what == b"u":
            self._note_keys(kind, min(int(number[:3] or 1), 16))
        elif kind == b">" and number in (b"4", b""):
            self._need(_OTHER_KEYS, needed=number == b"4")
        elif margins is not None:
            self._need(_MARGINS, needed=bool(margins.strip(b";")))
        elif keypad is not None:
            self._need(_KEYPAD, needed=keypad == b"=")
        elif reset is not None:
            self._forget()

    def _note_mode(self, mode: bytes, *, on: bool) -> None:
        if mode in ALTERNATE_SCREENS:
            self._screen = mode if on else b""
            if not on:
                self._pushed[True] = 0
        elif mode in _OFF:
            self._need(b"\x1b[?%bl" % mode, needed=on)
        elif mode in _ON:
            self._need(b"\x1b[?%bh" % mode, needed=not on)

    def _note_keys(self, kind: bytes, number: int) -> None:
        alternate = bool(self._screen)
        if kind == b">":
            self._pushed[alternate] = min(self._pushed[alternate] + 1, 16)
        elif kind == b"<":
            self._pushed[alternate] = max(self._pushed[alternate] - number, 0)
        else:
            self._need(b"\x1b[=0u", needed=True)

    def _need(self, sequence: bytes, *, needed: bool) -> None:
        if needed:
            self._needed[sequence] = None
        else:
            self._needed.pop(sequence, None)
