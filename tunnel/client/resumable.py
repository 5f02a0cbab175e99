"""The lifecycle of a session at the client: it survives the loss of its connections.

    attached ──connection lost or silent──▶ detached ──dialled, and the bridge has the session──▶ attached
    detached ──refused for good, or the limit is over──▶ the tunnel fails

While it is detached, the source is not read, and everything that the bridge has not acknowledged is kept, so nothing is
lost. `tunnel.client.outage` interprets the answers to a resume; `tunnel.client.resume_offset` finds out whether the
bridge has the session.
"""

from __future__ import annotations

import time

from tunnel.client.relay import SessionNeverBegan, loss_reason, raise_local_failure
from tunnel.errors import ConnectionLost, DialError, RemoteProtocolError, TunnelError, printable
from tunnel.protocol.control import resume_request
from tunnel.protocol.frames import INTERNAL_ERROR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from tunnel.client.dial import Connection
    from tunnel.client.outage import Outage
    from tunnel.client.redial import Dial, Redial
    from tunnel.client.relay import LocalSink
    from tunnel.net.pump import Pump
    from tunnel.protocol.resumable_stream import ResumableStream
    from tunnel.provider.sleep import Sleep

FRUITLESS_LIMIT = 8  # connections lost in a row without progress, after which their time counts as one outage
_NEXT_TRY = 0.5  # seconds until the next try to begin an outage
JUMP = 5.0  # seconds; a wait that takes this much too long means that this machine or process was suspended


