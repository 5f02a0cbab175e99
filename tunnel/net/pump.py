"""The data plane of both ends: moves bytes between the wire and the local end, through a stream.

    source ──read──▶ stream ──frames──▶ wire
    sink ◀─payload── stream ◀──read──── wire

The pump never waits. Its driver (`tunnel.client.relay`, `tunnel.server.relay`) waits until something that the pump
wants is possible, calls the step for it, and asks again what is wanted. Each step tries at once the write that its read
allows, so that bytes usually pass in one turn. Only what the other side does not take yet waits.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from tunnel.net.channel import Channel
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


# Seconds after which a driver lets the stream look at the clock again when anything has happened. Nothing that happens
# is due sooner (an ack is what is due first), so a turn need not ask when.
NEXT_LOOK = 0.1


class Pump:
    """Moves the bytes of one tunnel; see the module's text. ``wire`` and ``stream`` may be replaced between two turns.

    ``to_wire`` and ``to_sink`` count the stream's bytes that were read from the source and taken by the sink. The
    errors that ended a side are kept in ``wire_error``, ``source_error`` and ``sink_error``.
    """

    __slots__ = (
        "sink",
        "sink_error",
        "source",
        "source_error",
        "source_is_over",
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
        self.to_wire = 0
        self.to_sink = 0
        self.source_is_over = False
        self.wire_error: OSError | None = None
        self.source_error: OSError | None = None
        self.sink_error: OSError | None = None

    @property
    def wants_source(self) -> bool:
        """Whether `read_source` should be called once the source is readable."""
        return not self.source_is_over and self.stream.wants_source

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

    def read_source(self) -> None:
        """Read the source once, and write to the wire what came."""
        if not self.wants_source:
            return
        try:
            n = self.source.receive_into(self.stream.source_space())
        except OSError as exc:
            self.source_error = exc
            self.source_is_over = True
            return
        if n is None:
            return
        if n == 0:
            self.source_is_over = True
            return
        self.to_wire += n
        self.stream.source_received(n, time.monotonic())
        self.write_wire()

    def write_wire(self) -> None:
        """Write to the wire what waits for it."""
        if not self.stream.wants_wire_write:
            return
        try:
            n = self.wire.send(self.stream.wire_output())
        except OSError as exc:
            self.wire_error = self.wire_error or exc
            self.stream.wire_write_failed()
        else:
            if n:
                self.stream.wire_sent(n, time.monotonic())

    def read_wire(self) -> None:
        """Read the wire once, write to the sink what came, and answer what is to be answered."""
        if not self.wants_wire_read:
            return
        space = self.stream.wire_space()
        try:
            n = self.wire.receive_into(space)
        except OSError as exc:
            self.wire_error = self.wire_error or exc
            self.stream.wire_ended()
            return
        if n is None:
            return
        if n == 0:
            self.stream.wire_ended()
            return
        used = self.stream.wire_received(n, time.monotonic())
        if used < n:
            self.wire.put_back(space[used:n])
        self.write_sink()
        self.write_wire()

    def write_sink(self) -> None:
        """Write to the sink what waits for it."""
        if not self.stream.wants_sink_write:
            return
        try:
            n = self.sink.send(self.stream.sink_output())
        except OSError as exc:
            self.sink_error = exc
            self.stream.sink_failed(time.monotonic())
        else:
            self.to_sink += n
            if n:
                self.stream.sink_sent(n, time.monotonic())
