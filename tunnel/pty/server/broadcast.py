"""From one process to its subscribers: each reads the scrollback at its own pace, and one that is stuck delays nobody.

A subscriber is an offset into the scrollback, so it costs no memory of its own. One that lags holds the process up for
a while, which is what makes the output of a fast program arrive whole; but while another subscriber waits for more, it
may do so only as long as it keeps taking something. Who lags further than what is kept is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunnel.pty.protocol.framing import ConnectError
from tunnel.pty.protocol.messages import REPLAY_FROM, Ended, Output, OutputKind
from tunnel.pty.server.scrollback import Scrollback

PIECE = 64 << 10  # bytes of one event
LAG = 256 << 10  # bytes that a subscriber may lag before it holds the process up: on a slow line Ctrl-C waits for them
LAG_LIMIT = 4 << 20  # bytes that are kept for one that lags, if the scrollback is smaller
CREDIT = 0.05  # seconds that a subscriber may hold the others up, renewed by every CREDIT_BYTES that it takes
CREDIT_BYTES = 512 << 10
PATIENCE = 10.0  # seconds that it may hold the process up while it takes nothing and nobody else waits
_TICK = 0.01  # seconds


class Broadcast:
    """The scrollback of one process, of at least ``keep`` bytes, and its subscribers.

    ``brake`` is called with True when the process should not be read for now, and with False when it should again;
    ``on_audience`` with True when the first subscriber comes, and with False when the last one goes.
    """

    def __init__(
        self,
        keep: int,
        max_subscribers: int,
        brake: Callable[[bool], None],
        on_audience: Callable[[bool], None],
    ) -> None:
        self.scrollback = Scrollback()
        self.ended: Ended | None = None
        self._keep = keep
        self._max_subscribers = max_subscribers
        self._pause = brake
        self._subscribers_changed = on_audience
        self._subscribers: set[Subscriber] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._ticked_at = 0.0

    def write(self, kind: OutputKind, data: bytes) -> None:
        """Append what the process has written, and let the subscribers know."""
        self.scrollback.append(kind, data)
        end = self.scrollback.end
        slowest = min((each.offset for each in self._subscribers), default=end)
        self.scrollback.trim(min(end - self._keep, max(slowest, end - LAG_LIMIT)))
        for each in self._subscribers:
            each.wake()
        self._judge()

    @property
    def has_subscribers(self) -> bool:
        return bool(self._subscribers)

    @property
    def kept(self) -> int:
        """How many bytes are kept."""
        return self.scrollback.end - self.scrollback.start

    def finish(self, ended: Ended) -> None:
        """The process has ended, and everything that it wrote is here."""
        self.ended = ended
        for each in self._subscribers:
            each.wake()
        self._judge()

    def subscribe(self, offset: int | None = None) -> Subscriber:
        """Return a subscriber that begins at ``offset``, or at the oldest byte kept if it is gone; None: at the end.

        Raises ConnectError: ``out_of_range`` beyond the end, ``resource_exhausted`` when there are enough of them.
        """
        if offset is not None and offset > self.scrollback.end:
            raise ConnectError("out_of_range", f"{REPLAY_FROM}: only {self.scrollback.end} bytes have been written")
        if len(self._subscribers) >= self._max_subscribers:
            raise ConnectError("resource_exhausted", f"the process has {self._max_subscribers} subscribers, the limit")
        start = self.scrollback.end if offset is None else max(offset, self.scrollback.start)
        subscriber = Subscriber(self, start)
        self._subscribers.add(subscriber)
        if len(self._subscribers) == 1:
            self._subscribers_changed(True)
        return subscriber

    def remove(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)
        self._judge()
        if not self._subscribers:
            self._subscribers_changed(False)

    def moved(self) -> None:
        """A subscriber has taken something."""
        if self._ticking is not None:
            self._judge()

    def _judge(self) -> None:
        """Brake or let go, by what the subscribers have taken."""
        end = self.scrollback.end
        holding = self.ended is None and any(each.holds(end) for each in self._subscribers)
        if holding and self._ticking is None:
            self._schedule_tick()
            self._pause(True)
        elif not holding and self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
            self._pause(False)

    def _schedule_tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._ticked_at = loop.time()
        self._ticking = loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        # A loop that is late is not the fault of those who wait to be served by it.
        passed = min(now - self._ticked_at, 2 * _TICK)
        end = self.scrollback.end
        others_wait = any(each.waits for each in self._subscribers)
        for each in self._subscribers:
            if each.holds(end):
                each.charge(passed if others_wait else 0, now)
        self._schedule_tick()
        self._judge()


class Subscriber:
    """One reader of a process's output; ``offset`` is that of the next byte that it gets."""

    def __init__(self, broadcast: Broadcast, offset: int) -> None:
        self.offset = offset
        self._broadcast = broadcast
        self._credit = CREDIT
        self._moved_at = asyncio.get_running_loop().time()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def waits(self) -> bool:
        """Whether it has taken everything and waits for more."""
        return self._waiter is not None

    async def next(self, seconds: float) -> Output | Ended | None:
        """Return what comes next: output, the end after all output, or None when ``seconds`` pass without any.

        Raises ConnectError (``resource_exhausted``) when the next byte is no longer kept.
        """
        broadcast = self._broadcast
        scrollback = broadcast.scrollback
        if self.offset == scrollback.end and broadcast.ended is None:
            await self._wait(seconds)
        if self.offset < scrollback.start:
            raise ConnectError(
                "resource_exhausted",
                f"this subscriber was too slow: the output from byte {self.offset} to {scrollback.start} is lost to it",
            )
        if self.offset < scrollback.end:
            kind, data = scrollback.read(self.offset, PIECE)
            self.offset += len(data)
            self._credit = min(CREDIT, self._credit + CREDIT * len(data) / CREDIT_BYTES)
            self._moved_at = asyncio.get_running_loop().time()
            broadcast.moved()
            return Output(kind, data)
        return broadcast.ended

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self.wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def holds(self, end: int) -> bool:
        """Whether the process should not write beyond ``end`` for the sake of this subscriber."""
        return end - self.offset >= LAG and self._credit > 0

    def charge(self, seconds: float, now: float) -> None:
        """Take from its credit that it has held others up for ``seconds``, and all of it when it is stuck."""
        self._credit = self._credit - seconds if now - self._moved_at < PATIENCE else 0

    def close(self) -> None:
        self._broadcast.remove(self)
