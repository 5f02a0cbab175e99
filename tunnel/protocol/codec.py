"""The form of the messages of a plain stream.

A plain stream passes the source's bytes to its codec, which queues messages, and each piece of a received message,
from which the codec extracts the sink's bytes. A codec may also end a direction after a number of messages, and knows
how the end of a direction is sent. The default codec sends bytes; `tunnel.websocat.messages` has lines of text.
"""

from __future__ import annotations

from tunnel.protocol.frames import NORMAL
from tunnel.protocol.read_buffers import FRAME_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from tunnel.protocol.frames import Buffer, Payload
    from tunnel.protocol.outbox import Outbox

    class Codec(Protocol):
        """The codec of one stream; see the module.

        ``read_limit``: most bytes of the source that it takes at once. ``sent_all`` and ``received_all``: whether no
        further message may go to the wire, or to the sink. ``closes``: whether a Close follows the end of the source,
        with ``close_code`` and ``close_reason``. ``ends_together``: whether the end of one direction also ends the
        other one. ``tick_limit``: how often to call `is_overdue`, in seconds. ``remark``: a line for the user about
        what it did, or empty.
        """

        @property
        def read_limit(self) -> int: ...
        @property
        def sent_all(self) -> bool: ...
        @property
        def received_all(self) -> bool: ...
        @property
        def closes(self) -> bool: ...
        @property
        def close_code(self) -> int: ...
        @property
        def close_reason(self) -> str: ...
        @property
        def ends_together(self) -> bool: ...
        @property
        def tick_limit(self) -> float: ...
        @property
        def remark(self) -> str: ...

        def encode(self, chunk: memoryview, start: int, end: int, outbox: Outbox) -> bool:
            """Queue messages of ``chunk[start:end]``; return whether more may follow, as ``sent_all`` says.

            The `MAX_HEADER` bytes before it may be overwritten.
            """

        def flush(self, outbox: Outbox) -> None:
            """Queue the rest at the end of the source."""

        def decode(self, event: Payload, sink: list[Buffer]) -> None:
            """Append the sink's bytes of a piece of a message to ``sink``; never an empty piece."""

        def is_overdue(self, now: float, *, sending: bool, closed: bool, source_at: float, heard_at: float) -> bool:
            """Return whether to stop waiting for a missing end.

            ``sending``: the source has not ended. ``closed``: the peer's Close has arrived. ``source_at`` is when the
            source had data last, or the Close arrived; ``heard_at`` when something was received last.
            """


class BinaryCodec:
    """Each read of the source becomes one binary message; the payload of every message goes to the sink."""

    __slots__ = ()

    read_limit = FRAME_LIMIT
    sent_all = received_all = False
    closes = True
    close_code = NORMAL
    close_reason = ""
    ends_together = False
    tick_limit = float("inf")
    remark = ""

    def encode(self, chunk: memoryview, start: int, end: int, outbox: Outbox) -> bool:
        outbox.add_data(chunk, start, end)
        return True

    def flush(self, outbox: Outbox) -> None:
        """Do nothing: there is no rest."""

    def decode(self, event: Payload, sink: list[Buffer]) -> None:
        if event.data:
            sink.append(event.data)

    def is_overdue(self, now: float, *, sending: bool, closed: bool, source_at: float, heard_at: float) -> bool:
        return False


BINARY_CODEC = BinaryCodec()  # it has no state, so all streams share it
