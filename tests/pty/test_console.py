"""The console of Windows, played by an object with its five functions: when it is read, and what is restored when."""

from __future__ import annotations

import ctypes
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tunnel.errors import UsageError
from tunnel.pty.shell.console import INPUT, OUTPUT, ConsoleTerminal

COOKED, PLAIN = 0x1F7, 0x3  # the modes of a new console on Windows
RAW, VIRTUAL = 0x3F0, 0xF  # without lines, echo and Ctrl-C; with escape sequences
LIMIT = 30.0


class Kernel:
    """kernel32: ``keys`` are the UTF-16 units of the next calls of ReadConsoleW; its modes are in ``modes``."""

    def __init__(self, *keys: str) -> None:
        self.modes = {INPUT: COOKED, OUTPUT: PLAIN}
        self.refused = 0  # bits that this console does not know
        self.keys = list(keys)
        self.reads: list[int] = []  # the mode of the input at each call
        self.shown: list[tuple[int, bytes]] = []  # the mode of the output, and the text
        self.is_read = threading.Event()
        self.may_write = threading.Event()
        self.may_write.set()

    def get_mode(self, handle: ctypes.c_void_p, mode: Any) -> int:
        which = _which(handle)
        if which not in self.modes:
            return 0
        mode._obj.value = self.modes[which]
        return 1

    def set_mode(self, handle: ctypes.c_void_p, mode: int) -> int:
        if mode & self.refused:
            return 0
        self.modes[_which(handle)] = mode
        return 1

    def read(self, _handle: object, buffer: Any, _units: int, count: Any, _control: None) -> int:
        self.reads.append(self.modes[INPUT])
        self.is_read.set()
        units = self.keys.pop(0) if self.keys else ""
        for at, unit in enumerate(units):
            buffer[at] = unit
        count._obj.value = len(units)
        return 1

    def write(self, _handle: object, text: ctypes.c_char_p, units: int, count: Any, _reserved: None) -> int:
        assert self.may_write.wait(LIMIT)
        self.shown.append((self.modes[OUTPUT], ctypes.string_at(text, 2 * units)))
        count._obj.value = units
        return 1


def _which(handle: ctypes.c_void_p) -> int:
    return -(handle.value or 0)


def console_of(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> ConsoleTerminal:
    def get_std_handle(which: int) -> int:
        return -which

    functions = SimpleNamespace(
        GetStdHandle=get_std_handle, GetConsoleMode=kernel.get_mode, SetConsoleMode=kernel.set_mode,
        ReadConsoleW=kernel.read, WriteConsoleW=kernel.write,
    )  # fmt: skip
    monkeypatch.setattr(ctypes, "WinDLL", lambda *_, **__: functions, raising=False)
    return ConsoleTerminal()


def read_all(kernel: Kernel, terminal: ConsoleTerminal) -> bytes:
    source = terminal.open_source()
    assert not kernel.is_read.wait(0.1)
    terminal.enter_raw()
    space = memoryview(bytearray(1000))
    found = b""
    source._channel.sock.settimeout(LIMIT)
    while n := source.receive_into(space):
        found += space[:n]
    source.close()
    return found


def test_no_key_is_read_before_the_console_passes_it_on_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    # A read that has begun keeps the mode that it began with: it would echo the first line, and wait for its end.
    kernel = Kernel("l", "s\r")
    assert read_all(kernel, console_of(kernel, monkeypatch)) == b"ls\r"
    assert set(kernel.reads) == {RAW}


def test_a_character_in_two_halves_does_not_end_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel("a", "\ud83d", "\ude00b", "\ud83d\ude00", "\ud83d", "c")
    assert read_all(kernel, console_of(kernel, monkeypatch)).decode() == "a😀b😀\N{REPLACEMENT CHARACTER}c"


def test_the_last_output_is_shown_before_the_output_has_its_old_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    kernel.may_write.clear()
    terminal = console_of(kernel, monkeypatch)
    sink = terminal.open_sink()
    terminal.enter_raw()
    sink.send((b"\x1b[m",))
    terminal.restore()
    assert kernel.modes == {INPUT: COOKED, OUTPUT: VIRTUAL}
    kernel.may_write.set()
    sink.finish(LIMIT)
    terminal.restore_output()
    sink.close()
    assert kernel.shown == [(VIRTUAL, "\x1b[m".encode("utf-16-le"))]
    assert kernel.modes == {INPUT: COOKED, OUTPUT: PLAIN}


def test_output_has_escape_sequences_though_the_input_is_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    del kernel.modes[INPUT]
    terminal = console_of(kernel, monkeypatch)
    terminal.enter_raw()
    assert kernel.modes == {OUTPUT: VIRTUAL}
    terminal.restore()
    terminal.restore_output()
    assert kernel.modes == {OUTPUT: PLAIN}


def test_a_console_without_escape_sequences_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    kernel.refused = 0x200
    terminal = console_of(kernel, monkeypatch)
    with pytest.raises(UsageError, match="use Windows Terminal"):
        terminal.enter_raw()
    terminal.restore()
    terminal.restore_output()
    assert kernel.modes == {INPUT: COOKED, OUTPUT: PLAIN}
