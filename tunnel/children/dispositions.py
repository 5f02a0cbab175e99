"""Default signal dispositions for children, none blocked, whatever this process was started with.

Children inherit ignored and blocked signals, and a shell cannot change that (POSIX, trap): in a terminal of a service
that a script started in the background, Ctrl-C would do nothing. This process must keep ignoring these signals. But
exec resets a signal that has a handler to its default, so while a child is started, this process handles these signals
by doing nothing. That needs no code between fork and exec.

Two cases need such code, which only makes a few system calls: blocked signals, because unblocking them here would
deliver pending ones; and a start in a thread other than the main one, which alone may install handlers.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

_ALL = tuple(int(number) for number in signal.valid_signals())
# Python itself ignores these, and `subprocess` restores them.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)


@contextlib.contextmanager
def default_signals() -> Iterator[Callable[[], None] | None]:
    """Give processes started in the block default signals; yields a function to call before exec, or None."""
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
    """Reset the signals of this process, which was forked, to their defaults, except those that Python ignores."""
    _reset(_ignored())()


def restore_ignored() -> None:
    """Undo what Python ignores, in a process that is about to become another program."""
    for number in _RESTORED:
        signal.signal(number, signal.SIG_DFL)


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
