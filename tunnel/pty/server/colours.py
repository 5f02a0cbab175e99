"""How characters are shown at a point of a terminal's output: colours, bold, underlined, and so on (SGR)."""

from __future__ import annotations

from collections.abc import Mapping

_VALUE_LIMIT = 64  # bytes of one attribute

# Which attribute a number sets, and which ones a number takes back.
_SETS = {
    1: "bold", 2: "faint", 3: "italic", 4: "underline", 5: "blink", 6: "blink", 7: "inverse", 8: "hidden",
    9: "struck", 20: "italic", 21: "underline", 38: "foreground", 48: "background", 51: "frame", 52: "frame",
    53: "overline", 58: "line", 73: "raised", 74: "raised",
    **dict.fromkeys(range(11, 20), "font"),
    **dict.fromkeys((*range(30, 38), *range(90, 98)), "foreground"),
    **dict.fromkeys((*range(40, 48), *range(100, 108)), "background"),
}  # fmt: skip
_CLEARS = {
    10: ("font",), 22: ("bold", "faint"), 23: ("italic",), 24: ("underline",), 25: ("blink",), 27: ("inverse",),
    28: ("hidden",), 29: ("struck",), 39: ("foreground",), 49: ("background",), 54: ("frame",), 55: ("overline",),
    59: ("line",), 75: ("raised",),
}  # fmt: skip
_COLOUR_LENGTH = {b"2": 5, b"5": 3}  # parameters of "38;2;R;G;B" and "38;5;N"


class Rendition:
    """The attributes in force, each as the parameters that set it."""

    def __init__(self, attributes: Mapping[str, bytes] | None = None) -> None:
        self._set: dict[str, bytes] = dict(attributes or {})

    @property
    def attributes(self) -> Mapping[str, bytes]:
        """The attributes that are set, and their parameters; what was set last stands last."""
        return self._set

    def reset(self) -> None:
        """Go back to normal characters."""
        self._set.clear()

    def apply(self, values: bytes) -> None:
        """Apply the parameters of one sequence, such as ``1;38;5;208``."""
        parts = values.split(b";")
        at = 0
        while at < len(parts):
            number, colon, _ = parts[at].partition(b":")
            length = 1
            if number in (b"38", b"48", b"58") and not colon:
                length = _COLOUR_LENGTH.get(parts[at + 1] if at + 1 < len(parts) else b"", 1)
            self._change(int(number) if number and len(number) < 5 else 0, b";".join(parts[at : at + length]))
            at += length

    def _change(self, number: int, text: bytes) -> None:
        if number == 0:
            self._set.clear()
        elif number == 4 and text == b"4:0":
            self._set.pop("underline", None)
        elif number in _SETS:
            name = _SETS[number]
            self._set.pop(name, None)  # what was set last stands last
            self._set[name] = text[:_VALUE_LIMIT]
        else:
            for name in _CLEARS.get(number, ()):
                self._set.pop(name, None)

    def sequence(self) -> bytes:
        """Return the sequence that sets these attributes and no others."""
        return b"\x1b[%bm" % b";".join((b"0", *self._set.values()))