class ResumableLifecycle:
    """See `tunnel.client.relay.Lifecycle`.

    ``dial`` opens another connection to the same bridge. An outage may last ``limit`` seconds; the bridge may set a
    lower limit. ``notice`` gets lines for the user, ``step`` those for -v. ``sleep`` handles a paused sandbox, if its
    provider can be asked.
    """

    def __init__(
        self,
        stream: ResumableStream,
        sink: LocalSink,
        *,
        dial: Dial,
        limit: float,
        notice: Callable[[str], None],
        step: Callable[[str, str], None],
        sleep: Sleep | None = None,
    ) -> None:
        self.stream = stream
        self._sink = sink
        self._dial = dial
        self._limit = limit
        self._notice = notice
        self._step = step
        self._sleep = sleep
        self._epoch = 0  # of the last attempt of earlier outages
        self._outage: Outage | None = None
        self._loss = (0.0, 0.0, "")  # time, limit and reason of the loss for which an outage is to begin
        self._redial: Redial | None = None
        self._failure: TunnelError | None = None
        self._fruitless = 0  # connections lost in a row before anything sent on them had arrived …
        self._fruitless_since = 0.0  # … and when the first of them was
        self._wait_limit = 0.0  # of this turn, in seconds
        self._clocks = (0.0, 0.0)  # monotonic and wall clock when the last turn ended

    # ---- for `Relay`

    def start(self, pump: Pump) -> None:
        self._pump = pump
        self._clocks = (time.monotonic(), time.time())

    def advance(self, *, stopped: bool) -> ResumableLifecycle | None:
        pump, stream, session = self._pump, self.stream, self.stream.session
        has_ended = session.receiver.has_ended
        if has_ended and not session.receiver.fin_delivered:
            if not pump.sink_error and not self._sink.end_stream():
                pump.source_is_over = True
            stream.sink_half_closed()
        if pump.source_error:
            stream.source_failed(INTERNAL_ERROR, "the input broke off")
        elif pump.source_is_over:
            stream.source_ended()
        pump.write_wire()
        if stopped or pump.sink_error or session.over or self._failure or (has_ended and session.complete):
            return None
        if not stream.connection.is_over:
            if self._outage and stream.connection.was_heard:
                self._end_outage()
        elif stream.attached:
            self._detach()
        return None if self._failure else self

    def limit_wait(self, seconds: float) -> float:
        if not self.stream.attached and not self._outage:
            seconds = min(seconds, _NEXT_TRY)
        elif self._outage and not self.stream.attached:
            seconds = max(0.0, self._outage.next_look(dialling=self._redial is not None) - time.monotonic())
        self._wait_limit = seconds
        return seconds

    @property
    def descriptor(self) -> int | None:
        if self._redial:
            return self._redial.fileno()
        if self._outage is None:
            return None
        # Waiting input wakes a sandbox. It is not read, as it cannot be sent yet.
        return self._pump.source.fileno() if self._awaits_input else None

    @property
    def _awaits_input(self) -> bool:
        if self._outage is None or self._sleep is None or self._pump.source_is_over:
            return False
        return self._outage.is_asleep and self._sleep.waits_for_input

    def turn_ended(self, readable: Container[int], now: float) -> None:
        if not self.stream.attached and not self._outage and not self._failure:
            self._begin_outage()
        outage = self._outage if not self.stream.attached else None
        if self._sleep and self._awaits_input and not self._redial and self._pump.source.fileno() in readable:
            self._input_came(self._sleep)
        if self._redial and self._redial.fileno() in readable:
            self._finish_redial(self._redial)
        (before, wall_before), wall = self._clocks, time.time()
        self._clocks = (now, wall)
        # Depending on the platform, the suspension of a machine shows in one clock or the other.
        longest = self._wait_limit + JUMP
        if now - before > longest or wall - wall_before > longest:
            self._wake_up()
        if outage:
            self._pursue(outage)

    def say_last_words(self, *, clean: bool) -> None:
        if clean:
            self.stream.end()
        else:
            self.stream.fail("interrupted", ConnectionLost("input", reason="interrupted"), text="")

    def raise_failure(self) -> None:
        if self._failure:
            raise self._failure
        if self.stream.failure:
            raise self.stream.failure
        raise_local_failure(self._pump)

    def close(self) -> None:
        if self._redial:
            self._redial.abandon()

    # ---- outages

    def _detach(self) -> None:
        """Drop a lost connection."""
        stream, now = self.stream, time.monotonic()
        lost, size = stream.connection, stream.session.sender.message_size
        close = lost.close_frame
        reason = "nothing was received for too long" if lost.is_silent else loss_reason(self._pump, close)
        if stream.offer is None:
            self._failure = SessionNeverBegan("lost", without=stream.session.is_plain, reason=reason)
            return
        self._count_fruitless(now)
        limit = size.limit
        stream.detach()
        self._pump.wire.close()
        self._step("lost", f"{printable(reason)}; {stream.session.unacknowledged} bytes are kept to be sent again")
        if size.limit != limit:
            self._step("lost", f"messages are limited to {size.limit} bytes from now on")
        longest = min(self._limit, stream.offer.retain)
        if size.is_hopeless and close is not None:
            self._failure = ConnectionLost("too-big", reason=f": {close.reason}" if close.reason else "")
        elif self._fruitless >= FRUITLESS_LIMIT and now - self._fruitless_since >= longest:
            from tunnel.client.outage import span

            self._failure = ConnectionLost("given-up", lasted=span(now - self._fruitless_since), reason=reason)
        elif self._outage:
            self._outage.lost_again(now, reason)
        else:
            self._loss = (now, longest, reason)
            self._begin_outage()

    def _begin_outage(self) -> None:
        """Begin an outage, now or as soon as this machine has the descriptors for it."""
        began, longest, reason = self._loss
        try:
            # Imported late, as most tunnels never need it.
            from tunnel.client.outage import Outage
        except OSError as exc:
            if time.monotonic() - began >= longest:
                self._failure = DialError("resources", reason=exc.strerror or exc)
            return
        verdict = "given-up" if longest == self._limit else "session-expired"
        self._outage = Outage(began, longest, reason, self._epoch, self._fruitless, verdict)

    def _count_fruitless(self, now: float) -> None:
        if self.stream.session.sender.progress or not self.stream.session.unacknowledged:
            self._fruitless = 0
            return
        if not self._fruitless:
            self._fruitless_since = now
        self._fruitless += 1

    def _pursue(self, outage: Outage) -> None:
        """While detached: dial when it is time, notify the user when it takes long, and give up at the limit."""
        now = time.monotonic()
        if self.stream.attached or self._failure:
            return
        try:
            outage.check(now)
        except ConnectionLost as exc:
            self._failure = exc
            return
        if line := outage.notice(now):
            self._notice(line)
        if not self._redial and now >= outage.next_at:
            self._begin_redial(outage)

    def _begin_redial(self, outage: Outage) -> None:
        stream = self.stream
        if stream.offer is None:
            return
        epoch, received = outage.begin_attempt(), stream.session.delivered
        self._step("resume", f"attempt {epoch}, {received} received")
        try:
            from tunnel.client.redial import Redial

            request = resume_request(stream.offer.id, stream.offer.key, epoch, received)
            self._redial = Redial(self._dial, [("Wstunnel-Resume", request.header())])
        except (OSError, RuntimeError) as exc:  # no descriptor for a module or a pair of sockets, or no thread, is left
            reason = getattr(exc, "strerror", None) or exc
            outage.failed(DialError("resources", reason=reason), time.monotonic())

    def _finish_redial(self, redial: Redial) -> None:
        self._redial, outage, now = None, self._outage, time.monotonic()
        if outage is None:
            redial.abandon()
            return
        try:
            try:
                connection = redial.result()
            except TunnelError as exc:
                self._step("resume", str(exc))
                if exc.code == "sandbox-paused" and self._sleep and not self._pump.source_is_over:
                    self._fall_asleep(outage, self._sleep, now)
                else:
                    outage.awake(now)
                    outage.failed(exc, now)
            else:
                outage.awake(now)
                self._attach(connection, now)
        except TunnelError as exc:
            self._failure = exc

    def _fall_asleep(self, outage: Outage, sleep: Sleep, now: float) -> None:
        """Wait for a paused sandbox, for as long as it takes."""
        if outage.asleep(now):
            self._notice(sleep.line)
        if not getattr(self._pump.source, "waitable", True):  # a file: its next byte is there already
            self._wake_sandbox(sleep)

    def _input_came(self, sleep: Sleep) -> None:
        """Wake the sandbox if there is input, but not for the end of the input."""
        from tunnel.net.unread import has_data  # late, as few tunnels need it

        if self._pump.sink_error is None and has_data(self._pump.source.fileno()):
            self._wake_sandbox(sleep)
        else:
            self._pump.source_is_over = True

    def _wake_sandbox(self, sleep: Sleep) -> None:
        if sleep.waits_for_input and self._outage:
            self._step("wake-up", "there is input for the sandbox")
            sleep.has_input = True
            self._outage.next_at = time.monotonic()

    def _attach(self, connection: Connection, now: float) -> None:
        """Continue over a new connection. Raises TunnelError if the server does not have our session."""
        received = connection.received
        try:
            self.stream.attach(received, now)
        except RemoteProtocolError as exc:
            connection.channel.close()
            raise ConnectionLost("session-gone", reason=exc) from exc
        self.stream.ask(now)
        self._pump.wire = connection.channel
        self._pump.wire_error = None
        self._step(
            "resumed", f"the bridge has received {received}; {self.stream.session.unacknowledged} bytes are sent again"
        )

    def _end_outage(self) -> None:
        """Note that the new connection works: its loss begins a new outage."""
        if self._sleep:
            self._sleep.has_input = False
        if self._outage:
            now = time.monotonic()
            self._step("resumed", f"connected again after {now - self._outage.began:.1f} s")
            if line := self._outage.over(now):
                self._notice(line)
            self._epoch = self._outage.epoch
        self._outage = None

    def _wake_up(self) -> None:
        now = time.monotonic()
        self._step("wake-up", "this machine or this process was suspended")
        if self._outage:
            self._outage.slept(now)
        self.stream.probe(now)
        self._pump.write_wire()
