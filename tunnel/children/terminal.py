"""Size and modes of a terminal, as termios and ioctl set them."""

from __future__ import annotations

import fcntl
import struct
import termios

IUTF8 = getattr(termios, "IUTF8", 0x4000)  # has a name since Python 3.13; the number is Linux's and macOS's
_LARGEST = 65535  # struct winsize has 16 bits for each number


def set_size(descriptor: int, columns: int, rows: int, width: int = 0, height: int = 0) -> None:
    """Set the size in characters, and in pixels if they are known; the kernel sends SIGWINCH to the foreground group.

    Numbers that are too large are cut to the largest possible one.
    """
    numbers = (min(number, _LARGEST) for number in (rows, columns, width, height))
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", *numbers))


def enable_utf8(descriptor: int) -> None:
    """Make the terminal erase whole UTF-8 characters, not single bytes."""
    modes = termios.tcgetattr(descriptor)
    modes[0] |= IUTF8
    termios.tcsetattr(descriptor, termios.TCSANOW, modes)
