"""The client's relay: drives the pump between a local end and the wire, until the tunnel is over.

All data of the client flow this way, whatever the local end is: standard input and output for the ProxyCommand, a
socket elsewhere. The relay waits with a selector in a single thread, because two threads must not use one SSL object.

The relay only moves bytes. What differs between kinds of tunnel is a `Lifecycle`, which it holds: `tunnel.client.plain`
for tunnels that end with their connection, `tunnel.client.resumable` for those that outlive it. A lifecycle may hand
the tunnel over to another one, with another stream: the first message of the bridge may turn a plain tunnel into a
resumable one.
"""

from __future__ import annotations

import selectors
import sys
import time

from tunnel.errors import ConnectionLost
from tunnel.net.pump import Pump
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


READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

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
        # poll, unlike epoll, takes files and devices too, and needs no system call when the interest changes.
        # eventlet takes poll away from a program that it patches.
        has_poll = sys.platform == "linux" and hasattr(selectors, "PollSelector")
        self._selector = selectors.PollSelector() if has_poll else selectors.SelectSelector()
        self._registered: dict[int, int] = {}
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
            self._selector.close()
            self._pump.wire.close()
            self._lifecycle.close()
        if self.interrupted is None:
            self._lifecycle.raise_failure()

    def _relay(self) -> None:
        now = time.monotonic()
        tick_at = now + self._pump.stream.next_tick(now)
        while self._advance():
            stream = self._pump.stream
            now = time.monotonic()
            tick_at = min(tick_at, now + stream.next_tick(now))
            self._turn(self._lifecycle.limit_wait(max(0.0, tick_at - now)))
            now = time.monotonic()
            if now >= tick_at:
                stream.tick(now)
                self._pump.write_wire()
                tick_at = now + stream.next_tick(now)

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
        pump = self._pump
        wanted = self._wanted()
        ready_now = (pump.wants_wire_read and pump.wire.pending) or (pump.wants_source and not self._source_waitable)
        self._register(wanted)
        events = {key.fd: mask for key, mask in self._selector.select(0 if ready_now else min(limit, _LONGEST_WAIT))}
        if self._interrupts.fileno() in events:
            self.interrupted = self._interrupts.caught()
            return
        self._serve(events)
        pump.stream.settle()
        self._lifecycle.turn_ended(events)

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
        if (descriptor := self._lifecycle.descriptor) is not None:
            wanted[descriptor] = READ
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
        self._lifecycle.say_last_words(clean=not self.interrupted)
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


_LONGEST_WAIT = 3600.0  # seconds; a selector takes no infinite ones


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
