"""Signals of a child: all that can be done by default, none blocked, whatever this process was started with.

What a process ignores or blocks, its children ignore or block, too, and a shell cannot take that back (POSIX, trap): in
a terminal of a service that some script has started in the background, Ctrl-C would do nothing. This process goes on
to ignore what it was told to ignore. But a signal with a handler is back at its default after exec, so meanwhile it
handles those signals, by doing nothing. That costs no code between fork and exec.

Two cases need such code, which then makes some system calls and no more: signals that are blocked, as what is pending
here must not come out, and a start in another thread than the main one, which alone may change what signals do.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

_ALL = tuple(int(number) for number in signal.valid_signals())
# Python ignores these by itself, and `subprocess` restores them.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)


@contextlib.contextmanager
def default_signals() -> Iterator[Callable[[], None] | None]:
    """Let what the ``with`` block starts have default signals; yields what is to be called before exec, or None."""
    ignored = _ignored()
    is_main = threading.current_thread() is threading.main_thread()
    handled: list[int] = []
    try:
        if is_main:
            for number in ignored:
                signal.signal(number, _do_nothing)
                handled.append(number)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        yield _reset(() if is_main else ignored) if blocked or (ignored and not is_main) else None
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_IGN)


def reset_signals() -> None:
    """Give this process, the fork of another one, default signals, but for those that Python ignores by itself."""
    _reset(_ignored())()


def _ignored() -> list[int]:
    return [number for number in _ALL if number not in _RESTORED and signal.getsignal(number) == signal.SIG_IGN]


def _reset(numbers: Sequence[int]) -> Callable[[], None]:
    def reset() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return reset


def _do_nothing(*_: object) -> None:
    pass
