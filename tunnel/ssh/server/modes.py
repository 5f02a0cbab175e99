"""Terminal modes that a client requests with a pty (RFC 4254 section 8)."""

from __future__ import annotations

import os
import termios
from collections.abc import Mapping

from tunnel.children.terminal import IUTF8

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6  # indexes in the list that tcgetattr returns
_UNSET = 255  # a disabled control character, on the wire

# Opcodes of RFC 4254 (42 is from RFC 8160) and their names in termios. Not every system has all of them.
_CHARACTERS = {
    1: "VINTR", 2: "VQUIT", 3: "VERASE", 4: "VKILL", 5: "VEOF", 6: "VEOL", 7: "VEOL2", 8: "VSTART", 9: "VSTOP",
    10: "VSUSP", 11: "VDSUSP", 12: "VREPRINT", 13: "VWERASE", 14: "VLNEXT", 16: "VSWTC", 17: "VSTATUS",
    18: "VDISCARD",
}  # fmt: skip
_FLAGS = {
    30: (_IFLAG, "IGNPAR"), 31: (_IFLAG, "PARMRK"), 32: (_IFLAG, "INPCK"), 33: (_IFLAG, "ISTRIP"),
    34: (_IFLAG, "INLCR"), 35: (_IFLAG, "IGNCR"), 36: (_IFLAG, "ICRNL"), 37: (_IFLAG, "IUCLC"), 38: (_IFLAG, "IXON"),
    39: (_IFLAG, "IXANY"), 40: (_IFLAG, "IXOFF"), 41: (_IFLAG, "IMAXBEL"), 42: (_IFLAG, "IUTF8"),
    50: (_LFLAG, "ISIG"), 51: (_LFLAG, "ICANON"), 52: (_LFLAG, "XCASE"), 53: (_LFLAG, "ECHO"), 54: (_LFLAG, "ECHOE"),
    55: (_LFLAG, "ECHOK"), 56: (_LFLAG, "ECHONL"), 57: (_LFLAG, "NOFLSH"), 58: (_LFLAG, "TOSTOP"),
    59: (_LFLAG, "IEXTEN"), 60: (_LFLAG, "ECHOCTL"), 61: (_LFLAG, "ECHOKE"), 62: (_LFLAG, "PENDIN"),
    70: (_OFLAG, "OPOST"), 71: (_OFLAG, "OLCUC"), 72: (_OFLAG, "ONLCR"), 73: (_OFLAG, "OCRNL"), 74: (_OFLAG, "ONOCR"),
    75: (_OFLAG, "ONLRET"),
    92: (_CFLAG, "PARENB"), 93: (_CFLAG, "PARODD"),
}  # fmt: skip
_SIZES = {90: "CS7", 91: "CS8"}
_MISSING = {"IUTF8": IUTF8}  # without a name in this Python


def apply_modes(terminal: int, modes: Mapping[int, int]) -> None:
    """Set the modes (opcode → argument) of ``terminal``; those that the system lacks are ignored."""
    attributes = termios.tcgetattr(terminal)
    for opcode, argument in modes.items():
        if opcode in _CHARACTERS:
            place = getattr(termios, _CHARACTERS[opcode], None)
            if place is not None:
                disabled = os.fpathconf(terminal, "PC_VDISABLE")
                attributes[_CC][place] = bytes([disabled if argument == _UNSET else argument & 0xFF])
        elif opcode in _FLAGS:
            field, name = _FLAGS[opcode]
            bit = getattr(termios, name, _MISSING.get(name, 0))
            attributes[field] = attributes[field] | bit if argument else attributes[field] & ~bit
        elif opcode in _SIZES and argument:
            attributes[_CFLAG] = attributes[_CFLAG] & ~termios.CSIZE | getattr(termios, _SIZES[opcode])
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
