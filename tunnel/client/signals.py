"""Signals as something that a selector can wait for; a handler alone would not end the wait."""

from __future__ import annotations

import signal
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class SignalPipe:
    """While it is entered, SIGINT, SIGTERM and SIGHUP (where there is one) become bytes in a pipe.

    Those that are ignored stay so.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> SignalPipe:
        # A socket pair, because Windows' wake-up descriptor must be a socket.
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        hangup = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
        for number in not_ignored(signal.SIGINT, signal.SIGTERM, *hangup):
            self._previous[number] = signal.signal(number, lambda *_: None)
        return self

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reader.fileno()

    def caught(self) -> int:
        """Return the exit code for the signal that came first; call it when the descriptor is readable."""
        return exit_code_for_signal(self._reader.recv(1)[0])

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()


def not_ignored(*numbers: signal.Signals) -> list[signal.Signals]:
    """Return those of the signals that may be caught.

    Whoever starts a program with a signal ignored (nohup, or a shell without job control for ``command &``) means it to
    live on when that signal comes.
    """
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


def exit_code_for_signal(number: int) -> int:
    """Return the exit code after a signal: SIGHUP is how ssh ends its ProxyCommand, so that is success."""
    return 0 if number == getattr(signal, "SIGHUP", None) else 128 + number
