"""The interface of every stream.

    source ──▶ stream ──▶ wire         the wire is the WebSocket connection to the peer
    sink   ◀── stream ◀── wire         source and sink are the local end

A stream does no I/O. `tunnel.net.pump` asks it where to read into and what to write next, and reports how many bytes
were read and written. The drivers of the pump (`tunnel.client.relay`, `tunnel.server.relay`) pass in the time. The
beginning and the end of a tunnel, and the loss of its connection, are not part of this interface: the lifecycle of each
kind of tunnel handles them, and knows its kind of stream.

``now`` is the driver's monotonic clock, in seconds.

This module is imported for type checking only, as `typing` takes too long to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tunnel.protocol.frames import Buffer, FrameParser
    from tunnel.protocol.replay import Kept


class ByteStream(Protocol):
    """One end of a tunnel's byte stream; see the module. The methods raise only when they are misused."""

    # ---- source → wire

    keeps: bool  # whether it keeps what it sends until the peer has acknowledged it

    @property
    def wants_source(self) -> bool:
        """Whether the source should be read."""

    def source_space(self) -> memoryview:
        """Return the space to read the source into; valid until `source_received`."""

    def source_received(self, n: int, now: float) -> None:
        """Take the ``n`` bytes (at least 1) of the source that are in `source_space`."""

    def may_pass_source(self) -> int | None:
        """Return how many bytes of the source may go to the wire directly now; None if they must be copied.

        0 means that this must wait for the wire or the peer.
        """

    def source_passed(self, n: int, kept: Kept | None, now: float) -> None:
        """Note that the next ``n`` bytes of the source go to the wire directly: they become `InKernel` pieces.

        A stream that ``keeps`` what it sends has them in ``kept``.
        """

    def take_back(self, receive_into: Callable[[memoryview], int], unsent: int) -> None:
        """Send bytes instead of the `InKernel` pieces that are left, and copy what is kept outside.

        ``receive_into`` gives the next bytes of these pieces, and then ``unsent`` further bytes of the source.
        """

    @property
    def wants_wire_write(self) -> bool:
        """Whether bytes wait for the wire."""

    def wire_output(self) -> Sequence[Buffer]:
        """Return what to write to the wire next; empty when there is nothing.

        A driver that has passed bytes of the source also gets `InKernel` pieces.
        """

    def wire_sent(self, n: int, now: float) -> None:
        """Note that the first ``n`` bytes of `wire_output` were written."""

    def wire_write_failed(self) -> None:
        """Note that the wire cannot be written any more. It may still be read."""

    # ---- wire → sink

    @property
    def wants_wire_read(self) -> bool:
        """Whether the wire should be read."""

    def wire_space(self) -> memoryview:
        """Return the space to read the wire into; valid until `wire_received`."""

    def wire_received(self, n: int, now: float) -> int:
        """Take the ``n`` bytes (at least 1) of the wire that are in `wire_space`; return how many were used.

        The rest must be passed again in a later turn, before anything else. So no peer keeps the others waiting; see
        `tunnel.protocol.frame_budget`.
        """

    @property
    def parser(self) -> FrameParser:
        """The parser of the wire, which knows the current frame."""

    def may_pass(self, n: int) -> bool:
        """Return whether the next ``n`` bytes of the wire, within the parser's `opaque`, may go to the sink directly.

        They bypass this stream, and follow what `release` releases.
        """

    def release(self) -> None:
        """Release the bytes of an incomplete frame that were held back, because the rest has arrived now."""

    def passed(self, n: int, now: float) -> None:
        """Note that the next ``n`` bytes of the wire went to the sink directly."""

    def wire_ended(self) -> None:
        """Note EOF, or an error, when reading the wire."""

    @property
    def wants_sink_write(self) -> bool:
        """Whether bytes wait for the sink."""

    def sink_output(self) -> Sequence[Buffer]:
        """Return what to write to the sink next; empty when there is nothing."""

    def sink_sent(self, n: int, now: float) -> None:
        """Note that the first ``n`` bytes of `sink_output` were written."""

    def sink_failed(self, now: float) -> None:
        """Note that the sink cannot be written any more. Further payload is counted and discarded."""

    # ---- time

    def settle(self) -> None:
        """Copy data that is still in the read buffers, before another stream uses them. Call this after each turn."""

    def next_tick(self, now: float) -> float:
        """Return the seconds until `tick` must be called; infinity if it need not be."""

    def tick(self, now: float) -> None:
        """Check the limits that depend on time."""
