"""The data plane of both ends: moves bytes between the wire and the local end, through a stream.

    source ──read──▶ stream ──frames──▶ wire
    sink ◀─payload── stream ◀──read──── wire

The pump never waits. Its driver (`tunnel.client.relay`, `tunnel.server.relay`) waits until a step that the pump wants
is possible, calls it, and asks again. Each step that reads also tries to write at once, so that bytes usually pass in
one turn, and wait only if the other side does not accept them yet.
"""

from __future__ import annotations

import time

from tunnel.protocol.read_buffers import FRAME_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from tunnel.net.channel import Channel
    from tunnel.net.splice_source import SourceSplice
    from tunnel.protocol.byte_stream import ByteStream
    from tunnel.protocol.frames import Buffer

    class Source(Protocol):
        """What is read at the local end; see `Channel.receive_into`."""

        def fileno(self) -> int: ...
        def receive_into(self, space: memoryview) -> int | None: ...

    class Sink(Protocol):
        """What is written at the local end; see `Channel.send`."""

        def fileno(self) -> int: ...
        def send(self, pieces: Sequence[Buffer]) -> int: ...


# Seconds after an event until a driver lets the stream check the clock. Nothing is due sooner (an ack is due first), so
# a turn need not ask for the exact time.
NEXT_LOOK = 0.1
LARGE_READ = 16 * 1024  # bytes; a socket that repeatedly gives at least this is busy (`tunnel.net.batches`)


class Pump:
    """Moves the bytes of one tunnel; see the module. ``wire`` and ``stream`` may be replaced between two turns.

    ``to_wire`` and ``to_sink`` count the stream's bytes that were read from the source and taken by the sink. The
    errors that ended a side are kept in ``wire_error``, ``source_error`` and ``sink_error``. ``splice`` is what reads
    the source and writes to the wire at the moment, if the driver does not want that to be copied.
    """

    __slots__ = (
        "sink",
        "sink_error",
        "source",
        "source_error",
        "source_is_over",
        "splice",
        "stream",
        "to_sink",
        "to_wire",
        "wire",
        "wire_error",
    )

    def __init__(self, wire: Channel, source: Source, sink: Sink, stream: ByteStream) -> None:
        self.wire = wire
        self.source = source
        self.sink = sink
        self.stream = stream
        self.splice: SourceSplice | None = None
        self.to_wire = 0
        self.to_sink = 0
        self.source_is_over = False
        self.wire_error: OSError | None = None
        self.source_error: OSError | None = None
        self.sink_error: OSError | None = None

    @property
    def wants_source(self) -> bool:
        """Whether `read_source` should be called once the source is readable."""
        if self.source_is_over:
            return False
        return self.stream.wants_source if self.splice is None else self.stream.may_pass_source() != 0

    @property
    def wants_wire_read(self) -> bool:
        """Whether `read_wire` should be called once the wire is readable or ``wire.pending``."""
        return self.stream.wants_wire_read

    @property
    def wants_wire_write(self) -> bool:
        """Whether `write_wire` should be called once the wire is writable."""
        return self.stream.wants_wire_write

    @property
    def wants_sink(self) -> bool:
        """Whether `write_sink` should be called once the sink is writable."""
        return self.stream.wants_sink_write

    def read_source(self) -> int:
        """Read the source once, and write to the wire. Return the number of bytes read."""
        if not self.wants_source:
            return 0
        space = self.stream.source_space()
        if not space:
            return 0  # out of memory; `wants_source` says when to try again
        try:
            n = self.source.receive_into(space)
        except OSError as exc:
            self.source_error = exc
            self.source_is_over = True
            return 0
        if n is None:
            return 0
        if n == 0:
            self.source_is_over = True
            return 0
        self.to_wire += n
        now = time.monotonic()
        self.stream.source_received(n, now)
        self.write_wire(now)
        return n

    def write_wire(self, now: float | None = None) -> None:
        """Write to the wire what is queued for it; ``now``, if the caller knows the time."""
        stream = self.stream
        if not stream.wants_wire_write:
            return
        try:
            output: Any = stream.wire_output()  # it has other pieces than bytes only for the splice
            n = self.wire.send(output) if self.splice is None else self.splice.send(output)
        except OSError as exc:
            self.wire_error = self.wire_error or exc
            stream.wire_write_failed()
        else:
            if n:
                stream.wire_sent(n, time.monotonic() if now is None else now)

    def read_wire(self, limit: int = FRAME_LIMIT) -> int:
        """Read the wire once, at most ``limit`` bytes; write the payload to the sink, and send answers.

        Return the number of bytes read.
        """
        stream = self.stream
        if not stream.wants_wire_read:
            return 0
        space = stream.wire_space()[:limit]
        try:
            n = self.wire.receive_into(space)
        except OSError as exc:
            self.wire_error = self.wire_error or exc
            stream.wire_ended()
            return 0
        if n is None:
            return 0
        if n == 0:
            stream.wire_ended()
            return 0
        now = time.monotonic()
        used = stream.wire_received(n, now)
        if used < n:
            self.wire.put_back(space[used:n])
        self.write_sink(now)
        self.write_wire(now)
        return n

    def passed(self, n: int) -> None:
        """Note that ``n`` bytes of payload went directly from the wire to the sink; send answers."""
        self.to_sink += n
        now = time.monotonic()
        self.stream.passed(n, now)
        self.write_wire(now)

    def write_sink(self, now: float | None = None) -> None:
        """Write to the sink what is queued for it; ``now``, if the caller knows the time."""
        stream = self.stream
        if not stream.wants_sink_write:
            return
        try:
            n = self.sink.send(stream.sink_output())
        except OSError as exc:
            self.sink_error = exc
            stream.sink_failed(time.monotonic() if now is None else now)
        else:
            self.to_sink += n
            if n:
                stream.sink_sent(n, time.monotonic() if now is None else now)
