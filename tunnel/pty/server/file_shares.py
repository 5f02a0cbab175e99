"""Limits for requests for files: the number of processes, and the disk space for uploads that are still incomplete.

Both are shares: nobody is refused while there is room. At the limit, a request of the source that holds the most is
evicted, slow ones first. Its `Lease` ends an evicted request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tunnel.pty.server.file_process import Refused
from tunnel.server.shares import Place, Shares, Source

AT_ONCE = 16  # processes; further requests wait
WAIT_LIMIT = 60.0  # seconds that a request waits for its turn
SPOOL_LIMIT = 2 << 30  # bytes of uploads that are not stored yet
SPOOL_STEP = 4 << 20  # bytes that an upload reserves at a time
_PATIENCE = 0.2  # seconds to wait for a process to end by itself before a request is evicted
_WINDOW = 2.0  # seconds
_LEAST = 16 << 10  # bytes per second; slower requests are evicted first
_MOVING = 1  # the standing of a request that is not slow


class Lease:
    """Permission to use a share: an asynchronous context manager whose block is cancelled when others need the share.

    It raises Refused then, and also when the block takes longer than ``seconds`` (None: no limit).
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)
        self._gave_way = False
        self._loop = asyncio.get_running_loop()
        self._began = self._window_began = self._loop.time()
        self._moved, self._moved_before = 0, 0
        self.has_all = False  # the client has sent everything, so its speed no longer matters
        self._is_committed = False

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            if self._gave_way:
                raise Refused(503, "this request was too slow while others waited: try again later") from None
            raise Refused(408, f"the request took longer than {self._seconds:g} s") from None

    def give_way(self) -> None:
        """End the block, unless it is in `committed`."""
        if not self._is_committed:
            self._gave_way = True
            self._reschedule(self._loop.time())

    @contextmanager
    def committed(self) -> Iterator[None]:
        """Protect the block from being ended, even by its time limit: it would leave something half done."""
        ends = self._timeout.when()
        self._reschedule(None)
        self._is_committed = True
        try:
            yield
        finally:
            self._is_committed = False
            self._reschedule(ends)

    def _reschedule(self, ends: float | None) -> None:
        if not self._timeout.expired():
            self._timeout.reschedule(ends)

    def moved(self, size: int) -> None:
        """Note that ``size`` bytes were received or sent."""
        self._roll()
        self._moved += size

    def standing(self) -> int:
        """Return the request's standing: whether it makes progress."""
        now = self._roll()
        if self.has_all or now - self._began < _WINDOW:
            return _MOVING
        seconds = now - self._window_began + _WINDOW
        return _MOVING if self._moved + self._moved_before >= _LEAST * seconds else 0

    def _roll(self) -> float:
        now = self._loop.time()
        if now - self._window_began >= _WINDOW:
            is_next = now - self._window_began < 2 * _WINDOW
            self._moved, self._moved_before = 0, self._moved if is_next else 0
            self._window_began = now
        return now


@dataclass(eq=False, slots=True)
class _Waiting:
    source: Source
    lease: Lease
    entered: asyncio.Future[Place]


class Slots:
    """Up to ``AT_ONCE`` processes. With ``displace`` slow ones are evicted for requests that wait."""

    def __init__(self, *, displace: bool) -> None:
        self._displace = displace
        self._shares = Shares(AT_ONCE, protected=_MOVING)
        self._queue: dict[_Waiting, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def take(self, source: Source, lease: Lease) -> AsyncIterator[None]:
        """Hold a slot for a request with ``lease``; raises Refused if none becomes free in time."""
        place = await self._enter(source, lease)
        try:
            yield
        finally:
            place.leave()
            self._serve()

    async def _enter(self, source: Source, lease: Lease) -> Place:
        waiting = _Waiting(source, lease, asyncio.get_running_loop().create_future())
        self._queue[waiting] = None
        self._serve()
        try:
            async with asyncio.timeout(WAIT_LIMIT):
                return await waiting.entered
        except (TimeoutError, asyncio.CancelledError) as exc:
            self._queue.pop(waiting, None)
            if not waiting.entered.cancelled():  # it got a slot at the same moment
                waiting.entered.result().leave()
                self._serve()
            if isinstance(exc, TimeoutError):
                raise Refused(503, f"too many requests for files: none could be started for {WAIT_LIMIT:g} s") from None
            raise

    def _serve(self, *, impatient: bool = False) -> None:
        """Start requests up to the limit: the first of each source, sources that hold least first."""
        while self._queue and (self._shares.taken < self._shares.limit or impatient):
            heads: dict[Source, _Waiting] = {}
            for waiting in self._queue:
                heads.setdefault(waiting.source, waiting)
            if not any(self._let_in(each) for each in sorted(heads.values(), key=self._held)):
                break
        if self._queue and self._displace and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._lose_patience)

    def _lose_patience(self) -> None:
        self._timer = None
        self._serve(impatient=True)

    def _held(self, waiting: _Waiting) -> int:
        return self._shares.held_by(waiting.source)

    def _let_in(self, waiting: _Waiting) -> bool:
        lease = waiting.lease
        if not waiting.entered.cancelled():
            place = self._shares.enter(waiting.source, lease.give_way, standing=lease.standing)
            if place is None:
                return False
            waiting.entered.set_result(place)
        del self._queue[waiting]
        return True


class Spool:
    """Disk space for uploads until they are complete."""

    def __init__(self) -> None:
        self._shares = Shares(SPOOL_LIMIT, protected=_MOVING)

    @contextmanager
    def enter(self, source: Source, lease: Lease) -> Iterator[Callable[[int], None]]:
        """Hold space for an upload with ``lease``; yield a function that reserves space for the given number of bytes.

        Both raise Refused if there is no space.
        """
        place = self._shares.enter(source, lease.give_way, standing=lease.standing, weight=SPOOL_STEP)
        if place is None:
            raise _no_room()
        used = 0

        def reserve(size: int) -> None:
            nonlocal used
            used += size
            lease.moved(size)
            while used > place.weight:
                if not self._shares.make_room(source, SPOOL_STEP, spared=place):
                    raise _no_room()
                place.change(place.weight + SPOOL_STEP)

        try:
            yield reserve
        finally:
            place.leave()


def _no_room() -> Refused:
    return Refused(503, f"too many uploads at once: they may take {SPOOL_LIMIT >> 20} MiB together; try again later")
