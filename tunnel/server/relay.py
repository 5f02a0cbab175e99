"""The bridge's relay: drives the pump between a WebSocket connection and its target, in asyncio's loop.

All data of the bridge pass through it. It uses plain non-blocking sockets that the loop watches, not asyncio
transports: bytes are read into one buffer shared by all tunnels and written from there, without another copy, and an
idle tunnel needs no memory for buffers.

The relay only moves bytes. A `Lifecycle` handles what differs between kinds of tunnel: `tunnel.server.plain` for plain
tunnels, `tunnel.server.resumable` for sessions.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tunnel.errors import printable, spelled
from tunnel.net.channel import Channel
from tunnel.net.pump import LARGE_READ, NEXT_LOOK, Pump
from tunnel.net.waiter import READ, WRITE
from tunnel.protocol.frames import GOING_AWAY, NO_CODE
from tunnel.server.busy import BusyQueue, BusyReads

if sys.platform == "linux":  # imported early: without a free descriptor no module can be opened
    import fcntl
    import termios

if TYPE_CHECKING:
    from tunnel.protocol.byte_stream import ByteStream
    from tunnel.restart.state import Kept, Tree

T = TypeVar("T")

# Seconds to send a last Close, and for the peer to close the connection after that.
FAREWELL_LIMIT = 5.0
# Seconds in which a target is copied after its bytes came in too small pieces for a splice, as from another machine.
SMALL_PIECES = 10.0
ACK_PATIENCE = 0.005  # seconds that a splice waits for an ack, until it is left to the window how much is on its way
GREETING = 64 * 1024  # bytes that a target may send to any client at the beginning
# Attempts to write what is queued before a last Close that may not wait: over TLS, one takes at most 256 KiB.
_LAST_WRITES = 8
UNHEARD = 4 << 20  # most bytes to read from a peer that may not have received our Close after a violation


class Ending:
    """How a tunnel ended: ``reason`` for the log, bytes to the target and back, and its duration in seconds."""

    __slots__ = ("bytes_in", "bytes_out", "reason", "seconds")

    def __init__(self, reason: str, bytes_in: int, bytes_out: int, seconds: float) -> None:
        self.reason = reason
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.seconds = seconds


class Lifecycle(Protocol):
    """The course of a tunnel: how ends are passed on, what follows a lost connection, and when it is over."""

    @property
    def stream(self) -> ByteStream:
        """The stream that the pump uses."""

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""

    @property
    def may_read_target(self) -> bool:
        """Whether there is memory for more data from the target."""

    @property
    def may_splice(self) -> bool:
        """Whether there is memory for a splice, which reserves some."""

    def start(self, relay: Relay) -> None:
        """Take charge of the tunnel of ``relay``, which keeps this lifecycle."""

    def advance(self) -> bool:
        """Do what follows from the last turn: pass on ends, drop a lost connection.

        Return whether the tunnel continues.
        """

    def end(self, code: int, reason: str) -> None:
        """Begin to end the stream at this end; ``code`` and ``reason`` are for the peer."""

    def give_way(self) -> None:
        """Give up the slot for another client."""

    def stopped(self) -> None:
        """Note that the relay has stopped."""

    def capture(self, kept: Kept) -> Tree | None:
        """Return the state, for a restart of the bridge; None if the tunnel cannot continue in another process."""

    async def part(self) -> None:
        """Let the peers read the last data before both connections are closed; may take a few seconds."""

    def close(self) -> None:
        """Close the target's connection, and release what only this lifecycle holds. The relay closes the wire."""

    def reason(self) -> str:
        """Return how the tunnel ended, for the log."""


