"""An asyncio loop that can watch sockets, which the default one of Windows cannot, and its signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping

from tunnel.errors import UsageError

# By name, as Windows has no SIGHUP, and only Windows has SIGBREAK: Ctrl-Break, or the console's window is closed.
STOP = ("SIGTERM", "SIGINT", "SIGBREAK")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return a factory for a loop that has ``add_reader``; None if the default loop has it."""
    return asyncio.SelectorEventLoop if sys.platform == "win32" else None


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Raise UsageError if ``loop`` cannot watch sockets, like the default one of Windows."""
    if sys.platform == "win32" and not isinstance(loop, asyncio.SelectorEventLoop):
        raise UsageError("a bridge on Windows needs asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)")


def posix_only(what: str, setting: str) -> None:
    """Raise UsageError on Windows; ``what`` says what needs a POSIX system."""
    if sys.platform == "win32":
        raise UsageError(f"{what}, which Windows is not", setting=setting)


def leave_signals_to_main_thread() -> None:
    """Block all signals in this thread, at its start: those of the process are for the loop in the main thread.

    While that blocks them for a restart in place, they must wait: another thread would take them, and they were lost.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@contextlib.contextmanager
def signals_handled(actions: Mapping[str, Callable[[], object]]) -> Iterator[None]:
    """Make the running loop call ``actions`` (name of a signal → function) when their signals arrive.

    Signals that this platform lacks are left out. Signals that were ignored at the start, by nohup for example, stay
    ignored.
    """
    loop = asyncio.get_running_loop()
    known = {int(getattr(signal, name)): action for name, action in actions.items() if hasattr(signal, name)}
    wanted = {number: action for number, action in known.items() if signal.getsignal(number) != signal.SIG_IGN}
    with contextlib.ExitStack() as undo:
        if sys.platform != "win32":
            for number, action in wanted.items():
                loop.add_signal_handler(number, action)
                undo.callback(loop.remove_signal_handler, number)
        else:
            _handle_by_socket(loop, wanted, undo)
        yield


def _handle_by_socket(
    loop: asyncio.AbstractEventLoop, actions: Mapping[int, Callable[[], object]], undo: contextlib.ExitStack
) -> None:
    """Do so for a loop without add_signal_handler, whose wait only a socket can end."""
    reader, writer = (undo.enter_context(sock) for sock in socket.socketpair())
    reader.setblocking(False)
    writer.setblocking(False)

    def heard() -> None:
        for number in reader.recv(64):
            if number in actions:
                actions[number]()

    undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False))
    for number in actions:
        undo.callback(signal.signal, number, signal.signal(number, lambda *_: None))
    loop.add_reader(reader, heard)
    undo.callback(loop.remove_reader, reader)
