"""The client's relay: drives the pump between a local end and the wire, until the tunnel is over.

All data of the client flow this way, whatever the local end is: standard input and output for the ProxyCommand, a
socket elsewhere. The relay waits in a single thread, because two threads must not use one SSL object.

The relay only moves bytes. What differs between kinds of tunnel is a `Lifecycle`, which it holds: `tunnel.client.plain`
for tunnels that end with their connection, `tunnel.client.resumable` for those that outlive it. A lifecycle may hand
the tunnel over to another one, with another stream: the first message of the bridge may turn a plain tunnel into a
resumable one.
"""

from __future__ import annotations

import time

from tunnel.errors import ConnectionLost
from tunnel.net.pump import NEXT_LOOK, Pump
from tunnel.net.waiter import READ, WRITE, Waiter
from tunnel.protocol.frames import NO_CODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Protocol

    from tunnel.net.channel import Channel
    from tunnel.net.pump import Sink, Source
    from tunnel.protocol.byte_stream import ByteStream
    from tunnel.protocol.frames import Close

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

    class Lifecycle(Protocol):
        """The course of one kind of tunnel: how ends are passed on, what follows a lost connection, when it is over."""

        @property
        def stream(self) -> ByteStream:
            """The stream that the pump is to use, as long as this lifecycle is in charge."""

        def start(self, pump: Pump) -> None:
            """Take charge of the tunnel whose bytes ``pump`` moves."""

        def advance(self, *, stopped: bool) -> Lifecycle | None:
            """Do what follows from the last turn: pass ends on, let go of a connection that is lost.

            Return who is in charge from now on: this lifecycle, its successor, or nobody, as the tunnel is over.
            ``stopped``: it has been interrupted, and so is over at the latest now.
            """

        def limit_wait(self, seconds: float) -> float:
            """Return how long the next turn may wait, which is ``seconds`` at most."""

        @property
        def descriptor(self) -> int | None:
            """A descriptor to wait for beside those of the pump, until it is readable."""

        def turn_ended(self, readable: Container[int]) -> None:
            """Note that a turn has ended, and which descriptors had become readable."""

        def say_last_words(self, *, clean: bool) -> None:
            """Queue the last words: nothing more will be read. ``clean``: what was sent is all there is."""

        def raise_failure(self) -> None:
            """Raise what ended the tunnel, unless that was success."""

        def close(self) -> None:
            """Let go of what this lifecycle alone holds. The relay closes the wire."""


# After an interrupt, or once the sink is closed: what was read is still sent, for this many seconds at most.
FAREWELL_LIMIT = 2.0
LINGER_LIMIT = 0.5  # seconds that the peer then has to hang up


