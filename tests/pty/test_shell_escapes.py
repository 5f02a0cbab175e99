"""Escapes at the start of a line, which are for this program, and other input, which is for the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.pty.shell.escapes import Command, EscapeReader


def read(*typed: bytes, escape: str | None = "~") -> list[bytes | Command]:
    """Return the result for input in these pieces; adjacent bytes are joined."""
    reader = EscapeReader(escape)
    found: list[bytes | Command] = []
    for item in [item for data in typed for item in reader.feed(data)] + [reader.end()]:
        last = found[-1] if found else None
        if isinstance(item, bytes) and isinstance(last, bytes):
            found[-1] = last + item
        elif item:
            found.append(item)
    return found


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (b"~.", [Command.LEAVE]),
        (b"ls\r~.", [b"ls\r", Command.LEAVE]),
        (b"ls\n~&", [b"ls\n", Command.DETACH]),
        (b"~?", [Command.HELP]),
        (b"~?~?ls", [Command.HELP, Command.HELP, b"ls"]),
        (b"~~.", [b"~."]),
        (b"~/bin/x\r", [b"~/bin/x\r"]),
        (b"ls ~.", [b"ls ~."]),
        (b"~\r~.", [b"~\r", Command.LEAVE]),
        (b"~x~.", [b"~x~."]),
        (b"~", [b"~"]),
        ("ä~.".encode(), ["ä~.".encode()]),
    ],
)
def test_an_escape_counts_at_the_start_of_a_line_only(typed: bytes, meant: list[bytes | Command]) -> None:
    assert read(typed) == meant
    assert read(*(bytes((byte,)) for byte in typed)) == meant  # as it is typed


@given(st.lists(st.binary(max_size=8)))
def test_without_an_escape_character_every_byte_passes(pieces: list[bytes]) -> None:
    assert b"".join(map(bytes, read(*pieces, escape=None))) == b"".join(pieces)  # type: ignore[arg-type]


@given(st.lists(st.text("ab~\r.", max_size=6)))
def test_the_pieces_do_not_matter(pieces: list[str]) -> None:
    text = "".join(pieces).encode()
    assert read(*(piece.encode() for piece in pieces)) == read(text)
