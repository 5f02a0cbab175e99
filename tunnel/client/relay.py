"""The client's relay: drives the pump between a local end and the wire, until the tunnel is over.

All data of the client pass through it, whatever the local end is: standard input and output for the ProxyCommand, a
socket elsewhere. The relay runs in a single thread, because two threads must not use the same SSL object.

The relay only moves bytes. A `Lifecycle` handles what differs between kinds of tunnel: `tunnel.client.plain` for plain
tunnels, `tunnel.client.resumable` for sessions. A lifecycle may hand the tunnel over to another one with another
stream, as the bridge's first message may turn a plain tunnel into a session.
"""

from __future__ import annotations

import time

from tunnel.errors import ConnectionLost
from tunnel.net.batches import Batches
from tunnel.net.pump import NEXT_LOOK, Pump
from tunnel.net.splice import Splice
from tunnel.net.waiter import READ, WRITE, Waiter
from tunnel.protocol.frames import NO_CODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Protocol

    from tunnel.net.channel import Channel
    from tunnel.net.pump import Sink, Source
    from tunnel.protocol.byte_stream import ByteStream
    from tunnel.protocol.frames import Close

    class LocalSource(Source, Protocol):
        """What is read at this end; ``waitable``: whether a selector can wait for it."""

        @property
        def waitable(self) -> bool: ...

    class LocalSink(Sink, Protocol):
        """What is written at this end; ``is_pipe``: whether it becomes readable when its reader is gone."""

        @property
        def is_pipe(self) -> bool: ...

        def end_stream(self) -> bool:
            """Pass on the end of the peer's stream, if possible; return whether to continue to read the source."""

    class Interrupts(Protocol):
        """What ends a relay from outside; see `tunnel.client.signals.SignalPipe`."""

        def fileno(self) -> int: ...

        def caught(self) -> int:
            """Return the exit code for the interrupt; 0 is a clean end."""

    class Lifecycle(Protocol):
        """The course of a tunnel: how ends are passed on, what follows a lost connection, and when it is over."""

        @property
        def stream(self) -> ByteStream:
            """The stream that the pump uses while this lifecycle is in charge."""

        def start(self, pump: Pump) -> None:
            """Take charge of the tunnel whose bytes ``pump`` moves."""

        def advance(self, *, stopped: bool) -> Lifecycle | None:
            """Do what follows from the last turn: pass on ends, drop a lost connection.

            Return the lifecycle that is in charge from now on: this one or its successor; None if the tunnel is over.
            ``stopped``: the tunnel was interrupted, and must end now.
            """

        def limit_wait(self, seconds: float) -> float:
            """Return how long the next turn may wait, at most ``seconds``."""

        @property
        def descriptor(self) -> int | None:
            """A descriptor to wait for, besides those of the pump."""

        def turn_ended(self, readable: Container[int], now: float) -> None:
            """Note that a turn has ended at ``now``, and which descriptors were readable."""

        def say_last_words(self, *, clean: bool) -> None:
            """Queue the final message: nothing more will be read. ``clean``: everything was sent."""

        def raise_failure(self) -> None:
            """Raise the error that ended the tunnel, if any."""

        def close(self) -> None:
            """Release what only this lifecycle holds. The relay closes the wire."""


# After an interrupt, or when the sink is closed: seconds at most in which what was read is still sent.
FAREWELL_LIMIT = 2.0
LINGER_LIMIT = 0.5  # seconds that the peer then has to close the connection


