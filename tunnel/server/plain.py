"""The lifecycle of a plain tunnel at the bridge: it ends with its WebSocket connection."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from tunnel.errors import RemoteProtocolError
from tunnel.net.async_sockets import close_gently
from tunnel.net.channel import Channel
from tunnel.protocol.capture import capture_plain, restore_plain
from tunnel.protocol.frames import NO_CODE, NORMAL, TARGET_LOST, TARGET_REFUSED_DATA, TRY_AGAIN_LATER
from tunnel.server.relay import FAREWELL_LIMIT, UNHEARD, closed_by_client, gave_way, unsent

if TYPE_CHECKING:
    from tunnel.protocol.plain_stream import PlainStream
    from tunnel.restart.state import Kept, Tree
    from tunnel.server.relay import Relay


class PlainLifecycle:
    """See `tunnel.server.relay.Lifecycle`."""

    attached = True
    may_read_target = True
    may_splice = True

    def __init__(self, stream: PlainStream) -> None:
        self.stream = stream
        self._half_closed = False

    def start(self, relay: Relay) -> None:
        self._pump = relay.pump
        # It refers to this lifecycle: a reference cycle would keep the memory of both longer than needed.
        self._relay: Relay = weakref.proxy(relay)

    def give_way(self) -> None:
        """End the tunnel; without waiting for the client's Close if the client has sent nothing yet."""
        at_once = not self._relay.standing()
        self._relay.close(TRY_AGAIN_LATER, gave_way())
        if at_once:
            self._relay.stop()

    def end(self, code: int, reason: str) -> None:
        self.stream.close(code, reason)

    def stopped(self) -> None:
        """Do nothing: no other object knows this tunnel."""

    def capture(self, kept: Kept) -> Tree | None:
        wire = self._pump.wire
        if self.stream.failure or type(wire) is not Channel:
            return None  # the state of a TLS connection is not accessible
        return {
            "wire": kept.socket(wire.sock),
            "held": wire.held,
            "stream": capture_plain(self.stream),
            "half_closed": self._half_closed,
        }

    def restore(self, tree: Tree) -> None:
        """Restore the captured state, except for the wire."""
        restore_plain(self.stream, tree["stream"])
        self._half_closed = tree["half_closed"]

    async def part(self) -> None:
        if isinstance(self.stream.failure, RemoteProtocolError):
            await close_gently(self._pump.wire.sock, UNHEARD)
        # Otherwise the peer has closed, too, or is gone.

    def advance(self) -> bool:
        pump, stream = self._pump, self.stream
        has_ended = pump.source_is_over or stream.close_received or stream.wire_is_over
        if has_ended:
            self._pass_ends_on()
        pump.write_wire()
        return not ((has_ended or pump.sink_error) and self._is_over())

    def _pass_ends_on(self) -> None:
        pump, stream = self._pump, self.stream
        if stream.sink_ended and not self._half_closed:
            self._half_closed = True
            if self._clean:
                self._relay.half_close_target()
        if pump.source_is_over:
            self._end_stream()
        elif stream.close_received and not self._clean:
            stream.close(stream.close_code)

    def _end_stream(self) -> None:
        """Send the client a Close after the target's last bytes, which says how the target ended."""
        if self._pump.source_error:
            self.stream.close(TARGET_LOST, self._pump.source_error.strerror or "")
        elif self.stream.undelivered:
            self.stream.close(TARGET_REFUSED_DATA, f"{self.stream.undelivered} bytes")
        else:
            self.stream.source_ended()

    def _is_over(self) -> bool:
        pump, stream = self._pump, self.stream
        if stream.wants_sink_write:
            return False  # the target must still get what the client sent
        if stream.failure:
            self._relay.limit_farewell(FAREWELL_LIMIT)
            return not stream.wants_wire_write
        if stream.wire_is_over and not stream.close_received:
            return True
        if pump.wire_error and stream.close_received:
            return True  # nobody can read the rest any more
        return stream.close_sent and (stream.sink_ended or pump.sink_error is not None)

    @property
    def _clean(self) -> bool:
        """Whether the client's stream is complete: it ended with a Close that means success."""
        return self.stream.close_received and self.stream.close_code in (NORMAL, NO_CODE)

    def close(self) -> None:
        """Close the target's connection; after an incomplete stream with a reset, so that the target notices."""
        pump = self._pump
        broke_off = not (self._clean or pump.source_is_over or pump.sink_error)
        # A reset would discard what the target has not read yet.
        if broke_off and not self.stream.wants_sink_write and not unsent(self._relay.target):
            self._relay.target.abort()
        else:
            self._relay.target.close()

    def reason(self) -> str:
        pump, stream = self._pump, self.stream
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
        return "client closed the connection without a Close frame"
