"""The bridge's relay: drives the pump between a WebSocket connection and its target, in asyncio's loop.

All data of the bridge flow this way. The sockets stay plain non-blocking sockets that the loop watches, rather than
asyncio transports: bytes are read into one buffer of the loop's and written from there, without a copy of their own,
and a tunnel that is idle costs no memory for buffers.

The relay only moves bytes. What differs between kinds of tunnel is a `Lifecycle`, which it holds: `tunnel.server.plain`
for tunnels that end with their connection, `tunnel.server.resumable` for sessions that outlive it.
"""

from __future__ import annotations

import asyncio
import math
import struct
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tunnel.errors import printable, spelled
from tunnel.net.pump import NEXT_LOOK, Pump
from tunnel.net.waiter import READ, WRITE
from tunnel.protocol.frames import GOING_AWAY, NO_CODE

if sys.platform == "linux":  # imported early: who runs out of descriptors cannot open a module
    import fcntl
    import termios

if TYPE_CHECKING:
    from tunnel.net.channel import Channel
    from tunnel.protocol.byte_stream import ByteStream

# How long a last Close may take to go out, and the peer to hang up after it, in seconds.
FAREWELL_LIMIT = 5.0
GREETING = 64 * 1024  # bytes that a target may say to whoever connects
UNHEARD = 4 << 20  # bytes that a peer may have sent, at most, before it heard that it broke the rules


class Ending:
    """How a tunnel ended: ``reason`` for the log, bytes towards the target and back, and how long it lasted."""

    __slots__ = ("bytes_in", "bytes_out", "reason", "seconds")

    def __init__(self, reason: str, bytes_in: int, bytes_out: int, seconds: float) -> None:
        self.reason = reason
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.seconds = seconds


class Lifecycle(Protocol):
    """The course of one kind of tunnel: how ends are passed on, what follows a lost connection, when it is over."""

    @property
    def stream(self) -> ByteStream:
        """The stream that the pump is to use."""

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""

    @property
    def may_read_target(self) -> bool:
        """Whether there is memory for what the target says."""

    def start(self, relay: Relay) -> None:
        """Take charge of the tunnel that ``relay`` drives, and that keeps this lifecycle."""

    def advance(self) -> bool:
        """Do what follows from the last turn: pass ends on, let go of a connection that is lost.

        Return whether the tunnel goes on.
        """

    def end(self, code: int, reason: str) -> None:
        """Begin to end the stream from this side; ``code`` and ``reason`` are for the peer."""

    def give_way(self) -> None:
        """Leave the seat to another client."""

    def stopped(self) -> None:
        """Note that the relay has stopped: nothing moves any more."""

    async def part(self) -> None:
        """Let the peers read what was sent last, before both connections are closed; may take a few seconds."""

    def close(self) -> None:
        """Close the target's connection, and let go of what this lifecycle alone holds. The relay closes the wire."""

    def reason(self) -> str:
        """Return how the tunnel ended, for the log."""


