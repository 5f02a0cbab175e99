"""Numbers from a peer: ASCII digits only, with a limit for their number.

Python's ``int`` accepts signs, spaces, underscores and digits of other scripts, and raises for too many digits.
"""

from __future__ import annotations

LONGEST = 19  # digits of the largest number with 63 bits


def parse_decimal(text: str, digits: int = LONGEST) -> int | None:
    """Return the number in ``text``, None unless it is 1 to ``digits`` digits."""
    if not (0 < len(text) <= digits and text.isascii() and text.isdigit()):
        return None
    return int(text)


def parse_hexadecimal(data: bytes, digits: int = 16) -> int | None:
    """Return the number in ``data``, None unless it is 1 to ``digits`` hexadecimal digits."""
    if not (0 < len(data) <= digits and all(byte in b"0123456789abcdefABCDEF" for byte in data)):
        return None
    return int(data, 16)
