"""The bridge from Python: `tunnel.serve` as an async context manager, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import tunnel
from tests.bed.invariants import assert_empty, tasks_left
from tests.bed.targets import Target
from tests.server.clients import LIMIT
from tunnel.server.bridge import Bridge

Factory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Run a coroutine in an event loop of either kind."""

    def run(work: Awaitable[None]) -> None:
        async def limited() -> None:
            before = asyncio.all_tasks()
            await asyncio.wait_for(work, LIMIT)
            assert not tasks_left(before)

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(limited())

    return run


Run = Callable[[Awaitable[None]], None]


@asynccontextmanager
async def bridge_to(target: Target, **options: Any) -> AsyncIterator[Bridge]:
    """A bridge to ``target``, of which nothing is left behind."""
    async with tunnel.serve(listen=("127.0.0.1:0",), target=f"127.0.0.1:{target.port}", **options) as bridge:
        yield bridge
    assert_empty(bridge)


async def dial(bridge: Bridge) -> ClientConnection:
    return await connect(bridge.urls[0], compression=None, proxy=None, close_timeout=LIMIT)


async def echoes(connection: ClientConnection) -> bool:
    await connection.send(b"hello")
    return await connection.recv() == b"hello"


def test_a_bridge_serves_while_its_block_lasts(run: Run, echo_target: Target) -> None:
    async def work() -> None:
        async with bridge_to(echo_target) as bridge:
            assert bridge.urls[0].startswith("ws://127.0.0.1:")
            assert bridge.authentication == "none" and not bridge.is_open_to_all
            assert bridge.target == f"127.0.0.1:{echo_target.port}"
            client = await dial(bridge)
            assert await echoes(client)
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
        with pytest.raises(OSError):
            await dial(bridge)

    run(work())


def test_drain_lets_tunnels_end_and_returns_when_the_last_has(run: Run, echo_target: Target) -> None:
    async def work() -> None:
        async with bridge_to(echo_target) as bridge:
            client = await dial(bridge)
            draining = asyncio.create_task(bridge.drain(3600))
            await asyncio.sleep(0.1)
            assert await echoes(client)
            assert not draining.done()
            await client.close()
            await draining

    run(work())


def test_a_drain_that_is_cancelled_is_done_at_once_at_the_end_of_the_block(run: Run, echo_target: Target) -> None:
    async def work() -> None:
        async with bridge_to(echo_target) as bridge:
            client = await dial(bridge)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bridge.drain(3600), 0.1)
            assert await echoes(client)
        with pytest.raises(ConnectionClosed):
            await client.recv()

    run(work())


def test_two_bridges_live_in_one_loop(run: Run, echo_target: Target) -> None:
    async def work() -> None:
        async with bridge_to(echo_target) as one, bridge_to(echo_target, max_tunnels=1) as two:
            first, second = await dial(one), await dial(two)
            assert await echoes(first) and await echoes(second)
            await first.close()
            await second.close()

    run(work())


def test_connections_that_stall_in_the_handshake_are_cut_at_the_end(run: Run, echo_target: Target) -> None:
    async def work() -> None:
        async with bridge_to(echo_target) as bridge:
            host, _, port = bridge.urls[0].removeprefix("ws://").partition(":")
            stalled = [await asyncio.open_connection(host, int(port)) for _ in range(100)]
            await asyncio.sleep(0.1)
        for reader, writer in stalled:
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass  # was still waiting to be accepted
            writer.close()

    run(work())


def test_settings_that_cannot_be_used_raise_before_anything_is_opened() -> None:
    with pytest.raises(tunnel.UsageError, match="--max-tunnels: 0 is not between 1 and"):
        tunnel.serve(max_tunnels=0)
    with pytest.raises(TypeError, match="no_such_option"):
        tunnel.serve(no_such_option=1)  # type: ignore[call-arg]


def test_an_address_in_use_raises_a_dial_error(run: Run, echo_target: Target) -> None:
    async def work() -> None:
        async with bridge_to(echo_target) as bridge:
            address = bridge.urls[0].removeprefix("ws://")
            with pytest.raises(tunnel.DialError, match=f"cannot listen on {address}: Address already in use"):
                async with tunnel.serve(listen=(address,)):
                    pass

    run(work())
