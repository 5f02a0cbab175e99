"""Output of one process for several subscribers, with backpressure; a stuck subscriber does not delay the others.

A subscriber is an offset into the scrollback, so it needs no separate buffer. One that lags pauses the process, so
that fast output arrives completely. While others wait for more, it may do so only as long as it keeps reading. A
subscriber that lags behind the scrollback gets an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tunnel.pty.protocol.framing import ConnectError
from tunnel.pty.protocol.messages import REPLAY_FROM, Ended, Output, OutputKind, Restore
from tunnel.pty.server.modes import Modes
from tunnel.pty.server.scrollback import Scrollback

PIECE = 64 << 10  # bytes of one event
LAG = 256 << 10  # bytes that a subscriber may lag before it pauses the process; on a slow line Ctrl-C waits for them
LAG_LIMIT = 4 << 20  # bytes kept for a subscriber that lags, if the scrollback is smaller
CREDIT = 0.05  # seconds that a subscriber may delay the others; renewed by each CREDIT_BYTES that it reads
CREDIT_BYTES = 512 << 10
PATIENCE = 10.0  # seconds that it may pause the process without reading, while nobody else waits
_TICK = 0.01  # seconds
# After a restart of the service its subscribers reconnect. Until then each has a stand-in, which lags like one.
RETURN_CREDIT = 2.0  # seconds that a stand-in may delay the others; without others it has PATIENCE
UNSENT = 128 << 10  # bytes that a subscriber was given last, but that may not have left this process


class Broadcast:
    """The scrollback of one process, of at least ``keep`` bytes, and its subscribers; ``on_pty``: it has a terminal.

    ``pause`` is called with True when the process should not be read for now, and with False when it should again.
    ``on_subscribed`` is called with True for the first subscriber, and with False when the last one has left.
    """

    def __init__(
        self,
        keep: int,
        max_subscribers: int,
        pause: Callable[[bool], None],
        on_subscribed: Callable[[bool], None],
        *,
        on_pty: bool,
    ) -> None:
        self._modes = Modes() if on_pty else None  # where the scrollback starts
        self.scrollback = Scrollback(self._modes.feed if self._modes else None)
        self.ended: Ended | None = None
        self._keep = keep
        self._max_subscribers = max_subscribers
        self._pause = pause
        self._on_subscribed = on_subscribed
        self._subscribers: set[Subscriber] = set()
        self._stand_ins: set[Subscriber] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._ticked_at = 0.0

    def capture(self) -> dict[str, Any]:
        """Return all of it as plain data, for `adopt`; of the subscribers only where they are."""
        return {
            "scrollback": self.scrollback.capture(),
            "modes": None if self._modes is None else self._modes.capture(),
            "subscribers": sorted(each.offset for each in self._readers),
        }

    def adopt(self, tree: dict[str, Any]) -> None:
        """Restore a captured broadcast in a service that has been restarted; this one must be new.

        For a while it keeps for its former subscribers what they have not read, and lets the process wait for them.
        """
        self.scrollback.adopt(tree["scrollback"])
        if self._modes is not None:
            self._modes.adopt(tree["modes"])
        for offset in tree["subscribers"]:
            stand_in = Subscriber(self, max(self.scrollback.start, offset - UNSENT), None, credit=RETURN_CREDIT)
            self._stand_ins.add(stand_in)
            asyncio.get_running_loop().call_later(PATIENCE, self._dismiss, stand_in)

    @property
    def _readers(self) -> set[Subscriber]:
        return self._subscribers | self._stand_ins if self._stand_ins else self._subscribers

    def write(self, kind: OutputKind, data: bytes) -> None:
        """Append output of the process, and wake the subscribers."""
        self.scrollback.append(kind, data)
        end = self.scrollback.end
        slowest = min((each.offset for each in self._readers), default=end)
        self.scrollback.trim(min(end - self._keep, max(slowest, end - LAG_LIMIT)))
        for each in self._subscribers:
            each.wake()
        self._update_backpressure()

    @property
    def has_subscribers(self) -> bool:
        """Whether there is a subscriber."""
        return bool(self._subscribers)

    @property
    def kept(self) -> int:
        """The number of bytes kept."""
        return self.scrollback.end - self.scrollback.start

    def finish(self, ended: Ended) -> None:
        """Note that the process has ended and all of its output was written here."""
        self.ended = ended
        for each in self._subscribers:
            each.wake()
        self._update_backpressure()

    def subscribe(self, offset: int | None = None) -> Subscriber:
        """Return a subscriber that starts at ``offset``, or at the oldest byte if that is no longer kept.

        None means the end. Raises ConnectError: ``out_of_range`` for an offset beyond the end, ``resource_exhausted``
        if there are too many subscribers.
        """
        if offset is not None and offset > self.scrollback.end:
            raise ConnectError(
                "out_of_range", f"{REPLAY_FROM}: the process has written only {self.scrollback.end} bytes"
            )
        if len(self._subscribers) >= self._max_subscribers:
            raise ConnectError("resource_exhausted", f"too many subscribers: the limit is {self._max_subscribers}")
        start = self.scrollback.end if offset is None else max(offset, self.scrollback.start)
        modes = self._modes if offset is not None and offset < start else None
        subscriber = Subscriber(self, start, Restore(modes.restore()) if modes else None)
        self._subscribers.add(subscriber)
        if self._stand_ins:  # the newcomer is probably the one who has read as far
            self._dismiss(min(self._stand_ins, key=lambda each: abs(each.offset - start)))
        if len(self._subscribers) == 1:
            self._on_subscribed(True)
        return subscriber

    def _dismiss(self, stand_in: Subscriber) -> None:
        self._stand_ins.discard(stand_in)
        self._update_backpressure()

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a subscriber."""
        self._subscribers.discard(subscriber)
        self._update_backpressure()
        if not self._subscribers:
            self._on_subscribed(False)

    def moved(self) -> None:
        """Note that a subscriber has read something."""
        if self._ticking is not None:
            self._update_backpressure()

    def _update_backpressure(self) -> None:
        """Pause or resume the process, depending on how far the subscribers lag."""
        end = self.scrollback.end
        holding = self.ended is None and any(each.holds(end) for each in self._readers)
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
        # If the event loop is late, that is not the subscribers' fault.
        passed = min(now - self._ticked_at, 2 * _TICK)
        end = self.scrollback.end
        others_wait = any(each.waits for each in self._subscribers)
        for each in self._readers:
            if each.holds(end):
                each.charge(passed if others_wait else 0, now)
        self._schedule_tick()
        self._update_backpressure()


