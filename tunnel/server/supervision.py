"""Supervision for a service that runs for months: nothing in it fails silently.

A task that should never end is restarted, and given up after too many failures. Errors that nobody handles, in
callbacks, threads or destructors, are logged.
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

PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before a restart: the pause doubles each time
MOST_FAILURES = 10  # within `PERIOD`, after which a task is given up
PERIOD = 60.0  # seconds; after such a time without a failure, pauses are short again
_NO_DESCRIPTORS = "socket.accept() out of system resource"  # the message of asyncio's own servers


def supervise(name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Return a task that keeps ``run`` running until the task is cancelled.

    When ``run`` raises or returns, that is logged, and it is started again after a pause. After `MOST_FAILURES` within
    `PERIOD` the task gives up, logs that, and ends; the caller must notice, and stop what cannot work without it.
    """
    return asyncio.create_task(_keep_running(name, run), name=name)


async def _keep_running(name: str, run: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    failures: deque[float] = deque(maxlen=MOST_FAILURES)
    restarts = 0  # since the last quiet period
    while True:
        try:
            await run()
            error: BaseException = RuntimeError("it ended unexpectedly")
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = exc  # something that it waited for was cancelled
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
def unhandled_errors_logged(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Log errors that nobody handles, in callbacks, tasks, threads and destructors, instead of printing them."""
    old = loop.get_exception_handler(), threading.excepthook, sys.unraisablehook
    loop.set_exception_handler(_log_loop_error)
    threading.excepthook = _log_thread_error
    sys.unraisablehook = _log_unraisable
    try:
        yield
    finally:
        if not loop.is_closed():
            loop.set_exception_handler(old[0])
        threading.excepthook, sys.unraisablehook = old[1:]


def _log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error, message = context.get("exception"), str(context.get("message", ""))
    if isinstance(error, OSError) and message == _NO_DESCRIPTORS:
        event(logging.ERROR, "cannot-accept", reason=error.strerror or str(error))
    elif isinstance(error, BaseException):
        unexpected(error, during=message)
    else:
        event(logging.ERROR, "internal-error", error=message)


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        unexpected(args.exc_value, during=f"thread {args.thread.name if args.thread else ''}")


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if unraisable.exc_value is not None:
        unexpected(unraisable.exc_value, during=unraisable.err_msg or "a destructor")
