"""One terminal's output over as many connections as it takes, without I/O.

A face opens a connection with `TerminalStream.call`, feeds what comes, and takes the output. When the connection breaks
it says so and is told how long to wait before the next one, which begins at the first byte that is missing:

    state    a connection begins with            when it breaks
    new      Start, or the user's Connect        unsure, if a Start may have arrived; else over: the dial failed
    unsure   Connect by the tag of that Start    unsure again, for `UNSURE_LIMIT`; not_found: over, it never arrived
    live     Connect from the offset reached     live again, until ``reconnect_for`` has passed since it broke
    over     none: `result` or `failure` is set

Output is never left out silently. Our service says at which offset a stream begins; if its scrollback no longer reaches
back to ours, or the service does not count (E2B's), a stream that is ``strict`` fails, another one queues a `Gap`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tunnel.errors import ConnectionLost, DialError, TunnelError
from tunnel.protocol.numbers import parse_decimal
from tunnel.protocol.upgrade import Response
from tunnel.pty.client import calls
from tunnel.pty.client.calls import Call, retry_delay
from tunnel.pty.client.model import Result
from tunnel.pty.protocol import framing, messages

KEEPALIVE = 15  # seconds of silence after which we ask the service for a sign of life
SILENCE = 40.0  # seconds of silence after which a connection counts as lost
UNSURE_LIMIT = 10.0  # seconds to find out whether a Start arrived
BEGIN_LIMIT = 40.0  # seconds from the request to the event that begins a stream, whatever else comes before
LATE = 5.0  # seconds that the service may be late with the end of its own time limit
REFUSALS = 3  # in a row end a stream: an edge that restarts may refuse once or twice
NEW, UNSURE, LIVE, OVER = "new", "unsure", "live", "over"


@dataclass(frozen=True)
class Gap:
    """Output that was lost with a connection: how many bytes, None if the service does not say."""

    missing: int | None

    def __str__(self) -> str:
        return "some" if self.missing is None else f"{self.missing} bytes"


class TerminalStream:
    """The output of one terminal. ``begin`` is a Start, with its ``tag``, or a Connect.

    ``timeout`` (seconds from ``now``, 0: none) is what the service is asked to keep, ``reconnect_for`` how long a
    broken connection is tried again. ``pid``, once known, is the process; ``result`` how it ended; ``offset`` how many
    bytes of output have come, from the terminal's first on if the service counts.
    """

    def __init__(
        self, begin: Call, *, endpoint: object, now: float, timeout: float = 0.0, reconnect_for: float = 60.0,
        tag: str | None = None, strict: bool = True,
    ) -> None:  # fmt: skip
        self.pid: int | None = None
        self.result: Result | None = None
        self.failure: TunnelError | None = None
        self.offset = 0
        self.counted = False
        self._begin = begin
        self._tag = tag
        self._endpoint = endpoint
        self._timeout = timeout
        self._deadline = now + timeout if timeout else None
        self._reconnect_for = reconnect_for
        self._strict = strict
        self._state = NEW
        self._process: str | None = None
        self._answer = Response(200, "", ())
        self._queue: deque[bytes | Gap] = deque()
        self._decoder = framing.Decoder()
        self._failures = 0  # in a row, to connect
        self._broke_at: float | None = None
        self._first_error: TunnelError | None = None
        self._reason: TunnelError | None = None
        self._refusals = 0
        self._called_at = now
        self._begun = False  # on this connection

    # ---- what the consumer sees

    @property
    def over(self) -> bool:
        """Whether nothing more will come, but what waits to be taken."""
        return self._state == OVER

    @property
    def broken(self) -> TunnelError | None:
        """Why there is no connection at the moment."""
        return self._first_error if self._broke_at is not None and not self.over else None

    def take(self) -> bytes | Gap | None:
        """Return the next piece of output, None if there is none now. Raises the failure behind the last piece."""
        if self._queue:
            return self._queue.popleft()
        if self.failure is not None:
            raise self.failure
        return None

    # ---- one connection

    def call(self, now: float) -> Call:
        """Return the call that opens the next connection."""
        call = self._begin
        if self._state == UNSURE and self._tag is not None:
            call = calls.connect(self._tag, replay_from=0)
        elif self._state == LIVE:
            replay_from = self.offset if self.counted else None
            call = calls.connect(self.pid or 0, replay_from=replay_from, process=self._process)
        self._decoder = framing.Decoder()
        self._called_at, self._begun = now, False
        fields = {messages.KEEPALIVE: str(KEEPALIVE)}
        if self._deadline is not None:
            fields[framing.TIMEOUT] = str(max(1, round((self._deadline - now) * 1000)))
        return call.with_fields(fields)

    def read_timeout(self, now: float) -> float:
        """Return how many seconds the next bytes may take."""
        return SILENCE if self._deadline is None else min(SILENCE, max(0.1, self._deadline + LATE - now))

    def overdue(self, now: float) -> TunnelError | None:
        """Return why a connection on which something always comes is given up all the same, None if it is not."""
        if not self._begun and now - self._called_at > BEGIN_LIMIT:
            return DialError("answer-timeout", hop=self._endpoint, seconds=BEGIN_LIMIT)
        # Output that came in time may be read late.
        if self._deadline is not None and now > self._deadline + LATE and not self._queue:
            return DialError("answer-timeout", hop=self._endpoint, seconds=self._timeout + LATE)
        return None

    def answered(self, answer: Response) -> bool:
        """Take in the head of the answer (of another than 200 its body, too); return whether a stream follows."""
        if answer.status != 200:
            self._fail(calls.error_of(answer, self._endpoint, self._begin.about))
            return False
        self._answer = answer
        return True

    def receive(self, data: bytes) -> bool:
        """Take in bytes of the stream; return whether more of this connection is to be read."""
        try:
            for envelope in self._decoder.feed(data):
                if self.over:
                    break
                if envelope.last:
                    self._stream_ended(framing.parse_end_of_stream(envelope.data))
                    return False
                self._event(messages.parse_event_message(framing.decode(envelope.data)))
        except framing.ConnectError as exc:
            self._end(calls.violation(self._endpoint, exc))
        return not self.over

    def broke(self, error: TunnelError, now: float, *, arrived: bool = True) -> float:
        """Take note that the connection failed or ended; return after how many seconds to open the next one.

        ``error`` is what the face saw; what the service itself said goes before it. ``arrived`` tells whether the
        request may have reached the service. The stream may be over with this: then there is no next one.
        """
        error, self._reason = self._reason or error, None
        if self.over:
            return 0.0
        if self._state == NEW and self._tag is not None and arrived:
            self._state = UNSURE
        if self._state == NEW or (self._state == LIVE and self._strict and not self.counted):
            self._end(error)
            return 0.0
        if self._broke_at is None:
            self._broke_at, self._first_error = now, error
        limit = self._reconnect_for if self._state == LIVE else min(UNSURE_LIMIT, self._reconnect_for)
        left = self._broke_at + limit - now
        if self._deadline is not None and now >= self._deadline:
            late = framing.ConnectError("deadline_exceeded", f"{self._timeout:g} s")
            self._end(calls.service_error(late, self._endpoint))
        elif left <= 0:
            self._end(ConnectionLost("pty-lost", place=self._endpoint, seconds=limit, reason=error))
        self._failures += 1
        return min(retry_delay(self._failures - 1), max(left, 0.0))

    # ---- inside

    def _event(self, event: messages.Event | None) -> None:
        if isinstance(event, messages.Started):
            self._align()
            self._begun = True
            self.pid = event.pid
            if not self.over:
                self._state = LIVE
            self._broke_at, self._refusals, self._failures = None, 0, 0
        elif isinstance(event, messages.Output):
            self.offset += len(event.data)
            if event.data:
                self._queue.append(event.data)
        elif isinstance(event, messages.Ended):
            self.result = Result.of(event)
            self._state = OVER

    def _align(self) -> None:
        """Compare where this connection begins with where the last one broke off."""
        offset = parse_decimal(self._answer.get(messages.OFFSET.lower()) or "")
        resumed = self._state in (UNSURE, LIVE)
        self.counted = offset is not None
        if offset is None:
            if resumed:
                self._miss(Gap(None))
            return
        if resumed and offset < self.offset:
            problem = framing.Malformed(f"it begins at {offset} instead of {self.offset}")
            self._end(calls.violation(self._endpoint, problem))
        elif resumed and offset > self.offset:
            self._miss(Gap(offset - self.offset))
        self.offset = offset
        self._process = self._answer.get(messages.PROCESS.lower())

    def _stream_ended(self, error: framing.ConnectError | None) -> None:
        if error is not None:
            self._fail(calls.service_error(error, self._endpoint, self.pid or self._begin.about))
        elif not self.over:
            self._reason = ConnectionLost("lost", reason="the stream ended before the terminal did")

    def _fail(self, error: TunnelError) -> None:
        """End with an error that the service or an edge told, or, if it may pass, let the face connect again."""
        if self.over:
            return
        if self._state == NEW:
            self._end(error)
        elif calls.is_unknown(error):
            # How a process ended is kept for a while only; a Start that never arrived left no process.
            gone = ConnectionLost("pty-gone", place=self._endpoint)
            self._end(gone if self._state == LIVE or self._first_error is None else self._first_error)
        elif calls.is_refusal(error):
            self._refusals += 1
            if self._refusals >= REFUSALS:
                self._end(error)
            self._reason = error
        elif calls.is_passing(error):
            self._reason = error
        else:
            self._end(error)

    def _miss(self, gap: Gap) -> None:
        if self._strict:
            self._end(ConnectionLost("pty-gap", place=self._endpoint, missing=gap))
        else:
            self._queue.append(gap)

    def _end(self, failure: TunnelError) -> None:
        self._state, self.failure = OVER, failure