class Relay:
    """A tunnel between ``wire`` (upgraded already) and ``target`` (connected), both of which it owns from now on.

    ``lifecycle`` decides its course, and has some methods of its own here.
    """

    def __init__(self, wire: Channel, target: Channel, lifecycle: Lifecycle) -> None:
        self._loop = asyncio.get_running_loop()
        self.target = target
        self.pump = Pump(wire, target, target, lifecycle.stream)
        self._lifecycle = lifecycle
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._at_wire = 0  # what is watched of the wire …
        self._at_target = 0  # … and of the target: READ and WRITE
        self._again: asyncio.Handle | None = None  # a turn for what waits inside the wire
        self._asked_to_end = ""
        self._started = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._farewell: asyncio.TimerHandle | None = None
        lifecycle.start(self)

    async def run(self) -> Ending:
        """Move bytes until the tunnel has ended, close both sockets, and tell how it ended.

        A session that waits for its client takes as long as that. Never raises for what a peer or a network does. When
        cancelled, both connections are cut.
        """
        try:
            self.turn()
            await self._over
            await self._lifecycle.part()
        finally:
            self.stop()
            self.pump.wire.close()
            self._lifecycle.close()
        pump = self.pump
        reason = self._asked_to_end or self._lifecycle.reason()
        return Ending(reason, pump.to_sink, pump.to_wire, time.monotonic() - self._started)

    def close(self, code: int = GOING_AWAY, reason: str = "") -> None:
        """Ask the tunnel to end; ``code`` and ``reason`` are for the peer."""
        if not self.is_over:
            self._asked_to_end = reason or f"closed with {code}"
            self.limit_farewell(FAREWELL_LIMIT)
            self.turn(lambda: self._lifecycle.end(code, reason))

    def give_way(self) -> None:
        """Leave the seat to another client."""
        self._lifecycle.give_way()

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""
        return self._lifecycle.attached

    @property
    def is_over(self) -> bool:
        """Whether nothing moves any more."""
        return self._over.done()

    def standing(self) -> int:
        """Return what the client has to show for its tunnel: 0 if it has sent nothing, nor taken more than a greeting.

        The tunnel that has moved least is the first to give way when there are too many.
        """
        return self.pump.to_sink + self.pump.to_wire // GREETING

    # ---- for the lifecycle

    def turn(self, act: Callable[[], None] = lambda: None) -> None:
        """Do one thing, and what follows from it. What fails here is a bug: it ends this tunnel, and no other."""
        try:
            act()
            self._step()
        except Exception as exc:
            if not self.is_over:
                self._over.set_exception(exc)
            self.stop()

    def stop(self, reason: str = "") -> None:
        """End the tunnel at once; ``reason`` is for the log, if the lifecycle does not know it."""
        if not self.is_over:
            self._asked_to_end = reason or self._asked_to_end
            self._over.set_result(None)
        for handle in (self._timer, self._farewell, self._again):
            if handle is not None:
                handle.cancel()
        self._watch(0, 0)
        self._lifecycle.stopped()

    def limit_farewell(self, seconds: float) -> None:
        """Stop in ``seconds`` at the latest; only the first call counts."""
        if self._farewell is None:
            self._farewell = self._loop.call_later(seconds, self.stop)

    def half_close_target(self) -> None:
        """Tell the target that nothing more comes; what it still has to say is relayed."""
        if not self.pump.sink_error:
            try:
                self.target.end_writing()
            except OSError as exc:
                self.pump.sink_error = exc

    def drop_wire(self) -> None:
        """Abandon the connection without a word: nothing that still comes over it counts."""
        self._watch(0, 0)
        self.pump.wire.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take_wire(self, wire: Channel) -> None:
        """Go on over ``wire``; a turn is to follow."""
        self.pump.wire = wire
        self.pump.wire_error = None

    def close_target(self) -> None:
        """Close the target's connection while the client's stays open."""
        self._watch(0, 0)
        self.target.close()

    # ---- what the loop calls

    def _read_wire(self) -> None:
        if self._again is None:  # else that turn comes soon, and one at a time is enough
            self.turn(self.pump.read_wire)

    def _read_again(self) -> None:
        self._again = None
        if self.pump.wants_wire_read:  # else the connection was lost meanwhile, or the target is blocked again
            self._read_wire()

    def _write_wire(self) -> None:
        self.turn(self.pump.write_wire)

    def _read_target(self) -> None:
        self.turn(self.pump.read_source)

    def _write_target(self) -> None:
        self.turn(self.pump.write_sink)

    def _step(self) -> None:
        """After each turn: let the lifecycle do what follows, then watch what is wanted next."""
        if self._over.done():
            return
        if not self._lifecycle.advance():
            self.stop()
        if self._over.done():
            return
        pump = self.pump
        reads_wire = pump.wants_wire_read
        if reads_wire and self._again is None and pump.wire.pending:
            self._again = self._loop.call_soon(self._read_again)
        pump.stream.settle()
        self._watch(
            (READ if reads_wire else 0) | (WRITE if pump.wants_wire_write else 0),
            (READ if pump.wants_source and self._lifecycle.may_read_target else 0) | (WRITE if pump.wants_sink else 0),
        )
        now = time.monotonic()
        if self._timer is None or self._tick_at > now + NEXT_LOOK:
            self._set_timer(now, NEXT_LOOK)

    # ---- time

    def _tick(self) -> None:
        self._timer = None
        self.turn(self._look_at_clock)

    def _look_at_clock(self) -> None:
        stream, now = self.pump.stream, time.monotonic()
        stream.tick(now)
        self.pump.write_wire()
        self._set_timer(now, stream.next_tick(now))

    def _set_timer(self, now: float, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tick_at = now + delay
        self._timer = None if math.isinf(delay) else self._loop.call_later(delay, self._tick)

    # ---- watching

    def _watch(self, at_wire: int, at_target: int) -> None:
        """Let the loop call when what is wanted of the two connections is possible."""
        if at_wire != self._at_wire:
            self._watch_for(self.pump.wire.fileno(), self._at_wire, at_wire, self._read_wire, self._write_wire)
            self._at_wire = at_wire
        if at_target != self._at_target:
            self._watch_for(self.target.fileno(), self._at_target, at_target, self._read_target, self._write_target)
            self._at_target = at_target

    def _watch_for(self, fd: int, before: int, now: int, read: Callable[[], None], write: Callable[[], None]) -> None:
        changed = before ^ now
        if changed & READ:
            if now & READ:
                self._loop.add_reader(fd, read)
            else:
                self._loop.remove_reader(fd)
        if changed & WRITE:
            if now & WRITE:
                self._loop.add_writer(fd, write)
            else:
                self._loop.remove_writer(fd)


def gave_way() -> str:
    """Return why a tunnel ended, or its client lost its seat, when another client needed it."""
    return f"gave way to another client: the bridge is full ({spelled('max_tunnels')}, ulimit -n)"


def closed_by_client(code: int, reason: str) -> str:
    """Return what the log says of a Close of the client's, or of an edge's in its name."""
    said = "a Close without a code" if code == NO_CODE else str(code)
    return printable(f"client closed with {said}" + (f": {reason}" if reason else ""))


def unsent(channel: Channel) -> bool:
    """Return whether the kernel still holds bytes that the peer has not acknowledged; True where it cannot tell."""
    if sys.platform != "linux":
        return True
    try:
        answer = fcntl.ioctl(channel.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return True
    return bool(struct.unpack("i", answer)[0])
