"""A time limit that costs nothing unless something waits: `tunnel.net.time_limit`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tunnel.net.time_limit import within


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_work_that_does_not_wait_arms_no_timer() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()

        def no_timer(*_: object) -> None:
            raise AssertionError("a timer was armed")

        loop.call_at = no_timer  # type: ignore[method-assign, assignment]

        async def work() -> str:
            return "done"

        return await within(1, work())

    assert run(main()) == "done"


@pytest.mark.parametrize("seconds", [60, None])
def test_work_that_waits_several_times_has_its_result(seconds: float | None) -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return await asyncio.to_thread(lambda: "done")

    assert run(within(seconds, work())) == "done"


@pytest.mark.parametrize("waits", [False, True])
def test_an_error_of_the_work_is_passed_on(waits: bool) -> None:
    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(within(60, work()))


def test_an_error_of_what_it_waits_for_reaches_the_work() -> None:
    async def work() -> str:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, LookupError("its"))
        try:
            await future
        except LookupError:
            await asyncio.sleep(0)
            return "handled"
        return "not raised"

    assert run(within(60, work())) == "handled"


def test_work_that_takes_too_long_is_cancelled() -> None:
    seen: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(TimeoutError):
        run(within(0.01, work()))
    assert seen == ["cancelled"]


def test_a_cancellation_from_outside_stays_one() -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")

    async def main() -> None:
        task = asyncio.create_task(within(60, work()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert seen == ["ended"]


def test_the_work_runs_in_the_callers_task() -> None:
    async def main() -> None:
        mine = asyncio.current_task()

        async def work() -> None:
            assert asyncio.current_task() is mine
            await asyncio.sleep(0)
            assert asyncio.current_task() is mine

        await within(60, work())

    run(main())
