"""One of the WebSocket connections that carry a session: all that is lost together with it, and nothing else."""

from __future__ import annotations

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.control import ControlReader
from tunnel.protocol.frame_budget import FRAMES_PER_TURN
from tunnel.protocol.frames import NORMAL, PING, TEXT, Close, FrameParser, Payload, Ping, Pong
from tunnel.protocol.liveness import Liveness
from tunnel.protocol.outbox import Outbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tunnel.protocol.session_state import SessionState


class SessionConnection:
    """A connection that began at ``now``; the other arguments are as for `ResumableStream`.

    ``is_over``: nothing more can come. It is not lost for good until the stream is detached. Why it is over is in
    ``close_frame`` (the peer's Close, or a hop's), ``violation`` (what came were no frames) and ``is_silent`` (nothing
    came for too long). ``is_deaf``: the wire takes nothing any more. ``was_heard``: anything came.
    """

    __slots__ = (
        "close_frame", "control", "is_deaf", "is_over", "is_silent", "lines", "liveness", "outbox", "parser",
        "violation", "was_heard",
    )  # fmt: skip

    def __init__(
        self, now: float, *, client: bool, ping_interval: float, ping_timeout: float, preamble: bytes = b""
    ) -> None:
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
        self.control: list[str] = []  # lines that go before the next data

    # ---- writing

    def say(self, line: str) -> None:
        """Queue a control line, which goes before the next data."""
        self.control.append(line)

    def frame_lines(self, lines: Iterable[str] = ()) -> None:
        """Frame the control lines that wait, and ``lines`` behind them."""
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
        """Note that the wire takes nothing any more. What the peer sent before it hung up is still to be read."""
        self._stop_writing()
        self.is_deaf = True

    def _stop_writing(self) -> None:
        self.outbox.clear()
        self.control.clear()

    # ---- reading

    def events(self, data: memoryview, session: SessionState) -> Iterator[Payload | Ping | Pong | Close]:
        """Yield what ``data`` are. Once there is a ``session``, what are no frames are a hop's doing.

        They break the connection only. Before, raises RemoteProtocolError.
        """
        try:
            yield from self.parser.feed(data, FRAMES_PER_TURN)
        except RemoteProtocolError as exc:
            if not session.established:  # asked now, as it may have begun with what came in front
                raise
            self.violation = exc
            self.is_over = True

    def end(self) -> None:
        """Note that nothing more comes, and that nothing more need be said."""
        self.is_over = True
        self._stop_writing()

    # ---- time

    def tick(self, now: float, *, waiting: bool) -> bool:
        """Ping, or declare the connection dead; return whether an ack is to be asked for.

        ``waiting``: whether the peer owes us something.
        """
        action = self.liveness.check(now, waiting=waiting)
        if action == "dead":
            self.is_silent = True
            self.end()
        elif action == "ping" and not self.outbox.pieces:
            self.outbox.add(PING, b"")
        return action == "request-ack"
