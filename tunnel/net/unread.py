"""Whether a readable descriptor has data or is at its end, without reading it."""

from __future__ import annotations


def has_data(descriptor: int) -> bool:
    """Return whether a readable descriptor has data; True if the system cannot say."""
    try:
        import fcntl
        import termios
    except ImportError:  # on Windows
        return True
    size = bytearray(4)
    try:
        fcntl.ioctl(descriptor, termios.FIONREAD, size)
    except OSError:  # not a pipe, socket or terminal
        return True
    return any(size)
