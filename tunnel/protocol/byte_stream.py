"""The interface of every stream.

    source ──▶ stream ──▶ wire         the wire is the WebSocket connection to the peer
    sink   ◀── stream ◀── wire         source and sink are the local end

A stream does no I/O and calls nobody. `tunnel.net.pump` asks it where to read into and what to write next, and reports
how many bytes went. The drivers of the pump (`tunnel.client.relay`, `tunnel.server.relay`) tell it the time. When a
tunnel begins, how it ends and what happens when its connection is lost is not part of this interface: the lifecycle of
each kind of tunnel decides that, and knows its own kind of stream.

``now`` is the driver's monotonic clock, in seconds.

This module is imported for type checking only, as `typing` takes too long to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.protocol.frames import Buffer


class ByteStream(Protocol):
    """One end of a tunnel's byte stream; see the module's text. No method raises, except when it is misused."""

    # ---- source → wire

    @property
    def wants_source(self) -> bool:
        """Whether the source should be read."""

    def source_space(self) -> memoryview:
        """Return the space to read the source into; valid until `source_received`."""

    def source_received(self, n: int, now: float) -> None:
        """Take the ``n`` bytes (at least 1) of the source that stand in `source_space`."""

    @property
    def wants_wire_write(self) -> bool:
        """Whether bytes wait for the wire."""

    def wire_output(self) -> Sequence[Buffer]:
        """Return what to write to the wire next; empty when there is nothing."""

    def wire_sent(self, n: int, now: float) -> None:
        """Note that the wire took the first ``n`` bytes of `wire_output`."""

    def wire_write_failed(self) -> None:
        """Note that the wire takes nothing any more. Reading may go on."""

    # ---- wire → sink

    @property
    def wants_wire_read(self) -> bool:
        """Whether the wire should be read."""

    def wire_space(self) -> memoryview:
        """Return the space to read the wire into; valid until `wire_received`."""

    def wire_received(self, n: int, now: float) -> int:
        """Take the ``n`` bytes (at least 1) of the wire that stand in `wire_space`; return how many were used.

        The rest must come again in a later turn, before anything else. This way no peer keeps the others waiting; see
        `tunnel.protocol.frame_budget`.
        """

    def wire_ended(self) -> None:
        """Note that reading the wire met its end of file, or an error."""

    @property
    def wants_sink_write(self) -> bool:
        """Whether bytes wait for the sink."""

    def sink_output(self) -> Sequence[Buffer]:
        """Return what to write to the sink next; empty when there is nothing."""

    def sink_sent(self, n: int, now: float) -> None:
        """Note that the sink took the first ``n`` bytes of `sink_output`."""

    def sink_failed(self, now: float) -> None:
        """Note that the sink takes nothing any more. What still comes is counted and discarded."""

    # ---- time

    def settle(self) -> None:
        """Copy what is still in the read buffers, before another stream uses them. To be called after each turn."""

    def next_tick(self, now: float) -> float:
        """Return in how many seconds `tick` is to be called; infinite if it need not be."""

    def tick(self, now: float) -> None:
        """Check the limits that depend on time."""
