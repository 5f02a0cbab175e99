"""The relay: drives the pump between standard input and output and the wire, until one of them ends.

This is the one way that data flows at the client's end. It waits with a selector in a single thread, because an SSL
object must not be used by two.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time

from tunnel.net.pump import Pump
from tunnel.protocol.errors import ConnectionLost
from tunnel.protocol.frames import GOING_AWAY, INTERNAL_ERROR, NO_CODE, NORMAL, TARGET_LOST, TARGET_REFUSED_DATA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tunnel.client.stdio import StandardInput, StandardOutput, ThreadedInput
    from tunnel.net.channel import Channel
    from tunnel.protocol.stream import PlainStream

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# After a signal, or once standard output is closed: what was read is still sent, for this many seconds at most.
FAREWELL_LIMIT = 2.0


class Relay:
    """One run of the ProxyCommand over an open connection."""

    def __init__(
        self, wire: Channel, source: StandardInput | ThreadedInput, sink: StandardOutput, stream: PlainStream
    ) -> None:
        self._pump = Pump(wire, source, sink, stream)
        self._stream = stream
        self._sink_is_pipe = sink.is_pipe
        self._source_waitable = source.waitable
        # poll, unlike epoll, takes files and devices too, and needs no system call when the interest changes.
        self._selector = selectors.PollSelector() if sys.platform == "linux" else selectors.SelectSelector()
        self._registered: dict[int, int] = {}
        self._signals = _SignalPipe()
        self.signal: int | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """Bytes of standard input that were sent, and bytes that standard output took."""
        return self._pump.to_wire, self._pump.to_sink

    def run(self) -> None:
        """Move bytes until the tunnel ends; return if all went as it should.

        Raises ConnectionLost when the connection broke or the peer ended it for a reason, BrokenPipeError when
        standard output is closed. A signal that ended it is in ``signal``.
        """
        with self._signals:
            self._signals.watch(signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
            try:
                self._relay()
                self._farewell()
            finally:
                self._selector.close()
        self._raise_failure()

    def _relay(self) -> None:
        """Move bytes until both directions have ended, or something ends both."""
        pump, stream = self._pump, self._stream
        tick = stream.keepalive.tick
        tick_at = time.monotonic() + tick
        while True:
            if pump.source_is_over or stream.sink_ended:
                # Behind the end of our input nothing follows; behind the peer's Close nothing we send has a reader.
                if pump.source_error:
                    stream.close(INTERNAL_ERROR, "the input broke off")
                stream.source_ended()
                pump.write_wire()
            if stream.failure or pump.sink_error or self.signal:
                return
            if stream.sink_ended and (stream.close_sent or stream.wire_is_over):
                return
            self._turn(tick_at - time.monotonic())
            now = time.monotonic()
            if now >= tick_at:
                stream.tick(now)
                pump.write_wire()
                tick_at = now + tick

    def _turn(self, limit: float) -> None:
        """Wait for at most ``limit`` seconds, then do what became possible."""
        pump = self._pump
        wanted = self._wanted()
        ready_now = (pump.wants_wire_read and pump.wire.pending) or (pump.wants_source and not self._source_waitable)
        self._register(wanted)
        events = {key.fd: mask for key, mask in self._selector.select(0 if ready_now else max(0.0, limit))}
        if self._signals.fileno() in events:
            self.signal = self._signals.caught()
            return
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
        self._stream.settle()

    def _wanted(self) -> dict[int, int]:
        """Return what to wait for: descriptor → events."""
        pump = self._pump
        wanted = {self._signals.fileno(): READ}
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
        """Send what was read, and a Close, as far as the peer takes it in time; then hang up."""
        pump, stream = self._pump, self._stream
        deadline = time.monotonic() + FAREWELL_LIMIT
        if self.signal and pump.wants_source and self._source_waitable:
            # What ssh wrote last may still be in the pipe; a terminal, though, would block an unprompted read.
            self._register({pump.source.fileno(): READ})
            if self._selector.select(0):
                pump.read_source()
        stream.close(GOING_AWAY if self.signal and exit_code_for_signal(self.signal) else NORMAL)
        while stream.wants_wire_write and (left := deadline - time.monotonic()) > 0:
            self._register({pump.wire.fileno(): WRITE})
            if self._selector.select(left):
                pump.write_wire()
        pump.wire.close()

    def _raise_failure(self) -> None:
        pump, stream = self._pump, self._stream
        if self.signal:
            return
        if stream.failure:
            raise stream.failure
        if pump.sink_error:
            raise pump.sink_error
        if pump.source_error:
            raise ConnectionLost("input", reason=pump.source_error.strerror or pump.source_error)
        if stream.close_received:
            _raise_close(stream.close_code, stream.close_reason)
        else:
            reason = pump.wire_error.strerror if pump.wire_error else "the peer hung up without a Close frame"
            raise ConnectionLost("lost", reason=reason)


def _raise_close(code: int, reason: str) -> None:
    """Raise what the peer's Close stands for, unless it stands for success."""
    said = f": {reason}" if reason else ""
    if code == GOING_AWAY:
        raise ConnectionLost("going-away", reason=said)
    if code == TARGET_LOST:
        raise ConnectionLost("target-lost", reason=said)
    if code == TARGET_REFUSED_DATA:
        raise ConnectionLost("undelivered", reason=said)
    if code not in (NORMAL, NO_CODE):
        raise ConnectionLost("closed", code=code, reason=said)


class _SignalPipe:
    """Turns signals into bytes that a selector can wait for; a handler alone would not end the wait."""

    def __init__(self) -> None:
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> _SignalPipe:
        import socket

        # A socket pair, because Windows' wake-up descriptor must be a socket.
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def watch(self, *numbers: int) -> None:
        for number in numbers:
            self._previous[number] = signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        return self._reader.fileno()

    def caught(self) -> int:
        """Return the number of the signal that came first."""
        return self._reader.recv(1)[0]

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()


def exit_code_for_signal(number: int) -> int:
    """Return the exit code after a signal: SIGHUP is how ssh ends its ProxyCommand, so that is success."""
    return 0 if number == getattr(signal, "SIGHUP", None) else 128 + number


def discard_standard_output() -> None:
    """Point descriptor 1 to the null device, so that the interpreter's last flush cannot fail on a closed pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
