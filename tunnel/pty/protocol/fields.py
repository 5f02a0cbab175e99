"""Fields of JSON messages, read and written by proto3's mapping; every reader raises Malformed for what does not fit.

A field that is missing or null has its default: an empty object, an empty array, None, false, 0.
"""

from __future__ import annotations

import binascii

from tunnel.pty.protocol.framing import Malformed, Object, as_object


def read_object(fields: Object, name: str) -> Object:
    """Return the object ``fields[name]``."""
    value = fields.get(name)
    return {} if value is None else as_object(value, name)


def read_array(fields: Object, name: str) -> list[object]:
    """Return the array ``fields[name]``."""
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"{name} is not a JSON array")
    return value


def read_text(fields: Object, name: str) -> str | None:
    """Return the text ``fields[name]``, None if it is missing."""
    value = fields.get(name)
    return None if value is None else as_text(value, name)


def as_text(value: object, name: str) -> str:
    """Return ``value``, which must be a string of valid Unicode."""
    if not isinstance(value, str):
        raise Malformed(f"{name} is not a string")
    try:
        value.encode()
    except UnicodeEncodeError as exc:  # a lone surrogate, which JSON can spell
        raise Malformed(f"{name} is not valid Unicode") from exc
    return value


def read_boolean(fields: Object, name: str, *, default: bool) -> bool:
    """Return the boolean ``fields[name]``."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Malformed(f"{name} is neither true nor false")
    return value


def read_integer(fields: Object, name: str, *, minimum: int = 0) -> int:
    """Return the number ``fields[name]``, from ``minimum`` to 32 bits; proto3 allows a number as text, too."""
    value = fields.get(name)
    if value is None:
        return 0
    if isinstance(value, str) and value.isascii() and len(value) <= 11 and value.removeprefix("-").isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value < 1 << 32:
        raise Malformed(f"{name} is not a 32-bit number")
    return value


def base64(data: bytes) -> str:
    """Return ``data`` as the text of a bytes field."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def read_bytes(fields: Object, name: str) -> bytes:
    """Return the bytes in ``fields[name]``: base64 in either alphabet, with or without padding, and nothing else."""
    text = read_text(fields, name) or ""
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    if "=" not in text:
        text += "=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError) as exc:
        raise Malformed(f"{name} is not base64") from exc