class Relay:
    """A tunnel between ``wire`` (already upgraded) and ``target`` (connected), both of which it takes over.

    ``lifecycle`` decides its course, and defines some of its methods. ``busy`` is the queue of the whole bridge.
    """

    def __init__(self, wire: Channel, target: Channel, lifecycle: Lifecycle, busy: BusyQueue) -> None:
        self._loop = asyncio.get_running_loop()
        self.target = target
        self.pump = Pump(wire, target, target, lifecycle.stream)
        self._lifecycle = lifecycle
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._at_wire = 0  # what the loop watches at the wire …
        self._at_target = 0  # … and at the target: READ and WRITE
        self._again: asyncio.Handle | None = None  # a scheduled turn for data that waits inside the wire
        self._asked_to_end = ""
        self._started = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._ticks_soon = False  # whether the timer was set for the next look, so that it need not be set again
        self._has_looked = False  # whether this turn has checked the clock, so that the next check may be later
        self._farewell: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None  # how long a splice waits for an ack
        self._copies_until = 0.0  # (`time.monotonic`) when the target may be spliced again
        self._busy = busy
        self._wire_reads: BusyReads | None = None  # once there was a large read
        self._target_reads: BusyReads | None = None
        lifecycle.start(self)

    async def run(self) -> Ending:
        """Move bytes until the tunnel has ended, close both sockets, and return how it ended.

        This includes the time that a session is detached. Never raises for errors of a peer or the network. If it is
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
        return self._ending()

    def close(self, code: int = GOING_AWAY, reason: str = "") -> None:
        """Ask the tunnel to end; ``code`` and ``reason`` are for the peer."""
        if not self.is_over:
            self._asked_to_end = reason or f"closed with {code}"
            self.limit_farewell(FAREWELL_LIMIT)
            self.turn(lambda: self._lifecycle.end(code, reason))

    def give_way(self) -> None:
        """Give up the slot for another client."""
        self._lifecycle.give_way()

    def capture(self, kept: Kept) -> Tree | None:
        """Return the tunnel's state, for a restart of the bridge; None if it cannot continue in another process."""
        self._stop_batches(wire=True, target=True)
        lifecycle = None if self.is_over else self._lifecycle.capture(kept)
        if lifecycle is None:
            return None
        pump, target = self.pump, self.target.sock
        return {
            "lifecycle": lifecycle,
            "target": None if target.fileno() < 0 else kept.socket(target),
            "to_wire": pump.to_wire,
            "to_sink": pump.to_sink,
            "source_is_over": pump.source_is_over,
            "errors": [_numbered(each) for each in (pump.wire_error, pump.source_error, pump.sink_error)],
            "asked_to_end": self._asked_to_end,
            "started": self._started,
            "stops_at": None if self._farewell is None else self._farewell.when(),
        }

    def restore(self, tree: Tree) -> None:
        """Restore the captured state; called before `run`, with wire, target and lifecycle restored."""
        pump = self.pump
        pump.to_wire, pump.to_sink, pump.source_is_over = tree["to_wire"], tree["to_sink"], tree["source_is_over"]
        pump.wire_error, pump.source_error, pump.sink_error = map(_error_of, tree["errors"])
        self._asked_to_end, self._started = tree["asked_to_end"], tree["started"]
        if tree["stops_at"] is not None:
            self.limit_farewell(max(0.0, tree["stops_at"] - self._loop.time()))

    def cut(self, code: int, reason: str) -> Ending:
        """End the tunnel at once, with a Close of ``code`` if possible without waiting; return how it ended.

        The wire stays open, so that the peer can read the Close; the caller closes it. `run` must not continue.
        """
        self.close(code, reason)
        for _ in range(_LAST_WRITES):
            if not self.is_over and self.pump.stream.wants_wire_write:
                self.turn(self.pump.write_wire)
        self.stop()
        self._lifecycle.close()
        return self._ending()

    def _ending(self) -> Ending:
        pump = self.pump
        reason = self._asked_to_end or self._lifecycle.reason()
        return Ending(reason, pump.to_sink, pump.to_wire, time.monotonic() - self._started)

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""
        return self._lifecycle.attached

    @property
    def is_over(self) -> bool:
        """Whether the tunnel is over."""
        return self._over.done()

    def standing(self) -> int:
        """Return the tunnel's standing: 0 if the client has sent nothing and received no more than a greeting.

        At the limit, the tunnel that has moved the fewest bytes is evicted first.
        """
        return self.pump.to_sink + self.pump.to_wire // GREETING

    # ---- for the lifecycle

    def turn(self, act: Callable[[], T | None] = lambda: None) -> T | None:
        """Do one thing, and what follows from it; return what it returned.

        What fails here is a bug: it ends this tunnel, and no other.
        """
        try:
            result = act()
            self._step()
        except Exception as exc:
            if not self.is_over:
                self._over.set_exception(exc)
            self.stop()
            return None
        return result

    def stop(self, reason: str = "") -> None:
        """End the tunnel at once; ``reason`` is for the log, if the lifecycle has none."""
        if not self.is_over:
            self._asked_to_end = reason or self._asked_to_end
            self._over.set_result(None)
        for handle in (self._timer, self._farewell, self._again, self._patience):
            if handle is not None:
                handle.cancel()
        self._watch(0, 0)
        self._stop_batches(wire=True, target=True)
        self._lifecycle.stopped()

    def limit_farewell(self, seconds: float) -> None:
        """Stop in at most ``seconds``; only the first call counts."""
        if self._farewell is None:
            self._farewell = self._loop.call_later(seconds, self.stop)

    def half_close_target(self) -> None:
        """Half-close the target's connection; what the target still sends is relayed."""
        if not self.pump.sink_error:
            try:
                self.target.end_writing()
            except OSError as exc:
                self.pump.sink_error = exc

    def drop_wire(self) -> None:
        """Drop the connection without a Close; further data on it is ignored."""
        self._watch(0, 0)
        self._stop_batches(wire=True)
        self.pump.wire.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take_wire(self, wire: Channel) -> None:
        """Continue over ``wire``; call `turn` next."""
        self.pump.wire = wire
        self.pump.wire_error = None

    def close_target(self) -> None:
        """Close the target's connection while the client's stays open."""
        self._watch(0, 0)
        self._stop_batches(target=True)
        self.target.close()

    # ---- what the loop calls

    def _read_wire(self) -> None:
        if self._again is not None:
            return  # that turn comes soon, and one at a time is enough
        if self._wire_reads is not None:
            self._wire_reads.readable()
        elif (self._read_wire_once() or 0) >= LARGE_READ and not self.is_over:
            self._wire_reads = BusyReads(self.pump.wire, self._read_wire_once, self._busy, lambda: None)

    def _read_wire_once(self) -> int | None:
        n = self.turn(self.pump.read_wire)
        return n if n or self.pump.stream.wants_wire_read else None

    def _read_again(self) -> None:
        self._again = None
        if self.pump.stream.wants_wire_read:  # otherwise the connection was lost, or the target is blocked again
            self._read_wire()

    def _write_wire(self) -> None:
        self.turn(self.pump.write_wire)

    def _read_target(self) -> None:
        if self._target_reads is not None:
            self._target_reads.readable()
        elif (self._read_target_once() or 0) >= LARGE_READ and not self.is_over:
            self._target_reads = BusyReads(self.target, self._read_target_once, self._busy, self._target_calms)

    def _read_target_once(self) -> int | None:
        if not self._at_target & READ:
            return None  # it is read again once it is watched again
        n = self.turn(self._splice_or_copy)
        if n is None and self._target_reads is not None and self._at_target & READ:
            self._target_reads.resume()  # what prevented the read is over already
        return n

    def _splice_or_copy(self) -> int | None:
        """Read the target once, None if that is not wanted now. While it is busy, its bytes are spliced if possible."""
        pump, splices = self.pump, self._busy.splices
        is_busy = self._target_reads is not None and self._target_reads.is_busy
        if pump.splice is None and is_busy and self._lifecycle.may_splice and time.monotonic() >= self._copies_until:
            splices.begin(pump, self._copy)
        if pump.splice is not None:
            n = pump.splice.read_source(self._busy.share)
            if not pump.splice.is_over:
                return n
            if pump.splice.came_short:
                self._copies_until = time.monotonic() + SMALL_PIECES
            splices.end(pump)
        n = pump.read_source()
        return n if n or pump.wants_source else None

    def _target_calms(self) -> None:
        """Copy again if the target is not busy any more."""
        if self.pump.splice is not None and self._target_reads is not None and not self._target_reads.is_busy:
            self._copy()

    def _copy(self) -> None:
        self.turn(lambda: self._busy.splices.end(self.pump))

    def _copy_if_stuck(self) -> None:
        """Copy if the client has acknowledged nothing: then more may be on its way to it."""
        self._patience = None
        pump = self.pump
        if pump.splice is None or pump.wants_wire_write or pump.wants_source:
            return  # it does not wait for an ack any more
        left = pump.splice.read_at + ACK_PATIENCE - time.monotonic()
        if left > 0:
            self._patience = self._loop.call_later(left, self._copy_if_stuck)
        else:
            self._copy()

    def _write_target(self) -> None:
        self.turn(self.pump.write_sink)

    def _stop_batches(self, *, wire: bool = False, target: bool = False) -> None:
        """Read the sockets as they were read at first: one is to be closed, or to be handed over."""
        self._busy.splices.end(self.pump, discard=self.is_over)
        if wire and self._wire_reads is not None:
            self._wire_reads.stop()
            self._wire_reads = None
        if target and self._target_reads is not None:
            self._target_reads.stop()
            self._target_reads = None

    def _step(self) -> None:
        """After each turn: let the lifecycle do what follows, then watch for what is wanted next."""
        if self._over.done():
            return
        if not self._lifecycle.advance():
            self.stop()
        if self._over.done():
            return
        pump, stream = self.pump, self.pump.stream
        reads_wire = stream.wants_wire_read
        if reads_wire and self._again is None and pump.wire.pending:
            self._again = self._loop.call_soon(self._read_again)
        stream.settle()
        may_read_target = self._lifecycle.may_read_target
        if pump.splice is not None and (pump.splice.is_over or not may_read_target):
            self._busy.splices.end(pump)  # so that the memory that it reserves is released
        writes_wire, reads_source = stream.wants_wire_write, pump.wants_source
        at_wire = (READ if reads_wire else 0) | (WRITE if writes_wire else 0)
        at_target = READ if reads_source and may_read_target else 0
        if stream.wants_sink_write:
            at_target |= WRITE
        if at_wire != self._at_wire or at_target != self._at_target:
            self._watch(at_wire, at_target)
        if pump.splice is not None and self._patience is None and not (writes_wire or reads_source):
            self._patience = self._loop.call_later(ACK_PATIENCE, self._copy_if_stuck)
        if self._has_looked:
            self._has_looked = False
            now = time.monotonic()
            self._set_timer(now, stream.next_tick(now))
        elif self._timer is None or not self._ticks_soon:
            now = time.monotonic()
            if self._timer is None or self._tick_at > now + NEXT_LOOK:
                self._set_timer(now, NEXT_LOOK)

    # ---- time

    def _tick(self) -> None:
        self._timer = None
        self.turn(self._look_at_clock)

    def _look_at_clock(self) -> None:
        self.pump.stream.tick(time.monotonic())
        self.pump.write_wire()
        self._has_looked = True

    def _set_timer(self, now: float, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tick_at = now + delay
        self._ticks_soon = delay <= NEXT_LOOK
        self._timer = None if math.isinf(delay) else self._loop.call_later(delay, self._tick)

    # ---- watching

    def _watch(self, at_wire: int, at_target: int) -> None:
        """Make the loop call back when the wanted reads and writes are possible."""
        if at_wire != self._at_wire:
            fd, reads = self.pump.wire.fileno(), self._wire_reads
            self._watch_for(fd, self._at_wire, at_wire, self._read_wire, self._write_wire, reads)
            self._at_wire = at_wire
        if at_target != self._at_target:
            fd, reads = self.target.fileno(), self._target_reads
            self._watch_for(fd, self._at_target, at_target, self._read_target, self._write_target, reads)
            self._at_target = at_target

    def _watch_for(
        self, fd: int, before: int, now: int, read: Callable[[], None], write: Callable[[], None],
        reads: BusyReads | None,
    ) -> None:  # fmt: skip
        changed = before ^ now
        if changed & READ:
            if now & READ:
                self._loop.add_reader(fd, read)
                if reads is not None:
                    reads.resume()
            else:
                self._loop.remove_reader(fd)
        if changed & WRITE:
            if now & WRITE:
                self._loop.add_writer(fd, write)
            else:
                self._loop.remove_writer(fd)


def no_wire() -> Channel:
    """Return a closed connection, for a detached session."""
    sock = socket.socket(socket.AF_UNIX)
    channel = Channel(sock)
    sock.close()
    return channel


def _numbered(error: OSError | None) -> list[int | str | None] | None:
    return None if error is None else [error.errno, error.strerror]


def _error_of(numbered: list[Any] | None) -> OSError | None:
    return None if numbered is None else OSError(*numbered)


def gave_way() -> str:
    """Return the reason for the log when a tunnel, or its slot, was taken for another client."""
    return f"evicted for another client: the bridge is full ({spelled('max_tunnels')}, ulimit -n)"


def closed_by_client(code: int, reason: str) -> str:
    """Return the text for the log about a Close of the client, or of an edge on its behalf."""
    said = "a Close without a code" if code == NO_CODE else str(code)
    return printable(f"client closed with {said}" + (f": {reason}" if reason else ""))


def unsent(channel: Channel) -> bool:
    """Return whether the kernel still holds bytes that the peer has not acknowledged; True if it cannot say."""
    if sys.platform != "linux":
        return True
    try:
        answer = fcntl.ioctl(channel.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return True
    return bool(struct.unpack("i", answer)[0])
