"""One terminal's output over as many connections as it takes. Sans-I/O.

The caller opens a connection with `TerminalStream.call`, feeds the bytes that arrive, and takes the output. When the
connection breaks, the caller reports it and learns how long to wait before the next one, which starts at the first
missing byte:

    state    the next connection sends           when the connection breaks
    new      Start, or the user's Connect        unsure, if a Start may have arrived; otherwise over
    unsure   Connect by the tag of that Start    unsure, for up to `UNSURE_LIMIT`; over, if the service has no such tag
    live     Connect from the current offset     live, for up to ``reconnect_for`` seconds; then over
    over     nothing                             `result` or `failure` is set

Output from before an existing terminal is joined is a replay, without its queries (`Replay`), and so is output after
lost output. Output that was written during an outage is not a replay: the same screen continues, and may answer.

Output is never dropped silently. Our own service says at which offset a stream begins. If its scrollback no longer
reaches back that far, or the service has no offsets (E2B's), a ``strict`` stream fails, and any other queues a `Gap`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from tunnel.client.outage import span
from tunnel.errors import ConnectionLost, DialError, TunnelError
from tunnel.protocol.numbers import parse_decimal
from tunnel.protocol.upgrade import Response
from tunnel.pty.client import calls
from tunnel.pty.client.calls import Call, is_asleep, retry_delay
from tunnel.pty.client.model import Result
from tunnel.pty.client.replay import Replay
from tunnel.pty.protocol import framing, messages

KEEPALIVE = 15  # seconds of silence after which the service is asked to send a keepalive
SILENCE = 40.0  # seconds of silence after which a connection counts as lost
UNSURE_LIMIT = 10.0  # seconds to find out whether a Start arrived
BEGIN_LIMIT = 40.0  # seconds from the request to the first event of a stream
LOOK = 15.0  # seconds between two checks whether a sandbox is still paused
LATE = 5.0  # seconds that the service may take to report that the time limit is over
REFUSALS = 3  # in a row that end a stream; an edge that restarts may refuse once or twice
NEW, UNSURE, LIVE, OVER = "new", "unsure", "live", "over"


@dataclass(frozen=True)
class Gap:
    """Output that was lost with a connection: the number of bytes, None if it is not known."""

    missing: int | None

    def __str__(self) -> str:
        return "some" if self.missing is None else f"{self.missing} bytes"


class TerminalStream:
    """The output of one terminal. ``begin`` is a Start, with its ``tag``, or a Connect.

    ``timeout`` (in seconds from ``now``, 0 for none) is the time limit that the service is asked to keep; a broken
    connection is restored for up to ``reconnect_for`` seconds. ``pid`` is set once it is known, ``result`` when the
    process has ended. ``offset`` is the number of bytes received, counted from the terminal's first byte if the service
    has offsets (``counted``). A stream that is not ``strict`` is for a screen: it has a ``replay``, if there is one.
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
        self.replay: Replay | None = None
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

    # --- For the consumer

    @property
    def over(self) -> bool:
        """Whether nothing more will arrive; output may still be waiting for `take`."""
        return self._state == OVER

    @property
    def broken(self) -> TunnelError | None:
        """Why there is no connection at the moment."""
        return self._first_error if self._broke_at is not None and not self.over else None

    def take(self) -> bytes | Gap | None:
        """Return the next piece of output, None if there is none yet. After the last piece, raises `failure` if any."""
        if self._queue:
            return self._queue.popleft()
        if self.failure is not None:
            raise self.failure
        return None

    # --- One connection

    def call(self, now: float) -> Call:
        """Return the call that opens the next connection."""
        call = self._begin
        if self._state == UNSURE and self._tag is not None:
            call = calls.connect(self._tag, replay_from=0)
        elif self._state == LIVE:
            replay_from = self.offset if self.counted else None
            call = calls.connect(self.pid or 0, replay_from=replay_from, process=self._process)
        if self._state != NEW:
            call = replace(call, wakes=False)  # watching the output must not wake a sandbox
        self._decoder = framing.Decoder()
        self._called_at, self._begun = now, False
        fields = {messages.KEEPALIVE: str(KEEPALIVE)}
        if self._deadline is not None:
            fields[framing.TIMEOUT] = str(max(1, round((self._deadline - now) * 1000)))
        return call.with_fields(fields)

    def read_timeout(self, now: float) -> float:
        """Return how many seconds to wait for the next bytes."""
        return SILENCE if self._deadline is None else min(SILENCE, max(0.1, self._deadline + LATE - now))

    def overdue(self, now: float) -> TunnelError | None:
        """Return why to give up a connection although bytes still arrive on it; None to keep it."""
        if not self._begun and now - self._called_at > BEGIN_LIMIT:
            return DialError("answer-timeout", hop=self._endpoint, seconds=BEGIN_LIMIT)
        # Output that arrived in time may be taken late.
        if self._deadline is not None and now > self._deadline + LATE and not self._queue:
            return DialError("answer-timeout", hop=self._endpoint, seconds=self._timeout + LATE)
        return None

    def answered(self, answer: Response) -> bool:
        """Process the head of the answer, with its body unless it is 200; return whether a stream follows."""
        if answer.status != 200:
            self._fail(calls.error_of(answer, self._endpoint, self._begin.about))
            return False
        self._answer = answer
        return True

    def receive(self, data: bytes) -> bool:
        """Process bytes of the stream; return whether to continue reading this connection."""
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
        """Note that the connection failed or ended; return how many seconds to wait before the next one.

        ``error`` is what the caller saw; a reason from the service takes precedence. ``arrived``: whether the request
        may have reached the service. Check `over` afterwards: the stream may have ended.
        """
        error, self._reason = self._reason or error, None
        if self.over:
            return 0.0
        if self._state == NEW and self._tag is not None and arrived:
            self._state = UNSURE
        is_final = self._state == NEW or (self._state == LIVE and self._strict and not self.counted)
        if is_final or error.code == "sandbox-unknown":  # the terminal has ended with its sandbox
            self._end(error)
            return 0.0
        if is_asleep(error):
            # The limit does not run. The caller may end the wait earlier, when it has woken the sandbox.
            self._broke_at, self._first_error, self._failures = now, error, 0
            return LOOK
        if self._broke_at is None or is_asleep(self._first_error):
            self._broke_at, self._first_error = now, error
        limit = self._reconnect_for if self._state == LIVE else min(UNSURE_LIMIT, self._reconnect_for)
        left = self._broke_at + limit - now
        if self._deadline is not None and now >= self._deadline:
            late = framing.ConnectError("deadline_exceeded", f"{self._timeout:g} s")
            self._end(calls.service_error(late, self._endpoint))
        elif left <= 0:
            self._end(ConnectionLost("pty-lost", place=self._endpoint, lasted=span(limit), reason=error))
        self._failures += 1
        return min(retry_delay(self._failures - 1), max(left, 0.0))

    # --- Internal

    def _event(self, event: messages.Event | None) -> None:
        if isinstance(event, messages.Started):
            self._align()
            self._begun = True
            self.pid = event.pid
            if not self.over:
                self._state = LIVE
            self._broke_at, self._refusals, self._failures = None, 0, 0
        elif isinstance(event, messages.Restore):
            if self.replay is not None:
                self._queue.append(self.replay.restore(event.data))
        elif isinstance(event, messages.Output):
            self.offset += len(event.data)
            if event.data:
                self._queue.append(event.data if self.replay is None else self.replay.feed(event.data))
        elif isinstance(event, messages.Ended):
            self.result = Result.of(event)
            self._state = OVER

    def _align(self) -> None:
        """Compare the offset at which this connection begins with the one that the last connection reached."""
        offset = parse_decimal(self._answer.get(messages.OFFSET.lower()) or "")
        resumed = self._state in (UNSURE, LIVE)
        self.counted = offset is not None
        if offset is None:
            if resumed:
                self._miss(Gap(None))
            return
        if resumed and offset < self.offset:
            problem = framing.Malformed(f"the stream begins at byte {offset} instead of {self.offset}")
            self._end(calls.violation(self._endpoint, problem))
        elif resumed and offset > self.offset:
            self._miss(Gap(offset - self.offset))
        live = parse_decimal(self._answer.get(messages.LIVE.lower()) or "")
        again = offset > self.offset if resumed else self._tag is None
        if live is not None and again and not self._strict:
            self.replay = Replay(max(0, live - offset))
        self.offset = offset
        self._process = self._answer.get(messages.PROCESS.lower())

    def _stream_ended(self, error: framing.ConnectError | None) -> None:
        if error is not None:
            self._fail(calls.service_error(error, self._endpoint, self.pid or self._begin.about))
        elif not self.over:
            self._reason = ConnectionLost("lost", reason="the stream ended before the terminal did")

    def _fail(self, error: TunnelError) -> None:
        """End with an error of the service or an edge; if it is temporary, let the caller connect again."""
        if self.over:
            return
        if self._state == NEW:
            self._end(error)
        elif calls.is_unknown(error):
            # The service keeps results only for a while; and a Start that never arrived left no process.
            gone = ConnectionLost("pty-gone", place=self._endpoint)
            self._end(gone if self._state == LIVE or self._first_error is None else self._first_error)
        elif calls.is_refusal(error):
            self._refusals += 1
            if self._refusals >= REFUSALS:
                self._end(error)
            self._reason = error
        elif calls.is_temporary(error):
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