class Relay:
    """One tunnel over the open connection ``wire``, whose course ``lifecycle`` decides."""

    def __init__(
        self, wire: Channel, source: LocalSource, sink: LocalSink, lifecycle: Lifecycle, interrupts: Interrupts
    ) -> None:
        self._pump = Pump(wire, source, sink, lifecycle.stream)
        self._lifecycle = lifecycle
        self._sink_is_pipe = sink.is_pipe
        self._source_waitable = source.waitable
        self._interrupts = interrupts
        self._waiter = Waiter()
        self.interrupted: int | None = None  # the exit code of what ended it from outside
        lifecycle.start(self._pump)

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

        Raises ConnectionLost when the connection broke or the peer ended it for a reason, SessionNeverBegan when
        everything may be tried again from the start, OSError when the sink cannot be written (BrokenPipeError: it is
        closed), but nothing when it was ``interrupted``.
        """
        try:
            self._relay()
            self._farewell()
        finally:
            self._pump.wire.close()
            self._lifecycle.close()
        if self.interrupted is None:
            self._lifecycle.raise_failure()

    def _relay(self) -> None:
        tick_at = time.monotonic()
        while self._advance():
            now = time.monotonic()
            self._turn(self._lifecycle.limit_wait(max(0.0, tick_at - now)))
            now = time.monotonic()
            if now >= tick_at:
                stream = self._pump.stream
                stream.tick(now)
                self._pump.write_wire()
                tick_at = now + stream.next_tick(now)
            else:
                tick_at = min(tick_at, now + NEXT_LOOK)

    def _advance(self) -> bool:
        """Let the lifecycle do what follows from the last turn; return whether the tunnel goes on."""
        following = self._lifecycle.advance(stopped=self.interrupted is not None)
        while following is not None and following is not self._lifecycle:
            self._lifecycle.close()
            self._lifecycle = following
            self._pump.stream = following.stream
            following.start(self._pump)
            following = following.advance(stopped=self.interrupted is not None)
        return following is not None

    def _turn(self, limit: float) -> None:
        """Wait for at most ``limit`` seconds, then do what became possible."""
        pump, lifecycle = self._pump, self._lifecycle
        wire, source, sink = pump.wire.fileno(), pump.source.fileno(), pump.sink.fileno()
        reads_wire, reads_source = pump.wants_wire_read, pump.wants_source
        wanted = {self._interrupts.fileno(): READ}
        if reads_source:
            if self._source_waitable:
                wanted[source] = READ
            else:
                limit = 0.0
        if reads_wire:
            wanted[wire] = READ
            if pump.wire.pending:
                limit = 0.0
        if pump.wants_wire_write:
            wanted[wire] = wanted.get(wire, 0) | WRITE
        if pump.wants_sink:
            wanted[sink] = wanted.get(sink, 0) | WRITE
        elif self._sink_is_pipe:
            # A pipe's writing end never becomes readable; but poll reports that its reader is gone.
            wanted.setdefault(sink, READ)
        if (descriptor := lifecycle.descriptor) is not None:
            wanted[descriptor] = READ
        events = self._waiter.wait(wanted, limit)
        if self._interrupts.fileno() in events:
            self.interrupted = self._interrupts.caught()
            return
        at_wire, at_sink = events.get(wire, 0), events.get(sink, 0)
        if at_wire & WRITE:
            pump.write_wire()
        if at_wire & READ or (reads_wire and pump.wire.pending):
            pump.read_wire()
        if at_sink:
            if pump.wants_sink:
                pump.write_sink()
            elif self._sink_is_pipe and not at_sink & WRITE:
                pump.sink_error = BrokenPipeError("closed by its reader")
        if reads_source and (source in events or not self._source_waitable):
            pump.read_source()
        pump.stream.settle()
        lifecycle.turn_ended(events)

    def _farewell(self) -> None:
        """Send what was read, and the last words, as far as the peer takes them in time."""
        pump = self._pump
        deadline = time.monotonic() + FAREWELL_LIMIT
        # What ssh wrote last may still be in the pipe; a terminal, though, would block an unprompted read.
        has_rest = self.interrupted is not None and pump.wants_source and self._source_waitable
        if has_rest and self._waiter.wait({pump.source.fileno(): READ}, 0):
            pump.read_source()
        self._lifecycle.say_last_words(clean=not self.interrupted)
        while pump.wants_wire_write and (left := deadline - time.monotonic()) > 0:
            if self._waiter.wait({pump.wire.fileno(): WRITE}, left):
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
            while (left := deadline - time.monotonic()) > 0:
                if self._waiter.wait({wire.fileno(): READ}, left) and wire.receive_into(space) == 0:
                    return
        except (OSError, ValueError):
            return  # it is closed already, by whichever end


class SessionNeverBegan(ConnectionLost):
    """There is no session that we could use, and nothing has come of the connection: dial anew.

    With ``without`` no session is to be asked for any more; ``sent`` is what was sent in vain then.
    """

    def __init__(self, cause: str, *, without: bool = False, sent: bytes = b"", **fields: object) -> None:
        super().__init__(cause, **fields)
        self.without = without
        self.sent = sent


def raise_local_failure(pump: Pump) -> None:
    """Raise what broke at this end, if anything did."""
    if pump.sink_error:
        raise pump.sink_error
    if pump.source_error:
        raise ConnectionLost("input", reason=pump.source_error.strerror or pump.source_error)


def loss_reason(pump: Pump, close: Close | None = None) -> str:
    """Return how a connection was lost, with what the peer's ``close`` said if there was one."""
    if close is not None:
        code = "without a code" if close.code == NO_CODE else f"with code {close.code}"
        return f"it was closed {code}" + (f": {close.reason}" if close.reason else "")
    error = pump.wire_error
    return (error.strerror or str(error)) if error else "the peer hung up without a Close frame"
