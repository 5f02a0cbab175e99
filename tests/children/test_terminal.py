"""Size and modes of a terminal."""

from __future__ import annotations

import os
import struct
import termios
from collections.abc import Iterator
from fcntl import ioctl

import pytest

from tunnel.children.terminal import IUTF8, enable_utf8, set_size


@pytest.fixture
def terminal() -> Iterator[int]:
    ours, theirs = os.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def size(terminal: int) -> tuple[int, ...]:
    """Rows, columns, width and height."""
    return struct.unpack("HHHH", ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))


def test_the_size_has_characters_and_pixels(terminal: int) -> None:
    set_size(terminal, 132, 43)
    assert size(terminal) == (43, 132, 0, 0)
    set_size(terminal, 80, 24, 640, 480)
    assert size(terminal) == (24, 80, 640, 480)


def test_a_size_that_is_too_large_is_cut_to_the_largest(terminal: int) -> None:
    set_size(terminal, 1 << 31, 24, 1 << 31, 1 << 31)
    assert size(terminal) == (24, 65535, 65535, 65535)


def test_utf_8_is_one_of_the_modes(terminal: int) -> None:
    enable_utf8(terminal)
    assert termios.tcgetattr(terminal)[0] & IUTF8
