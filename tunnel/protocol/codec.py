"""What a message of a plain stream looks like.

A plain stream hands what the source gave to its codec, which queues messages, and hands each piece of a message that
came to the codec, which passes on what the sink is to get. A codec may also count messages and so end a direction, and
it knows what the end of a direction looks like on the wire. The default carries bytes; `tunnel.websocat.messages` has
lines of text.
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
        """The codec of one stream; see the module's text.

        ``read_limit``: bytes of the source that it takes at once, at most. ``sent_all`` and ``received_all``: whether
        no further message may go to the wire, or to the sink. ``closes``: whether a Close follows the end of the
        source, with ``close_code`` and ``close_reason``. ``ends_together``: whether the end of one direction is meant
        to end the other one, too. ``tick_limit``: how often `is_overdue` is to be asked, in seconds. ``remark`` is what
        a user should know of what it did, or empty.
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

            The `MAX_HEADER` bytes in front of it may be overwritten.
            """

        def flush(self, outbox: Outbox) -> None:
            """Queue what is left: the source has ended."""

        def decode(self, event: Payload, sink: list[Buffer]) -> None:
            """Append to ``sink`` what it gets of a piece of a message; never an empty piece."""

        def is_overdue(self, now: float, *, sending: bool, closed: bool, source_at: float, heard_at: float) -> bool:
            """Return whether an end that is missing is not waited for any longer.

            ``sending``: the source has not ended. ``closed``: the peer's Close has come. ``source_at`` is when the
            source spoke last, or the Close came; ``heard_at`` when the peer was heard last.
            """


class BinaryCodec:
    """Each read of the source becomes one binary message; the payload of every message is for the sink."""

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
        """Do nothing: nothing is held back."""

    def decode(self, event: Payload, sink: list[Buffer]) -> None:
        if event.data:
            sink.append(event.data)

    def is_overdue(self, now: float, *, sending: bool, closed: bool, source_at: float, heard_at: float) -> bool:
        return False


BINARY_CODEC = BinaryCodec()  # it has no state, so all streams share it
