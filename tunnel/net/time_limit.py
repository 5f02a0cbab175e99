"""A time limit that sets no timer unless something waits.

`asyncio.timeout` always sets a timer and cancels it. One keystroke passes five limits, and usually waits at none.
"""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``, in this task; the time counts from its first wait. None means no limit.

    If it takes longer, cancels ``work`` and raises TimeoutError, like `asyncio.timeout`.
    """
    try:
        waited_for = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _rest(work, waited_for)


@types.coroutine
def _rest(work: Coroutine[Any, Any, T], waited_for: Any) -> Generator[Any, Any, T]:
    """Continue ``work``, which has been stepped once and waits for ``waited_for``."""
    while True:
        step: Callable[[], Any]
        try:
            value = yield waited_for
        except BaseException as exc:  # also a cancellation
            step = functools.partial(work.throw, exc)
        else:
            step = functools.partial(work.send, value)
        try:
            waited_for = step()
        except StopIteration as done:
            result: T = done.value
            return result
