"""The console of Windows: its modes, and its keys and output as on other terminals: UTF-8 and escape sequences.

Windows 10 (1607) and later translate both ways. Reading and writing use UTF-16, as older consoles cannot read UTF-8
beyond ASCII.
"""

from __future__ import annotations

import codecs
import ctypes
import threading
from typing import Any

from tunnel.client.threaded_stdio import ThreadedInput, ThreadedOutput
from tunnel.errors import UsageError

INPUT, OUTPUT = -10, -11  # the standard handles
# SetConsoleMode's bits (consoleapi.h)
_PROCESSED_INPUT, _LINE_INPUT, _ECHO_INPUT, _VIRTUAL_TERMINAL_INPUT = 1, 2, 4, 0x200
_PROCESSED_OUTPUT, _VIRTUAL_TERMINAL_PROCESSING, _NO_AUTO_RETURN = 1, 4, 8
_UNITS = 8 * 1024  # of UTF-16, in one call


class ConsoleTerminal:
    """See `tunnel.pty.shell.local.LocalTerminal`."""

    def __init__(self) -> None:
        self._console = Console()
        self.present = self._console.is_there(INPUT)
        self.shown = self._console.is_there(OUTPUT)

    def open_source(self) -> ThreadedInput:
        return ThreadedInput(read=self._console.read) if self.present else ThreadedInput()

    def open_sink(self) -> ThreadedOutput:
        return ThreadedOutput(write=self._console.write) if self.shown else ThreadedOutput()

    def enter_raw(self) -> None:
        self._console.enter_raw()

    def restore(self) -> None:
        self._console.restore(INPUT)

    def restore_output(self) -> None:
        self._console.restore(OUTPUT)


class Console:
    """The console behind standard input and output; `is_there` says which of them is one."""

    def __init__(self) -> None:
        for_windows: Any = ctypes  # type checkers on other systems do not know its Windows parts
        self._kernel = for_windows.WinDLL("kernel32", use_last_error=True)
        self._kernel.GetStdHandle.restype = ctypes.c_void_p
        self._handles = {which: ctypes.c_void_p(self._kernel.GetStdHandle(which)) for which in (INPUT, OUTPUT)}
        self._found: dict[int, int] = {}  # the modes before `enter_raw`
        self._is_raw = threading.Event()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._half = ""  # the first half of a surrogate pair; the next read has the second

    def is_there(self, which: int) -> bool:
        """Return whether the standard handle is a console; isatty would take the null device for one."""
        return self._mode(which) is not None

    def enter_raw(self) -> None:
        """Make keys and output pass unchanged. Call `restore` afterwards. Raises UsageError if keys cannot."""
        for which, off, on in (
            (INPUT, _PROCESSED_INPUT | _LINE_INPUT | _ECHO_INPUT, _VIRTUAL_TERMINAL_INPUT),
            (OUTPUT, 0, _PROCESSED_OUTPUT | _VIRTUAL_TERMINAL_PROCESSING | _NO_AUTO_RETURN),
        ):
            mode = self._mode(which)
            if mode is not None and which not in self._found:
                self._found[which] = mode
                if not self._kernel.SetConsoleMode(self._handles[which], mode & ~off | on) and which == INPUT:
                    raise UsageError(
                        "this console has no escape sequences: turn off its legacy mode, or use Windows Terminal"
                    )
        self._is_raw.set()

    def restore(self, which: int) -> None:
        """Restore a mode; does nothing if it was not changed. For the output, call this when all of it is written."""
        mode = self._found.pop(which, None)
        if mode is not None:
            self._kernel.SetConsoleMode(self._handles[which], mode)

    def read(self, _fd: int, size: int) -> bytes:
        """Wait for keys, and return them as UTF-8; as `os.read`. This waits for `enter_raw` first."""
        # A read keeps the mode in which it begins: the first line would be echoed, and arrive only when it is complete.
        self._is_raw.wait()
        while True:
            text = self._read(min(size // 3, _UNITS))
            if text or not self._half:  # half a character alone is not the end
                return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()

    def _read(self, units: int) -> str:
        """Return the next keys, with the half of a surrogate pair that was read before."""
        buffer = ctypes.create_unicode_buffer(units)
        count = ctypes.c_ulong()
        if not self._kernel.ReadConsoleW(self._handles[INPUT], buffer, units, ctypes.byref(count), None):
            raise OSError(0, "the console cannot be read")
        text = self._half + ctypes.wstring_at(buffer, count.value)
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return text.removesuffix(self._half)

    def write(self, _fd: int, data: memoryview) -> int:
        """Write UTF-8; as `os.write`. Half a character waits for its other half."""
        text = self._decoder.decode(data)
        count = ctypes.c_ulong()
        units = text.encode("utf-16-le", "surrogatepass")
        while units:
            piece = units[: 2 * _UNITS]
            if not self._kernel.WriteConsoleW(
                self._handles[OUTPUT], ctypes.c_char_p(piece), len(piece) // 2, ctypes.byref(count), None
            ):
                raise OSError(0, "the console cannot be written")
            units = units[2 * max(count.value, 1) :]
        return len(data)

    def _mode(self, which: int) -> int | None:
        mode = ctypes.c_ulong()
        return mode.value if self._kernel.GetConsoleMode(self._handles[which], ctypes.byref(mode)) else None
