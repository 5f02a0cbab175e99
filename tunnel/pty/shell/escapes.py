"""Escape sequences at the start of a line, as in ssh: commands to this program, not input for the terminal.

Sans-I/O: bytes in, bytes and commands out.
"""

from __future__ import annotations

from enum import Enum


class Command(Enum):
    """A command; its value is the character that follows the escape character."""

    LEAVE = b"."
    DETACH = b"&"
    HELP = b"?"


def help_text(escape: str, *, own: bool) -> str:
    """Return the text that ``~?`` shows. ``own``: this command started the terminal, and leaving ends it."""
    lines = [
        "Escapes, at the start of a line:",
        f" {escape}.  leave and end the terminal" if own else f" {escape}.  leave; the terminal keeps running",
        f" {escape}&  leave; the terminal keeps running",
        f" {escape}?  show this help",
        f" {escape}{escape}  type {escape}",
    ]
    return "\n".join(lines)


class EscapeReader:
    """Separates escapes from other input. ``escape`` is the escape character, None to disable escapes."""

    def __init__(self, escape: str | None) -> None:
        self._escape = b"" if escape is None else escape.encode()
        self._at_start = True  # of a line
        self._begun = False  # the escape character was read, and waits for the next one

    def feed(self, data: bytes) -> list[bytes | Command]:
        """Return input for the terminal and commands, in the order in which they were typed."""
        if not self._escape:
            return [data]
        found: list[bytes | Command] = []
        text = bytearray()
        for number in data:
            byte = bytes((number,))
            if self._begun:
                self._begun = False
                command = next((each for each in Command if each.value == byte), None)
                if command is not None:
                    found += [bytes(text), command] if text else [command]
                    text.clear()
                    self._at_start = True
                    continue
                if byte != self._escape:
                    text += self._escape
                self._at_start = False
            elif self._at_start and byte == self._escape:
                self._begun = True
                continue
            text += byte
            self._at_start = byte in (b"\r", b"\n")
        if text:
            found.append(bytes(text))
        return found

    def end(self) -> bytes:
        """Return the input that is still held back, when the input has ended."""
        return self._escape if self._begun else b""
