"""Signals that a selector can wait for: a signal handler alone would not end the wait."""

from __future__ import annotations

import signal
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class SignalPipe:
    """A context in which SIGINT, SIGTERM, SIGHUP and Windows' SIGBREAK, as far as they exist, become bytes in a pipe.

    SIGBREAK comes from Ctrl-Break, or when the console's window is closed. Ignored signals stay ignored.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> SignalPipe:
        # A socket pair, because Windows' wake-up descriptor must be a socket.
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        others = [getattr(signal, name) for name in ("SIGHUP", "SIGBREAK") if hasattr(signal, name)]
        for number in not_ignored(signal.SIGINT, signal.SIGTERM, *others):
            self._previous[number] = signal.signal(number, lambda *_: None)
        return self

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reader.fileno()

    def caught(self) -> int:
        """Return the exit code for the first signal; call this when the descriptor is readable."""
        return exit_code_for_signal(self._reader.recv(1)[0])

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()


def not_ignored(*numbers: signal.Signals) -> list[signal.Signals]:
    """Return those of the signals that are not ignored.

    A signal that was ignored at the start (by nohup, or by a shell without job control for ``command &``) must not end
    the program.
    """
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


def exit_code_for_signal(number: int) -> int:
    """Return the exit code after a signal; 0 after SIGHUP, with which ssh ends its ProxyCommand."""
    return 0 if number == getattr(signal, "SIGHUP", None) else 128 + number
