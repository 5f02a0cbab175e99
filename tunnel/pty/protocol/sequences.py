"""What all parsers of a terminal's output need to know about escape sequences."""

from __future__ import annotations

ALTERNATE_SCREENS = frozenset((b"47", b"1047", b"1049"))  # the modes that switch to the alternate screen
# The rest of a string whose beginning is gone must not be shown as text, so it becomes an unknown string.
UNKNOWN_STRING = {b"]": b"\x1b]99999;", b"P": b"\x1bP~", b"X": b"\x1bX-", b"^": b"\x1b^-", b"_": b"\x1b_-"}
HALF_CHARACTER = rb"[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2}"  # incomplete UTF-8
