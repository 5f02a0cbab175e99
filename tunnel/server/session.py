"""One tunnel at the bridge: drives the pump between a WebSocket connection and its target, in asyncio's loop.

This is the one way that data flows at the bridge, for plain tunnels (here) and resumable ones
(`tunnel.server.resumable`). The sockets stay plain non-blocking sockets that the loop watches,
rather than asyncio transports: bytes are read into one buffer of the loop's and written from there, without a copy of
their own, and a tunnel that is idle costs no memory for buffers.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from tunnel.errors import RemoteProtocolError, printable
from tunnel.net.async_sockets import close_gently
from tunnel.net.pump import Pump
from tunnel.protocol.frames import (
    GOING_AWAY,
    NO_CODE,
    NORMAL,
    TARGET_LOST,
    TARGET_REFUSED_DATA,
    TRY_AGAIN_LATER,
)
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT, Keepalive
from tunnel.protocol.message_size import LARGEST_MESSAGE
from tunnel.protocol.stream import PlainStream, ReadBuffers

if sys.platform == "linux":  # imported early: who runs out of descriptors cannot open a module
    import fcntl
    import termios

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnel.net.channel import Channel
    from tunnel.protocol.resume import ResumableStream

# How long a last Close may take to go out, and the peer to hang up after it, in seconds.
FAREWELL_LIMIT = 5.0
GAVE_WAY = "gave way to another client: the bridge is full"
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


class Session(ABC):
    """A tunnel between ``wire`` (upgraded already) and ``target`` (connected), both of which it owns from now on.

    What is common to both kinds of tunnel is here: who calls what when. A kind says how ends are passed on, and when
    the tunnel is over.
    """

    def __init__(self, wire: Channel, target: Channel, stream: PlainStream | ResumableStream) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._pump = Pump(wire, target, target, stream)
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._watched: set[tuple[int, bool]] = set()
        self._again: asyncio.Handle | None = None  # a turn for what waits inside the wire
        self._asked_to_end = ""
        self._started = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._farewell: asyncio.TimerHandle | None = None

    async def run(self) -> Ending:
        """Move bytes until the tunnel has ended, close both sockets, and tell how it ended.

        Never raises for what a peer or a network does. When cancelled, both connections are cut.
        """
        try:
            self._turn(lambda: None)
            await self._over
            await self._part()
        finally:
            self._finish()
            self._pump.wire.close()
            self._close_target()
        return Ending(self._reason(), self._pump.to_sink, self._pump.to_wire, time.monotonic() - self._started)

    def close(self, code: int = GOING_AWAY, reason: str = "") -> None:
        """Ask the session to end; ``code`` and ``reason`` are for the peer."""
        if not self._over.done():
            self._asked_to_end = reason or f"closed with {code}"
            self._limit_farewell(FAREWELL_LIMIT)
            self._turn(lambda: self._end(code, reason))

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""
        return True

    def standing(self) -> int:
        """Return what the client has to show for its tunnel: 0 if it has sent nothing, nor taken more than a greeting.

        The tunnel that has moved least is the first to give way when there are too many.
        """
        return self._pump.to_sink + self._pump.to_wire // GREETING

    # ---- what a kind of tunnel decides

    @abstractmethod
    def give_way(self) -> None:
        """Leave the seat to another client."""

    @abstractmethod
    def _end(self, code: int, reason: str) -> None:
        """Begin to end the stream from this side."""

    @abstractmethod
    def _pass_ends_on(self) -> None:
        """Pass an end of file, or a failure, of one side on to the other."""

    @abstractmethod
    def _is_over(self) -> bool: ...

    @abstractmethod
    async def _part(self) -> None:
        """Let the peers read what was sent last, before both connections are closed; may take a few seconds."""

    @abstractmethod
    def _close_target(self) -> None: ...

    @abstractmethod
    def _reason(self) -> str:
        """Return how the tunnel ended, for the log."""

    @property
    def _may_read_target(self) -> bool:
        return self._pump.wants_source

    # ---- what the loop calls

    def _read_wire(self) -> None:
        if self._again is None:  # else that turn comes soon, and one at a time is enough
            self._turn(self._pump.read_wire)

    def _read_again(self) -> None:
        self._again = None
        if self._pump.wants_wire_read:  # else the connection was lost meanwhile, or the target is blocked again
            self._read_wire()

    def _write_wire(self) -> None:
        self._turn(self._pump.write_wire)

    def _read_target(self) -> None:
        self._turn(self._pump.read_source)

    def _write_target(self) -> None:
        self._turn(self._pump.write_sink)

    def _tick(self) -> None:
        self._timer = None
        self._turn(lambda: self._pump.stream.tick(time.monotonic()))

    def _turn(self, act: Callable[[], None]) -> None:
        """Do one thing, and what follows from it. What fails here is a bug: it ends this tunnel, and no other."""
        try:
            act()
            self._step()
        except Exception as exc:
            if not self._over.done():
                self._over.set_exception(exc)
            self._finish()

    # ---- the course of a session

    def _step(self) -> None:
        """After each turn: pass ends on, see whether all is over, and watch what is wanted next."""
        if self._over.done():
            return
        self._pass_ends_on()
        self._pump.write_wire()
        if self._is_over():
            self._finish()
            return
        if self._again is None and self._pump.wants_wire_read and self._pump.wire.pending:
            self._again = self._loop.call_soon(self._read_again)
        self._pump.stream.settle()
        self._watch_wanted()
        self._set_timer()

    def _half_close_target(self) -> None:
        """Tell the target that nothing more comes; what it still has to say is relayed."""
        if not self._pump.sink_error:
            try:
                self._target.end_writing()
            except OSError as exc:
                self._pump.sink_error = exc

    def _set_timer(self) -> None:
        now = time.monotonic()
        delay = self._pump.stream.next_tick(now)
        # A timer that rings too early sets the next one; so it need not be moved at every turn.
        if self._timer is None or now + delay < self._tick_at:
            if self._timer is not None:
                self._timer.cancel()
            self._tick_at = now + delay
            self._timer = self._loop.call_later(delay, self._tick)

    def _limit_farewell(self, seconds: float) -> None:
        if self._farewell is None:
            self._farewell = self._loop.call_later(seconds, self._finish)

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
        for handle in (self._timer, self._farewell, self._again):
            if handle is not None:
                handle.cancel()
        self._watch(set())

    # ---- watching

    def _watch_wanted(self) -> None:
        pump = self._pump
        wire, target = pump.wire.fileno(), self._target.fileno()
        wanted = set()
        if pump.wants_wire_read:
            wanted.add((wire, False))
        if pump.wants_wire_write:
            wanted.add((wire, True))
        if self._may_read_target:
            wanted.add((target, False))
        if pump.wants_sink:
            wanted.add((target, True))
        self._watch(wanted)

    def _watch(self, wanted: set[tuple[int, bool]]) -> None:
        """Watch the descriptors in ``wanted``: (descriptor, whether for writing)."""
        if wanted == self._watched:
            return
        wire = self._pump.wire.fileno()
        for fd, writing in self._watched - wanted:
            (self._loop.remove_writer if writing else self._loop.remove_reader)(fd)
        for fd, writing in wanted - self._watched:
            if writing:
                self._loop.add_writer(fd, self._write_wire if fd == wire else self._write_target)
            else:
                self._loop.add_reader(fd, self._read_wire if fd == wire else self._read_target)
        self._watched = wanted


class PlainSession(Session):
    """A tunnel on Wire 1, which lives and dies with its WebSocket connection.

    ``buffers`` are those of the event loop, shared by all its sessions. Times are in seconds.
    ``make_stream`` is `PlainStream`, or a kind of it. ``answer`` is the 101, which goes out first. ``max_message`` is
    how many bytes a message to the client has at most.
    """

    def __init__(
        self,
        wire: Channel,
        target: Channel,
        *,
        buffers: ReadBuffers,
        ping_interval: float = PING_INTERVAL,
        ping_timeout: float = PING_TIMEOUT,
        make_stream: Callable[..., PlainStream] = PlainStream,
        answer: bytes = b"",
        max_message: int = LARGEST_MESSAGE,
    ) -> None:
        keepalive = Keepalive(time.monotonic(), ping_interval, ping_timeout)
        self._stream = make_stream(client=False, buffers=buffers, keepalive=keepalive, preamble=answer)
        self._stream.max_message = max_message
        self._half_closed = False
        super().__init__(wire, target, self._stream)

    def give_way(self) -> None:
        """End the tunnel; one whose client has shown nothing yet without waiting for its answer."""
        at_once = not self.standing()
        self.close(TRY_AGAIN_LATER, GAVE_WAY)
        if at_once:
            self._finish()

    def _end(self, code: int, reason: str) -> None:
        self._stream.close(code, reason)

    async def _part(self) -> None:
        if isinstance(self._stream.failure, RemoteProtocolError):
            await close_gently(self._pump.wire.sock, UNHEARD)
        # Else the peer has closed too by now, or is gone.

    def _pass_ends_on(self) -> None:
        pump, stream = self._pump, self._stream
        if stream.sink_ended and not self._half_closed:
            self._half_closed = True
            if self._clean:
                self._half_close_target()
        if pump.source_is_over:
            self._end_stream()
        elif stream.close_received and not self._clean:
            stream.close(stream.close_code)

    def _end_stream(self) -> None:
        """Tell the client, behind the last of the target's bytes, how the target ended."""
        if self._pump.source_error:
            self._stream.close(TARGET_LOST, self._pump.source_error.strerror or "")
        elif self._stream.undelivered:
            self._stream.close(TARGET_REFUSED_DATA, f"{self._stream.undelivered} bytes")
        else:
            self._stream.source_ended()

    def _is_over(self) -> bool:
        pump, stream = self._pump, self._stream
        if stream.wants_sink_write:
            return False  # what the client sent is still owed to the target
        if stream.failure:
            self._limit_farewell(FAREWELL_LIMIT)
            return not stream.wants_wire_write
        if stream.wire_is_over and not stream.close_received:
            return True
        if pump.wire_error and stream.close_received:
            return True  # the tail has no reader any more
        return stream.close_sent and (stream.sink_ended or pump.sink_error is not None)

    @property
    def _clean(self) -> bool:
        """Whether the client's stream is whole: it ended with a Close that means success."""
        return self._stream.close_received and self._stream.close_code in (NORMAL, NO_CODE)

    def _close_target(self) -> None:
        """Close the target's connection; a stream that broke off is reset, lest it look finished to the target."""
        pump = self._pump
        broke_off = not (self._clean or pump.source_is_over or pump.sink_error)
        # A reset would discard what the target has not taken yet.
        if broke_off and not self._stream.wants_sink_write and not unsent(self._target):
            self._target.abort()
        else:
            self._target.close()

    def _reason(self) -> str:
        pump, stream = self._pump, self._stream
        if self._asked_to_end:
            return self._asked_to_end
        if stream.failure:
            return str(stream.failure)
        if pump.source_error:
            return f"target lost: {pump.source_error.strerror or pump.source_error}"
        if stream.undelivered:
            return f"target refused {stream.undelivered} bytes"
        if stream.close_received:
            if not self._clean:
                return closed_by_client(stream.close_code, stream.close_reason)
            return "target ended" if pump.source_is_over else "client ended"
        if pump.wire_error:
            return f"client lost: {pump.wire_error.strerror or pump.wire_error}"
        return "client hung up without a Close frame"


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