class Relay:
    """One tunnel over the open connection ``wire``; ``lifecycle`` decides its course.

    ``look`` is called between turns with the time and the number of bytes sent from the source. It returns when to call
    it again at the latest.
    """

    def __init__(
        self,
        wire: Channel,
        source: LocalSource,
        sink: LocalSink,
        lifecycle: Lifecycle,
        interrupts: Interrupts,
        look: Callable[[float, int], float] | None = None,
    ) -> None:
        self._look = look
        self._pump = Pump(wire, source, sink, lifecycle.stream)
        self._lifecycle = lifecycle
        self._sink_is_pipe = sink.is_pipe
        self._read_wire = Splice(self._pump).read_wire if sink.is_pipe else self._pump.read_wire
        self._batches = Batches(wire)
        self._source_waitable = source.waitable
        self._interrupts = interrupts
        # Unlike that of the wire, these descriptors do not change.
        self._source_fd, self._sink_fd, self._interrupts_fd = source.fileno(), sink.fileno(), interrupts.fileno()
        self._waiter = Waiter()
        self.interrupted: int | None = None  # the exit code of the interrupt that ended it
        lifecycle.start(self._pump)

    @property
    def counts(self) -> tuple[int, int]:
        """Bytes sent from the source, and bytes written to the sink."""
        return self._pump.to_wire, self._pump.to_sink

    @property
    def sink_error(self) -> OSError | None:
        """Why the sink cannot be written any more; None if it can."""
        return self._pump.sink_error

    def run(self) -> None:
        """Move bytes until the tunnel ends; return if it ended well or was ``interrupted``.

        Raises ConnectionLost if the connection broke or the peer ended it with an error, SessionNeverBegan if all may
        be tried again from the start, OSError if the sink cannot be written (BrokenPipeError: it is closed).
        """
        try:
            self._relay()
            self._farewell()
        except MemoryError as exc:
            self._give_up()
            raise ConnectionLost("memory") from exc
        finally:
            self._pump.wire.close()
            self._lifecycle.close()
        if self.interrupted is None:
            self._lifecycle.raise_failure()

    def _relay(self) -> None:
        tick_at = now = time.monotonic()
        while self._advance():
            now = self._turn(self._lifecycle.limit_wait(tick_at - now))
            if now >= tick_at:
                stream = self._pump.stream
                stream.tick(now)
                self._pump.write_wire(now)
                tick_at = now + stream.next_tick(now)
                if self._look is not None:
                    tick_at = max(now, min(tick_at, self._look(now, self._pump.to_wire)))
            elif tick_at > now + NEXT_LOOK:
                tick_at = now + NEXT_LOOK

    def _advance(self) -> bool:
        """Let the lifecycle do what follows from the last turn; return whether the tunnel continues."""
        following = self._lifecycle.advance(stopped=self.interrupted is not None)
        while following is not None and following is not self._lifecycle:
            self._lifecycle.close()
            self._lifecycle = following
            self._pump.stream = following.stream
            following.start(self._pump)
            following = following.advance(stopped=self.interrupted is not None)
        return following is not None

    def _turn(self, limit: float) -> float:
        """Wait at most ``limit`` seconds, then do what became possible; return the time."""
        pump, stream, lifecycle = self._pump, self._pump.stream, self._lifecycle
        wire, source, sink = pump.wire.fileno(), self._source_fd, self._sink_fd
        reads_wire, reads_source = stream.wants_wire_read, pump.wants_source
        has_pending = reads_wire and pump.wire.pending
        wanted = {self._interrupts_fd: READ}
        if reads_source:
            if self._source_waitable:
                wanted[source] = READ
            else:
                limit = 0.0
        if reads_wire:
            wanted[wire] = READ
            if has_pending:
                limit = 0.0
            elif self._batches.is_on:
                limit = min(limit, max(0.0, self._batches.read_by - time.monotonic()))
        if stream.wants_wire_write:
            wanted[wire] = wanted.get(wire, 0) | WRITE
        if stream.wants_sink_write:
            wanted[sink] = wanted.get(sink, 0) | WRITE
        elif self._sink_is_pipe and sink not in wanted:
            # The writing end of a pipe never becomes readable, but poll reports when its reader is gone.
            wanted[sink] = READ
        if (descriptor := lifecycle.descriptor) is not None:
            wanted[descriptor] = READ
        events = self._waiter.wait(wanted, limit)
        if self._interrupts_fd in events:
            self.interrupted = self._interrupts.caught()
            return time.monotonic()
        at_wire, at_sink = events.get(wire, 0), events.get(sink, 0)
        if at_wire & WRITE:
            pump.write_wire()
        if at_wire & READ or has_pending or (reads_wire and self._is_read_due):
            self._batch(self._read_wire())
        if at_sink:
            if stream.wants_sink_write:
                pump.write_sink()
            elif self._sink_is_pipe and not at_sink & WRITE:
                pump.sink_error = BrokenPipeError("closed by its reader")
        if reads_source and (source in events or not self._source_waitable):
            pump.read_source()
        stream.settle()
        now = time.monotonic()
        lifecycle.turn_ended(events, now)
        return now

    @property
    def _is_read_due(self) -> bool:
        """Whether the wire is busy, and its next read is due."""
        return self._batches.is_on and time.monotonic() >= self._batches.read_by

    def _batch(self, n: int) -> None:
        """Note that a read of the wire gave ``n`` bytes."""
        if self._batches.channel is not self._pump.wire:  # that connection was lost
            self._batches = Batches(self._pump.wire)
        self._batches.came(n)

    def _farewell(self) -> None:
        """Send what was read and the final message, as far as the peer accepts them in time."""
        pump = self._pump
        deadline = time.monotonic() + FAREWELL_LIMIT
        # ssh's last output may still be in the pipe. A terminal is not read: that could block.
        has_rest = self.interrupted is not None and pump.wants_source and self._source_waitable
        if has_rest and self._waiter.wait({pump.source.fileno(): READ}, 0):
            pump.read_source()
        self._lifecycle.say_last_words(clean=not self.interrupted)
        self._write_rest(deadline)
        if self.interrupted is not None or pump.sink_error:
            self._linger()

    def _give_up(self) -> None:
        """Tell the peer not to wait: what was read last is lost, so the tunnel cannot continue."""
        try:
            self._lifecycle.say_last_words(clean=False)
            self._write_rest(time.monotonic() + FAREWELL_LIMIT)
        except MemoryError:
            pass  # it will notice that the connection is closed

    def _write_rest(self, deadline: float) -> None:
        pump = self._pump
        while pump.wants_wire_write and (left := deadline - time.monotonic()) > 0:
            if self._waiter.wait({pump.wire.fileno(): WRITE}, left):
                pump.write_wire()

    def _linger(self) -> None:
        """Let the final message arrive: closing with unread data resets the connection, which would overtake it."""
        wire = self._pump.wire
        deadline = time.monotonic() + LINGER_LIMIT
        space = memoryview(bytearray(64 * 1024))
        try:
            wire.end_writing()
            while (left := deadline - time.monotonic()) > 0:
                if self._waiter.wait({wire.fileno(): READ}, left) and wire.receive_into(space) == 0:
                    return
        except (OSError, ValueError):
            return  # it is closed already


class SessionNeverBegan(ConnectionLost):
    """There is no usable session, and nothing was received on the connection: dial again.

    ``without``: do not ask for a session any more; ``sent`` is then what has to be sent again.
    """

    def __init__(self, cause: str, *, without: bool = False, sent: bytes = b"", **fields: object) -> None:
        super().__init__(cause, **fields)
        self.without = without
        self.sent = sent


def raise_local_failure(pump: Pump) -> None:
    """Raise the error of the source or the sink, if there is one."""
    if pump.sink_error:
        raise pump.sink_error
    if pump.source_error:
        raise ConnectionLost("input", reason=pump.source_error.strerror or pump.source_error)


def loss_reason(pump: Pump, close: Close | None = None) -> str:
    """Return how a connection was lost, with the code and reason of the peer's ``close``, if there was one."""
    if close is not None:
        code = "without a code" if close.code == NO_CODE else f"with code {close.code}"
        return f"it was closed {code}" + (f": {close.reason}" if close.reason else "")
    error = pump.wire_error
    return (error.strerror or str(error)) if error else "the peer closed the connection without a Close frame"
