"""Name lookups in threads that nothing waits for.

``getaddrinfo`` cannot be interrupted, and may take half a minute while no name server answers. With the threads of an
executor, the end of the event loop, and so of the bridge, would wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any

from tunnel.net.event_loop import leave_signals_to_main_thread

MOST = 8  # lookups at a time; others wait until one of them has ended
_slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


async def look_up(host: str, port: int) -> list[tuple[Any, ...]]:
    """Return what ``getaddrinfo`` returns for TCP, or raise what it raises; RuntimeError if no thread can be started.

    There is no time limit: the caller sets one. A thread continues to the end of its lookup in any case.
    """
    loop = asyncio.get_running_loop()
    slots = _slots.setdefault(loop, asyncio.Semaphore(MOST))
    answer: asyncio.Future[list[tuple[Any, ...]]] = loop.create_future()

    def ended(tell: Callable[[Any], None], outcome: object) -> None:
        slots.release()
        if not answer.done():  # otherwise nobody waits for it any more
            tell(outcome)

    def ask() -> None:
        leave_signals_to_main_thread()
        tell: Callable[[Any], None] = answer.set_result
        outcome: object
        try:
            outcome = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as exc:
            tell, outcome = answer.set_exception, exc
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(ended, tell, outcome)

    await slots.acquire()
    try:
        threading.Thread(target=ask, name="lookup", daemon=True).start()
    except BaseException:
        slots.release()
        raise
    return await answer
