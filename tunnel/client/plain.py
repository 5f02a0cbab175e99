"""The lifecycle of a plain tunnel at the client: it begins and ends with its connection.

If the client has asked for a session, the bridge's first message may still turn the tunnel into one. The session then
has its own lifecycle.
"""

from __future__ import annotations

import time

from tunnel.client.relay import SessionNeverBegan, loss_reason, raise_local_failure
from tunnel.errors import ConnectionLost
from tunnel.protocol.frames import (
    GOING_AWAY,
    INTERNAL_ERROR,
    NO_CODE,
    NORMAL,
    SERVICE_RESTART,
    SILENT_PEER,
    TARGET_LOST,
    TARGET_REFUSED_DATA,
    TOO_BIG,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from tunnel.client.relay import Lifecycle
    from tunnel.net.pump import Pump
    from tunnel.protocol.control import SessionOffer
    from tunnel.protocol.outbox import Outbox
    from tunnel.protocol.plain_stream import PlainStream

    # Makes the lifecycle of the session from the offer, what is still to be sent, and what was sent.
    BeginSession = Callable[[SessionOffer, Outbox, bytes], Lifecycle]


class PlainLifecycle:
    """See `tunnel.client.relay.Lifecycle`; ``begin_session`` makes the successor if there is a session after all."""

    descriptor = None

    def __init__(self, stream: PlainStream, begin_session: BeginSession) -> None:
        self.stream = stream
        self._begin_session = begin_session

    def start(self, pump: Pump) -> None:
        self._pump = pump

    def advance(self, *, stopped: bool) -> Lifecycle | None:
        pump, stream = self._pump, self.stream
        beginning = stream.beginning
        if beginning is not None:
            if beginning.offer is not None:
                return self._begin_session(beginning.offer, stream.take_outbox(), beginning.sent)
            if beginning.decided:
                return None
            if pump.source_is_over:
                beginning.source_ended(time.monotonic())
        has_ended = (pump.source_is_over and not stream.may_get_session) or stream.sink_ended
        if has_ended:
            # Nothing follows the end of our input, and after the peer's Close nobody reads what we send.
            if pump.source_error:
                stream.close(INTERNAL_ERROR, "the input broke off")
            stream.source_ended()
            pump.write_wire()
        is_over = stream.failure or pump.sink_error or stopped or (has_ended and stream.complete)
        return None if is_over else self

    def limit_wait(self, seconds: float) -> float:
        return seconds

    def turn_ended(self, readable: Container[int], now: float) -> None:
        """Do nothing: `advance` does everything."""

    def say_last_words(self, *, clean: bool) -> None:
        if self.stream.has_session:
            self.stream.leave_session()
        self.stream.close(NORMAL if clean else GOING_AWAY)

    def raise_failure(self) -> None:
        stream = self.stream
        if stream.beginning is not None and stream.has_session:
            raise SessionNeverBegan(
                "lost",
                without=True,
                sent=stream.beginning.sent,
                reason="an edge turned the session's control lines into data",
            )
        if stream.failure:
            raise stream.failure
        raise_local_failure(self._pump)
        if not stream.close_received:
            raise ConnectionLost("lost", reason=loss_reason(self._pump))
        _raise_close(stream.close_code, stream.close_reason)

    def close(self) -> None:
        del self._begin_session  # breaks a reference cycle with the owner of this object


def _raise_close(code: int, reason: str) -> None:
    """Raise the error for the peer's Close, unless that is success."""
    said = f": {reason}" if reason else ""
    if code in (GOING_AWAY, SERVICE_RESTART):
        raise ConnectionLost("going-away", reason=said)
    if code == TARGET_LOST:
        raise ConnectionLost("target-lost", reason=said)
    if code == TARGET_REFUSED_DATA:
        raise ConnectionLost("undelivered", reason=said)
    if code == SILENT_PEER:
        raise ConnectionLost("time-limit", reason=said)
    if code == TOO_BIG:
        raise ConnectionLost("too-big", reason=said)
    if code not in (NORMAL, NO_CODE):
        raise ConnectionLost("closed", code=code, reason=said)
