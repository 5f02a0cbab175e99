"""The lifecycle of a plain tunnel at the client: it begins and ends with its connection.

Where a session was asked for, the bridge's first message may still turn it into a resumable tunnel, which has a
lifecycle of its own.
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

    # Makes the lifecycle that goes on with a session: from the offer, what is still to be sent, and what was sent.
    BeginSession = Callable[[SessionOffer, Outbox, bytes], Lifecycle]


class PlainLifecycle:
    """See `tunnel.client.relay.Lifecycle`; ``begin_session`` makes what takes over when there is a session."""

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
        if (pump.source_is_over and not stream.may_get_session) or stream.sink_ended:
            # Behind the end of our input nothing follows; behind the peer's Close nothing we send has a reader.
            if pump.source_error:
                stream.close(INTERNAL_ERROR, "the input broke off")
            stream.source_ended()
            pump.write_wire()
        is_over = stream.failure or pump.sink_error or stopped or stream.complete
        return None if is_over else self

    def limit_wait(self, seconds: float) -> float:
        return seconds

    def turn_ended(self, readable: Container[int]) -> None:
        """Do nothing: all there is to do is done in `advance`."""

    def say_last_words(self, *, clean: bool) -> None:
        if self.stream.has_session:
            self.stream.leave_session()
        self.stream.close(NORMAL if clean else GOING_AWAY)

    def raise_failure(self) -> None:
        stream = self.stream
        if stream.beginning is not None and stream.has_session:
            raise SessionNeverBegan(
                "lost", without=True, sent=stream.beginning.sent, reason="an edge makes data of the session's lines"
            )
        if stream.failure:
            raise stream.failure
        raise_local_failure(self._pump)
        if not stream.close_received:
            raise ConnectionLost("lost", reason=loss_reason(self._pump))
        _raise_close(stream.close_code, stream.close_reason)

    def close(self) -> None:
        del self._begin_session  # which may refer to whoever holds this, so that neither would be freed soon


def _raise_close(code: int, reason: str) -> None:
    """Raise what the peer's Close stands for, unless it stands for success."""
    said = f": {reason}" if reason else ""
    if code == GOING_AWAY:
        raise ConnectionLost("going-away", reason=said)
    if code == TARGET_LOST:
        raise ConnectionLost("target-lost", reason=said)
    if code == TARGET_REFUSED_DATA:
        raise ConnectionLost("undelivered", reason=said)
    if code == TOO_BIG:
        raise ConnectionLost("too-big", reason=said)
    if code not in (NORMAL, NO_CODE):
        raise ConnectionLost("closed", code=code, reason=said)
