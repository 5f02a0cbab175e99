"""The scrollback finds bytes by their offsets, knows their stream, and drops the oldest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.pty.protocol.messages import OutputKind
from tunnel.pty.server.scrollback import Scrollback

kinds = st.sampled_from(("stdout", "stderr"))


@given(st.lists(st.tuples(kinds, st.binary(min_size=1, max_size=20))), st.integers(0, 200), st.integers(1, 30))
def test_what_is_read_is_what_was_written(written: list[tuple[OutputKind, bytes]], trim: int, limit: int) -> None:
    scrollback = Scrollback()
    expected: list[tuple[str, int]] = []
    for kind, data in written:
        scrollback.append(kind, data)
        expected += [(kind, byte) for byte in data]
    trim = min(trim, len(expected))
    scrollback.trim(trim)
    assert (scrollback.start, scrollback.end) == (trim, len(expected))
    found: list[tuple[str, int]] = []
    while trim + len(found) < scrollback.end:
        kind, data = scrollback.read(trim + len(found), limit)
        assert 0 < len(data) <= limit
        found += [(kind, byte) for byte in data]
    assert found == expected[trim:]


@pytest.mark.parametrize("offset", [0, 4, 10, 11])
def test_a_byte_that_is_not_there_is_an_error(offset: int) -> None:
    scrollback = Scrollback()
    scrollback.append("pty", b"0123456789")
    scrollback.trim(5)
    with pytest.raises(ValueError, match=str(offset)):
        scrollback.read(offset, 1)


def test_many_changes_of_the_stream_are_bounded_too() -> None:
    scrollback = Scrollback()
    for number in range(100_000):
        scrollback.append("stdout" if number % 2 else "stderr", b"x")
    assert scrollback.end == 100_000
    assert scrollback.end - scrollback.start <= 8192
    assert scrollback.read(99_999, 10) == ("stdout", b"x")
