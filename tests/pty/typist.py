"""A program on its own terminal, with methods to type on it and to read its output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Sequence
from typing import Self

from tests.pty.beds import LIMIT, Output


class Typist:
    """Runs a command with a pty as its controlling terminal; ``output`` is what it has printed."""

    def __init__(self, *argv: str, rows: int = 24, cols: int = 80) -> None:
        self._argv: Sequence[str] = argv
        self.output = Output()
        self._closing = False
        self._master, self._slave = pty.openpty()
        self.resize(rows, cols)
        self.modes_before = self.modes

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._argv,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # subprocess has no option for this
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self.hang_up()

    def _read(self) -> None:
        # A blocking read would keep the terminal open when we close it.
        while not self._closing:
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return  # no process has the other end open
            if not data:
                return
            self.output(data)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def modes(self) -> list[object]:
        """The terminal's modes, for comparison."""
        return termios.tcgetattr(self._slave)

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self._slave)[3] & (termios.ICANON | termios.ECHO)

    def type(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(self._master, data) :]

    def see(self, text: str) -> None:
        """Wait until the program has printed ``text``."""
        self.output.wait_for(text.encode())

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the program to end; return its exit code, negative for a signal."""
        try:
            return self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running; it showed {self.output.data!r}") from None

    def hang_up(self) -> None:
        """Close the terminal, as closing a window does."""
        self._closing = True
        self._thread.join(10)
        for fd in (self._slave, self._master):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._slave = self._master = -1
