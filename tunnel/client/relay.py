"""The relay: drives the pump between a local end and the wire, until one of them ends.

This is the one way that data flows at the client's end, whatever the local end is: standard input and output for the
ProxyCommand, a socket elsewhere. It waits with a selector in a single thread, because an SSL object must not be used
by two. The plain tunnel is here; the resumable one, which survives its connections, in `tunnel.client.resumable`.
"""

from __future__ import annotations

import selectors
import sys
import time
from abc import ABC, abstractmethod

from tunnel.errors import ConnectionLost
from tunnel.net.pump import Pump
from tunnel.protocol.frames import (
    GOING_AWAY,
    INTERNAL_ERROR,
    NO_CODE,
    NORMAL,
    TARGET_LOST,
    TARGET_REFUSED_DATA,
    TOO_BIG,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from tunnel.net.channel import Channel
    from tunnel.net.pump import Sink, Source
    from tunnel.protocol.frames import Close
    from tunnel.protocol.resume import ResumableStream
    from tunnel.protocol.stream import PlainStream

    class LocalSource(Source, Protocol):
        """What is read at this end; ``waitable``: whether a selector can tell when."""

        @property
        def waitable(self) -> bool: ...

    class LocalSink(Sink, Protocol):
        """What is written at this end; ``is_pipe``: whether it tells by itself when its reader is gone."""

        @property
        def is_pipe(self) -> bool: ...

        def end_stream(self) -> bool:
            """Pass an end of the peer's stream on, if that is possible; return whether the source still counts."""

    class Interrupts(Protocol):
        """What ends a relay from outside; see `tunnel.client.signals.SignalPipe`."""

        def fileno(self) -> int: ...

        def caught(self) -> int:
            """Return the exit code that it stands for; 0 is a clean end."""


READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# After an interrupt, or once the sink is closed: what was read is still sent, for this many seconds at most.
FAREWELL_LIMIT = 2.0
LINGER_LIMIT = 0.5  # seconds that the peer then has to hang up


class SessionNeverBegan(ConnectionLost):
    """There is no session that we could use, and nothing has come of the connection: dial anew.

    With ``without`` no session is to be asked for any more; ``sent`` is what was sent in vain then.
    """

    def __init__(self, cause: str, *, without: bool = False, sent: bytes = b"", **fields: object) -> None:
        super().__init__(cause, **fields)
        self.without = without
        self.sent = sent


class Relay(ABC):
    """One tunnel over an open connection. A kind of tunnel says how ends are passed on, and what comes of a loss."""

    def __init__(
        self,
        wire: Channel,
        source: LocalSource,
        sink: LocalSink,
        stream: PlainStream | ResumableStream,
        interrupts: Interrupts,
    ) -> None:
        self._pump = Pump(wire, source, sink, stream)
        self._sink_is_pipe = sink.is_pipe
        self._source_waitable = source.waitable
        self._interrupts = interrupts
        # poll, unlike epoll, takes files and devices too, and needs no system call when the interest changes.
        # eventlet takes poll away from a program that it patches.
        has_poll = sys.platform == "linux" and hasattr(selectors, "PollSelector")
        self._selector = selectors.PollSelector() if has_poll else selectors.SelectSelector()
        self._registered: dict[int, int] = {}
        self.handed_over = False  # whether another relay goes on with all this one has
        self.interrupted: int | None = None  # the exit code of what ended it from outside

    @property
    def counts(self) -> tuple[int, int]:
        """Bytes of the source that were sent, and bytes that the sink took."""
        return self._pump.to_wire, self._pump.to_sink

    @property
    def sink_error(self) -> OSError | None:
        """Why the sink cannot be written any more, if that is so."""
        return self._pump.sink_error

    def run(self) -> None:
        """Move bytes until the tunnel ends; return if all went as it should.

        Raises ConnectionLost when the connection broke or the peer ended it for a reason, OSError when the sink cannot
        be written (BrokenPipeError: it is closed), but nothing when it was ``interrupted``.
        """
        try:
            self._relay()
            if self.handed_over:
                return
            self._farewell()
        finally:
            self._selector.close()
            if not self.handed_over:
                self._pump.wire.close()
        if self.interrupted is None:
            self._raise_failure()

    def take_over(self, other: Relay) -> None:
        """Go on where ``other`` has stopped."""
        ours, theirs = self._pump, other._pump
        ours.to_wire, ours.to_sink = theirs.to_wire, theirs.to_sink
        ours.source_is_over, ours.source_error = theirs.source_is_over, theirs.source_error
        ours.wire_error = theirs.wire_error
        self.interrupted = other.interrupted

    # ---- what a kind of tunnel decides

    @abstractmethod
    def _advance(self) -> bool:
        """Pass ends on; return whether the tunnel is over."""

    @abstractmethod
    def _begin_farewell(self) -> None:
        """Queue the last words: nothing more will be read."""

    @abstractmethod
    def _raise_failure(self) -> None:
        """Raise what ended the tunnel, unless that was success."""

    # ---- the loop

    def _relay(self) -> None:
        stream = self._pump.stream
        now = time.monotonic()
        tick_at = now + stream.next_tick(now)
        while not self._advance():
            now = time.monotonic()
            tick_at = min(tick_at, now + stream.next_tick(now))
            self._turn(max(0.0, tick_at - now))
            now = time.monotonic()
            if now >= tick_at:
                stream.tick(now)
                self._pump.write_wire()
                tick_at = now + stream.next_tick(now)

    def _turn(self, limit: float) -> None:
        """Wait for at most ``limit`` seconds, then do what became possible."""
        pump = self._pump
        wanted = self._wanted()
        ready_now = (pump.wants_wire_read and pump.wire.pending) or (pump.wants_source and not self._source_waitable)
        self._register(wanted)
        events = {key.fd: mask for key, mask in self._selector.select(0 if ready_now else limit)}
        if self._interrupts.fileno() in events:
            self.interrupted = self._interrupts.caught()
            return
        self._serve(events)
        pump.stream.settle()

    def _serve(self, events: dict[int, int]) -> None:
        """Do what ``events`` (descriptor → events) make possible."""
        pump = self._pump
        wire, source, sink = pump.wire.fileno(), pump.source.fileno(), pump.sink.fileno()
        if events.get(wire, 0) & WRITE:
            pump.write_wire()
        if pump.wants_wire_read and (events.get(wire, 0) & READ or pump.wire.pending):
            pump.read_wire()
        if events.get(sink, 0):
            if pump.wants_sink:
                pump.write_sink()
            elif self._sink_is_pipe and not events[sink] & WRITE:
                pump.sink_error = BrokenPipeError("closed by its reader")
        if pump.wants_source and (events.get(source, 0) or not self._source_waitable):
            pump.read_source()

    def _wanted(self) -> dict[int, int]:
        """Return what to wait for: descriptor → events."""
        pump = self._pump
        wanted = {self._interrupts.fileno(): READ}
        wire = (READ if pump.wants_wire_read else 0) | (WRITE if pump.wants_wire_write else 0)
        if wire:
            wanted[pump.wire.fileno()] = wire
        if pump.wants_source and self._source_waitable:
            wanted[pump.source.fileno()] = READ
        if pump.wants_sink:
            wanted[pump.sink.fileno()] = wanted.get(pump.sink.fileno(), 0) | WRITE
        elif self._sink_is_pipe:
            # A pipe's writing end never becomes readable; but poll reports that its reader is gone.
            wanted.setdefault(pump.sink.fileno(), READ)
        return wanted

    def _register(self, wanted: dict[int, int]) -> None:
        registered, selector = self._registered, self._selector
        if wanted == registered:
            return
        for fd in registered.keys() - wanted.keys():
            selector.unregister(fd)
        for fd, events in wanted.items():
            if fd not in registered:
                selector.register(fd, events)
            elif registered[fd] != events:
                selector.modify(fd, events)
        self._registered = wanted

    def _farewell(self) -> None:
        """Send what was read, and the last words, as far as the peer takes them in time."""
        pump = self._pump
        deadline = time.monotonic() + FAREWELL_LIMIT
        if self.interrupted is not None and pump.wants_source and self._source_waitable:
            # What ssh wrote last may still be in the pipe; a terminal, though, would block an unprompted read.
            self._register({pump.source.fileno(): READ})
            if self._selector.select(0):
                pump.read_source()
        self._begin_farewell()
        while pump.wants_wire_write and (left := deadline - time.monotonic()) > 0:
            self._register({pump.wire.fileno(): WRITE})
            if self._selector.select(left):
                pump.write_wire()
        if self.interrupted is not None or pump.sink_error:
            self._linger()

    def _linger(self) -> None:
        """Let the last words arrive: closing while something is unread resets the connection, which overtakes them."""
        wire = self._pump.wire
        deadline = time.monotonic() + LINGER_LIMIT
        space = memoryview(bytearray(64 * 1024))
        try:
            wire.end_writing()
            self._register({wire.fileno(): READ})
            while (left := deadline - time.monotonic()) > 0:
                if self._selector.select(left) and wire.receive_into(space) == 0:
                    return
        except (OSError, ValueError):
            return  # it is closed already, by whichever end

    @property
    def _is_clean(self) -> bool:
        """Whether what ends the relay from this side, if anything does, is no failure."""
        return not self.interrupted

    def _raise_local_failure(self) -> None:
        pump = self._pump
        if pump.sink_error:
            raise pump.sink_error
        if pump.source_error:
            raise ConnectionLost("input", reason=pump.source_error.strerror or pump.source_error)


class PlainRelay(Relay):
    """The relay of a plain tunnel, which ends with its connection.

    If it turns out to be a session that can be resumed, it ends with ``handed_over``.
    """

    def __init__(
        self, wire: Channel, source: LocalSource, sink: LocalSink, stream: PlainStream, interrupts: Interrupts
    ) -> None:
        super().__init__(wire, source, sink, stream, interrupts)
        self._stream = stream

    @property
    def stream(self) -> PlainStream:
        return self._stream

    def _advance(self) -> bool:
        pump, stream = self._pump, self._stream
        beginning = stream.beginning
        if beginning is not None:
            if beginning.decided:
                self.handed_over = beginning.offer is not None
                return True
            if pump.source_is_over:
                beginning.source_ended(time.monotonic())
        if (pump.source_is_over and not stream.may_get_session) or stream.sink_ended:
            # Behind the end of our input nothing follows; behind the peer's Close nothing we send has a reader.
            if pump.source_error:
                stream.close(INTERNAL_ERROR, "the input broke off")
            stream.source_ended()
            pump.write_wire()
        if stream.failure or pump.sink_error or self.interrupted is not None:
            return True
        return stream.sink_ended and (stream.close_sent or stream.wire_is_over)

    def _begin_farewell(self) -> None:
        if self._stream.has_session:
            self._stream.leave_session()
        self._stream.close(NORMAL if self._is_clean else GOING_AWAY)

    def _raise_failure(self) -> None:
        stream = self._stream
        if stream.beginning is not None and stream.has_session:
            raise SessionNeverBegan(
                "lost", without=True, sent=stream.beginning.sent, reason="an edge makes data of the session's lines"
            )
        if stream.failure:
            raise stream.failure
        self._raise_local_failure()
        if stream.close_received:
            _raise_close(stream.close_code, stream.close_reason)
        else:
            raise ConnectionLost("lost", reason=loss_reason(self._pump))


def loss_reason(pump: Pump, close: Close | None = None) -> str:
    """Return how a connection was lost, with what the peer's ``close`` said if there was one."""
    if close is not None:
        code = "without a code" if close.code == NO_CODE else f"with code {close.code}"
        return f"it was closed {code}" + (f": {close.reason}" if close.reason else "")
    error = pump.wire_error
    return (error.strerror or str(error)) if error else "the peer hung up without a Close frame"


def _raise_close(code: int, reason: str) -> None:
    """Raise what the peer's Close stands for, unless it stands for success."""
    said = f": {reason}" if reason else ""
    if code == GOING_AWAY:
        raise ConnectionLost("going-away", reason=said)
    if code == TARGET_LOST:
        raise ConnectionLost("target-lost", reason=said)
    if code == TARGET_REFUSED_DATA:
        raise ConnectionLost("undelivered", reason=said)
    if code == TOO_BIG:
        raise ConnectionLost("too-big", reason=said)
    if code not in (NORMAL, NO_CODE):
        raise ConnectionLost("closed", code=code, reason=said)