class Subscriber:
    """A reader of a process's output; ``offset`` is that of the next byte that it gets.

    What is before ``live`` had been written when it subscribed. ``restore`` is set if it asked for output that is gone.
    """

    def __init__(self, broadcast: Broadcast, offset: int, restore: Restore | None, *, credit: float = CREDIT) -> None:
        self.offset = offset
        self.live = broadcast.scrollback.end
        self.restore = restore
        self._broadcast = broadcast
        self._credit = credit
        self._moved_at = asyncio.get_running_loop().time()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def waits(self) -> bool:
        """Whether it has read everything and waits for more."""
        return self._waiter is not None

    async def next(self, seconds: float) -> Output | Ended | None:
        """Return the next output, or the end after all output; None if there is nothing for ``seconds``.

        Raises ConnectError (``resource_exhausted``) if the next byte is no longer kept.
        """
        broadcast = self._broadcast
        scrollback = broadcast.scrollback
        if self.offset == scrollback.end and broadcast.ended is None:
            await self._wait(seconds)
        if self.offset < scrollback.start:
            raise ConnectError(
                "resource_exhausted",
                f"this subscriber was too slow: it missed the output from byte {self.offset} to {scrollback.start}",
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
        """Make `next` check again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def holds(self, end: int) -> bool:
        """Return whether the process must wait for this subscriber, when its output ends at ``end``."""
        return end - self.offset >= LAG and self._credit > 0

    def charge(self, seconds: float, now: float) -> None:
        """Charge it for having delayed others for ``seconds``; take all of its credit if it is stuck."""
        self._credit = self._credit - seconds if now - self._moved_at < PATIENCE else 0

    def close(self) -> None:
        """Unsubscribe."""
        self._broadcast.remove(self)
