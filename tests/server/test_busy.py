"""Busy sockets of the bridge are read after those on which little comes, and never forgotten."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from tunnel.net import batches
from tunnel.net.batches import IN_A_ROW
from tunnel.net.channel import Channel
from tunnel.net.pump import LARGE_READ
from tunnel.server import busy
from tunnel.server.busy import FEW, SLICE, BusyQueue, BusyReads


@pytest.fixture
def channel() -> Iterator[Channel]:
    near, far = socket.socketpair()
    with near, far:
        yield Channel(near)


class Reader:
    """Reads that give the same size each time; ``seconds`` is how long each takes."""

    def __init__(self, channel: Channel, queue: BusyQueue, log: list[str] | None = None, name: str = "") -> None:
        self.size: int | None = LARGE_READ
        self.seconds = 0.0
        self.count = 0
        self._log = [] if log is None else log
        self._name = name
        self.changes: list[bool] = []
        self.reads = BusyReads(channel, self._read, queue, lambda: self.changes.append(self.reads.is_busy))

    def _read(self) -> int | None:
        self.count += 1
        self._log.append(self._name)
        time.sleep(self.seconds)
        return self.size

    def make_busy(self) -> None:
        for _ in range(IN_A_ROW):
            self.reads.readable()


@pytest.fixture
def nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read only what is reported, however long a test takes."""
    for module in (batches, busy):
        monkeypatch.setattr(module, "PAUSE", 60.0)


@asynccontextmanager
async def crowd(channel: Channel, queue: BusyQueue, log: list[str]) -> AsyncIterator[list[Reader]]:
    """More busy sockets than may read at once."""
    readers = [Reader(channel, queue, log, f"reader {number}") for number in range(FEW + 3)]
    for reader in readers:
        reader.make_busy()
    # The others became busy while there were few.
    assert queue.sockets == len(readers)
    await settled(readers)
    log.clear()
    yield readers
    for reader in readers:
        reader.reads.stop()
    assert queue.sockets == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is awaited are callbacks of the loop
            await asyncio.sleep(0)


async def settled(readers: list[Reader]) -> None:
    """Let all reads be done that are due."""
    for _ in range(10 * len(readers)):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("nothing_is_late")
def test_few_busy_sockets_are_read_at_once(channel: Channel) -> None:
    async def check() -> None:
        queue = BusyQueue()
        readers = [Reader(channel, queue) for _ in range(FEW)]
        for reader in readers:
            reader.make_busy()
            assert reader.count == IN_A_ROW
        assert queue.sockets == FEW
        for reader in readers:
            reader.reads.readable()
            assert reader.count == IN_A_ROW + 1
            reader.reads.stop()
        assert queue.sockets == 0

    asyncio.run(check())


@pytest.mark.usefixtures("nothing_is_late")
def test_many_busy_sockets_are_read_in_turn(channel: Channel) -> None:
    async def check() -> None:
        queue, log = BusyQueue(), list[str]()
        async with crowd(channel, queue, log) as readers:
            for _ in range(2):  # who is reported again while it waits is read once
                for reader in readers:
                    reader.reads.readable()
            assert log == []
            await settled(readers)
            assert log == [f"reader {number}" for number in range(len(readers))]

    asyncio.run(check())


@pytest.mark.usefixtures("nothing_is_late")
def test_a_keystroke_does_not_wait_for_all_of_them(channel: Channel) -> None:
    async def check() -> None:
        queue, log = BusyQueue(), list[str]()
        async with crowd(channel, queue, log) as readers:
            for reader in readers:
                reader.seconds = 2 * len(readers) * SLICE
                reader.reads.readable()
            near, far = socket.socketpair()
            with near, far:

                def arrive() -> None:
                    log.extend(near.recv(1).decode())

                asyncio.get_running_loop().add_reader(near, arrive)
                far.send(b"x")
                await until(lambda: len(log) > len(readers))
                asyncio.get_running_loop().remove_reader(near)
            assert log.index("x") <= 2

    asyncio.run(check())


def test_a_busy_socket_is_read_soon_even_if_it_is_not_reported(channel: Channel) -> None:
    async def check() -> None:
        queue = BusyQueue()
        reader = Reader(channel, queue)
        reader.make_busy()
        await until(lambda: reader.count >= IN_A_ROW + 3)
        reader.size = 0  # nothing more comes
        await until(lambda: not queue.sockets)
        count = reader.count
        await asyncio.sleep(0.02)
        assert reader.count == count

    asyncio.run(check())


def test_a_socket_that_may_not_be_read_stays_busy_and_is_left_alone(channel: Channel) -> None:
    async def check() -> None:
        queue = BusyQueue()
        reader = Reader(channel, queue)
        reader.make_busy()
        reader.size = None
        await until(lambda: reader.count > IN_A_ROW)
        count = reader.count
        await asyncio.sleep(0.02)
        assert (reader.count, queue.sockets) == (count, 1)
        reader.size = LARGE_READ
        reader.reads.resume()
        await until(lambda: reader.count >= count + 3)
        reader.reads.stop()
        reader.reads.resume()
        assert reader.changes == [True, False]

    asyncio.run(check())


@pytest.mark.usefixtures("nothing_is_late")
def test_a_socket_that_stops_while_it_waits_is_not_read(channel: Channel) -> None:
    async def check() -> None:
        queue, log = BusyQueue(), list[str]()
        async with crowd(channel, queue, log) as readers:
            for reader in readers:
                reader.reads.readable()
            readers[1].reads.stop()
            readers[1].reads.stop()
            assert queue.sockets == len(readers) - 1
            await settled(readers)
            assert log == [f"reader {number}" for number in range(len(readers)) if number != 1]

    asyncio.run(check())


def test_a_read_may_end_its_own_tunnel(channel: Channel) -> None:
    async def check() -> None:
        queue = BusyQueue()
        reader = Reader(channel, queue)

        def read() -> int:
            reader.reads.stop()
            return LARGE_READ

        reader.make_busy()
        reader._read = read  # type: ignore[method-assign]
        reader.reads._read = read
        reader.reads.readable()
        assert queue.sockets == 0
        await asyncio.sleep(0.01)

    asyncio.run(check())
