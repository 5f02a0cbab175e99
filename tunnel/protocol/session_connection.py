"""The state of one WebSocket connection of a session, which is lost with the connection."""

from __future__ import annotations

from tunnel.protocol.control import ControlReader
from tunnel.protocol.frames import NORMAL, PING, TEXT, FrameParser
from tunnel.protocol.liveness import Liveness
from tunnel.protocol.outbox import Outbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunnel.errors import RemoteProtocolError
    from tunnel.protocol.frames import Close


class SessionConnection:
    """A connection that began at ``now``; the other arguments are as for `ResumableStream`.

    ``is_over``: nothing more can be received; the stream is detached after that. The reason is in ``close_frame`` (a
    Close of the peer or an edge), ``violation`` (the bytes were not frames) or ``is_silent`` (nothing was received for
    too long). ``is_deaf``: the wire cannot be written any more. ``was_heard``: anything was received.
    """

    __slots__ = (
        "close_frame", "control", "is_deaf", "is_over", "is_silent", "lines", "liveness", "outbox", "parser",
        "violation", "was_heard",
    )  # fmt: skip

    def __init__(self, now: float, *, client: bool, ping_interval: float, ping_timeout: float, preamble: bytes) -> None:
        self.is_over = False
        self.is_deaf = False
        self.is_silent = False
        self.was_heard = False
        self.close_frame: Close | None = None
        self.violation: RemoteProtocolError | None = None
        self.parser = FrameParser(masked=not client)
        self.outbox = Outbox(masks=client, preamble=preamble)
        self.lines = ControlReader()
        self.liveness = Liveness(now, ping_interval, ping_timeout)
        self.control: list[str] = []  # lines to send before the next data

    # ---- writing

    def say(self, line: str) -> None:
        """Queue a control line, to be sent before the next data."""
        self.control.append(line)

    def frame_lines(self, lines: Iterable[str] = ()) -> None:
        """Frame the queued control lines, and ``lines`` after them."""
        if self.control:
            lines = [*self.control, *lines]
            self.control.clear()
        for line in lines:
            self.outbox.add(TEXT, line.encode("ascii"))

    def say_last_words(self, lines: Iterable[str], close_code: int = NORMAL) -> None:
        """Queue ``lines`` and a Close, unless the connection is over."""
        if self.is_over:
            self.control.clear()
        else:
            self.frame_lines(lines)
            self.outbox.add_close(close_code)

    def write_failed(self) -> None:
        """Note that the wire cannot be written any more. What the peer has sent must still be read."""
        self._stop_writing()
        self.is_deaf = True

    def _stop_writing(self) -> None:
        self.outbox.clear()
        self.control.clear()

    # ---- reading

    def end(self) -> None:
        """Note that nothing more is received, and that nothing more need be sent."""
        self.is_over = True
        self._stop_writing()

    # ---- time

    def tick(self, now: float, *, waiting: bool) -> bool:
        """Ping, or declare the connection dead; return whether to request an ack.

        ``waiting``: whether the peer must send us something.
        """
        action = self.liveness.check(now, waiting=waiting)
        if action == "dead":
            self.is_silent = True
            self.end()
        elif action == "ping" and not self.outbox.pieces:
            self.outbox.add(PING, b"")
        return action == "request-ack"
