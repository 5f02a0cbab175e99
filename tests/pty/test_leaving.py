"""A terminal that is left while a program runs in it: the local terminal is restored."""

from __future__ import annotations

import pytest

from tunnel.pty.shell.leaving import Leaving

CASES = {
    b"text \x1b[31mred": b"",
    b"\x1b[?1049h": b"\x1b[?1049l",
    b"\x1b[?1049h\x1b[?1049l": b"",
    b"\x1b[?47h\x1b[?1000;1006h\x1b[?1000l": b"\x1b[?47l\x1b[?1006l",
    b"\x1b[?1h\x1b=\x1b[?2004h\x1b[?25l\x1b[?12l": b"\x1b[?1l\x1b>\x1b[?2004l\x1b[?25h",
    b"\x1b[?1h\x1b=\x1b[?2004h\x1b[?25l\x1bc": b"",
    b"\x1b[?1h\x1b=\x1b[?25l\x1b[?25h\x1b>\x1b[?1l": b"",
    b"\x1b[>4;2m": b"\x1b[>4m",
    b"\x1b[>4;2m\x1b[>m": b"",
    b"\x1b[3;9r": b"\x1b7\x1b[r\x1b8",
    b"\x1b[3;9r\x1b[r": b"",
    b"\x1b[>1u\x1b[?1049h\x1b[>5u\x1b[>7u\x1b[<u": b"\x1b[<1u\x1b[?1049l\x1b[<1u",
    b"\x1b[>1u\x1b[<9u": b"",
    b"\x1b[=1;1u": b"\x1b[=0u",
}


@pytest.mark.parametrize(("written", "taken_back"), CASES.items(), ids=repr)
def test_what_the_output_changed_in_the_terminal_is_undone(written: bytes, taken_back: bytes) -> None:
    at_once, in_bytes = Leaving(), Leaving()
    at_once.feed(written)
    for byte in written:
        in_bytes.feed(bytes((byte,)))
    assert at_once.sequence() == in_bytes.sequence() == taken_back + b"\x1b[m"


def test_what_is_remembered_of_any_output_is_bounded() -> None:
    leaving = Leaving()
    for number in range(300):
        leaving.feed(b"\x1b[?%dh\x1b[>%du\x1b[<%du\x1b[%d" % ((number,) * 4) + b"\x1b" * number)
        leaving.feed(b"\x1b[?" + b"1;" * 1000)
    assert len(leaving.sequence()) < 200
