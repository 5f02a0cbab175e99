"""What keeps a service going that is to run for months: nothing that lives long in it ends without a word.

A task that should never end is restarted, or in the end given up; an error that nobody waits for, in whatever callback,
thread or destructor, becomes one line of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from tunnel.net.backoff import backoff
from tunnel.server.log import event, unexpected

PAUSE = 0.1  # seconds before the first restart; each further one waits twice as long …
LONGEST_PAUSE = 5.0  # … up to this
MOST_FAILURES = 10  # within …
PERIOD = 60.0  # … this many seconds are too many, and after as many without one, pauses are short again
_NO_DESCRIPTORS = "socket.accept() out of system resource"  # how asyncio's own servers put it


def supervise(name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Return a task that keeps ``run`` running until the task is cancelled.

    When ``run`` raises or returns, that is logged, and it is started again after a pause. A task that ends without
    having been cancelled has given up, after `MOST_FAILURES` within `PERIOD`: that is logged too, and it is for whoever
    holds the task to notice, and to end what is of no use without it.
    """
    return asyncio.create_task(_keep_running(name, run), name=name)


async def _keep_running(name: str, run: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    failures: deque[float] = deque(maxlen=MOST_FAILURES)
    restarts = 0  # since the last quiet period
    while True:
        try:
            await run()
            error: BaseException = RuntimeError("it ended, which it should not")
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = exc  # of something that it has waited for
        except Exception as exc:
            error = exc
        now = loop.time()
        if failures and now - failures[-1] > PERIOD:
            restarts = 0
        failures.append(now)
        unexpected(error, during=name)
        if len(failures) == MOST_FAILURES and now - failures[0] <= PERIOD:
            event(logging.CRITICAL, "failed", what=name, failures=MOST_FAILURES, seconds=now - failures[0])
            return
        await asyncio.sleep(backoff(restarts, first=PAUSE, longest=LONGEST_PAUSE))
        restarts += 1


@contextlib.contextmanager
def strays_logged(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Log what nobody catches, instead of printing it past the log: in callbacks, tasks, threads and destructors."""
    old = loop.get_exception_handler(), threading.excepthook, sys.unraisablehook
    loop.set_exception_handler(_log_stray)
    threading.excepthook = _log_stray_of_thread
    sys.unraisablehook = _log_unraisable
    try:
        yield
    finally:
        if not loop.is_closed():
            loop.set_exception_handler(old[0])
        threading.excepthook, sys.unraisablehook = old[1:]


def _log_stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error, message = context.get("exception"), str(context.get("message", ""))
    if isinstance(error, OSError) and message == _NO_DESCRIPTORS:
        event(logging.ERROR, "cannot-accept", reason=error.strerror or str(error))
    elif isinstance(error, BaseException):
        unexpected(error, during=message)
    else:
        event(logging.ERROR, "internal-error", error=message)


def _log_stray_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        unexpected(args.exc_value, during=f"thread {args.thread.name if args.thread else ''}")


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if unraisable.exc_value is not None:
        unexpected(unraisable.exc_value, during=unraisable.err_msg or "a destructor")
