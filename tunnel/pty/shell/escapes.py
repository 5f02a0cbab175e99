"""What a user says to this program instead of to the terminal: escapes at the start of a line, as in ssh.

Bytes in, bytes and commands out; nothing here does what a command says.
"""

from __future__ import annotations

from enum import Enum


class Command(Enum):
    """What follows the escape character, and the words for it in `help_text`."""

    LEAVE = b"."
    DETACH = b"&"
    HELP = b"?"


def help_text(escape: str, *, own: bool) -> str:
    """Return what ``~?`` shows; ``own`` tells whether the terminal ends with this command."""
    lines = [
        "Escapes, at the start of a line:",
        f" {escape}.  leave; the terminal ends" if own else f" {escape}.  leave; the terminal goes on",
        f" {escape}&  leave; the terminal goes on",
        f" {escape}?  this help",
        f" {escape}{escape}  {escape} itself",
    ]
    return "\n".join(lines)


class EscapeReader:
    """Takes the escapes out of what is typed. ``escape`` is one character, None for no escapes at all."""

    def __init__(self, escape: str | None) -> None:
        self._escape = b"" if escape is None else escape.encode()
        self._at_start = True  # of a line
        self._begun = False  # by the escape character, which waits for what follows

    def feed(self, data: bytes) -> list[bytes | Command]:
        """Return what is for the terminal, and commands, in the order they were typed."""
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
        """Return what waited for more when the input ended."""
        return self._escape if self._begun else b""
