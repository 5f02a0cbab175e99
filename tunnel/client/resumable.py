"""The lifecycle of a resumable tunnel at the client: it outlives its connections, and its user never notices.

    attached ──connection lost, or silent──▶ detached ──dialled, and the bridge has the session──▶ attached
    detached ──refused for good, or the limit is over──▶ the tunnel fails

While it is detached nothing is read and nothing is lost: the source waits, and what the bridge has not confirmed is
kept. `tunnel.client.outage` knows what the answers to a resume mean, `tunnel.client.resume_offset` how the client
learns that the bridge has the session.
"""

from __future__ import annotations

import time

from tunnel.client.relay import SessionNeverBegan, loss_reason, raise_local_failure
from tunnel.errors import ConnectionLost, RemoteProtocolError, TunnelError, printable
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

FRUITLESS_LIMIT = 8  # connections lost in a row without progress after which an outage may be given up for its length
JUMP = 5.0  # seconds that a wait may take too long before it is clear that this machine, or this process, stood still


class ResumableLifecycle:
    """See `tunnel.client.relay.Lifecycle`.

    ``dial`` opens another connection to the same bridge, ``limit`` are the seconds that an outage may last (the bridge
    may set a lower one), ``notice`` is told what a user should know, ``step`` what explains the rest.
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
    ) -> None:
        self.stream = stream
        self._sink = sink
        self._dial = dial
        self._limit = limit
        self._notice = notice
        self._step = step
        self._epoch = 0  # of the last attempt, as far as outages that are over know
        self._outage: Outage | None = None
        self._redial: Redial | None = None
        self._failure: TunnelError | None = None
        self._fruitless = 0  # connections that were lost in a row before any of what we sent had arrived …
        self._fruitless_since = 0.0  # … and when the first of them was
        self._wait_limit = 0.0  # of this turn, in seconds
        self._clocks = (0.0, 0.0)  # monotonic and wall clock when the last turn ended

    # ---- as `Relay` asks

    def start(self, pump: Pump) -> None:
        self._pump = pump
        self._clocks = (time.monotonic(), time.time())

    def advance(self, *, stopped: bool) -> ResumableLifecycle | None:
        pump, stream = self._pump, self.stream
        if stream.sink_ended and not stream.session.receiver.fin_delivered:
            if not pump.sink_error and not self._sink.end_stream():
                pump.source_is_over = True
            stream.sink_half_closed()
        if pump.source_error:
            stream.source_failed(INTERNAL_ERROR, "the input broke off")
        elif pump.source_is_over:
            stream.source_ended()
        pump.write_wire()
        if stopped or pump.sink_error or stream.over or self._failure or stream.session.complete:
            return None
        if not stream.wire_is_over:
            if self._outage and stream.connection.was_heard:
                self._end_outage()
        elif stream.attached:
            self._detach()
        return None if self._failure else self

    def limit_wait(self, seconds: float) -> float:
        if self._outage and not self.stream.attached:
            seconds = max(0.0, self._outage.next_look(dialling=self._redial is not None) - time.monotonic())
        self._wait_limit = seconds
        return seconds

    @property
    def descriptor(self) -> int | None:
        return self._redial.fileno() if self._redial else None

    def turn_ended(self, readable: Container[int]) -> None:
        outage = self._outage if not self.stream.attached else None
        if self._redial and self._redial.fileno() in readable:
            self._finish_redial(self._redial)
        (before, wall_before), (now, wall) = self._clocks, (time.monotonic(), time.time())
        self._clocks = (now, wall)
        # A machine that sleeps stops the one clock or the other, depending on the platform.
        if max(now - before, wall - wall_before) > self._wait_limit + JUMP:
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
        """Let go of a connection that is lost."""
        stream, now = self.stream, time.monotonic()
        lost, size = stream.connection, stream.session.sender.message_size
        close = lost.close_frame
        reason = "nothing came for too long" if lost.is_silent else loss_reason(self._pump, close)
        if stream.offer is None:
            self._failure = SessionNeverBegan("lost", without=stream.session.is_plain, reason=reason)
            return
        self._count_fruitless(now)
        limit = size.limit
        stream.detach()
        self._pump.wire.close()
        self._step("lost", f"{printable(reason)}; {stream.session.unacknowledged} bytes are kept to be sent again")
        if size.limit != limit:
            self._step("lost", f"messages have {size.limit} bytes at most from now on")
        longest = min(self._limit, stream.offer.retain)
        if size.is_hopeless and close is not None:
            self._failure = ConnectionLost("too-big", reason=f": {close.reason}" if close.reason else "")
        elif self._fruitless >= FRUITLESS_LIMIT and now - self._fruitless_since >= longest:
            from tunnel.client.outage import span

            self._failure = ConnectionLost("given-up", lasted=span(now - self._fruitless_since), reason=reason)
        elif self._outage:
            self._outage.lost_again(now, reason)
        else:
            # Imported late, as most tunnels need it never.
            from tunnel.client.outage import Outage

            verdict = "given-up" if longest == self._limit else "session-expired"
            self._outage = Outage(now, longest, reason, self._epoch, self._fruitless, verdict)

    def _count_fruitless(self, now: float) -> None:
        if self.stream.session.sender.progress or not self.stream.session.unacknowledged:
            self._fruitless = 0
            return
        if not self._fruitless:
            self._fruitless_since = now
        self._fruitless += 1

    def _pursue(self, outage: Outage) -> None:
        """While detached: dial when it is time, tell the user when it takes long, give up when it takes too long."""
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
        from tunnel.client.redial import Redial

        stream = self.stream
        if stream.offer is None:
            return
        epoch = outage.begin_attempt()
        request = resume_request(stream.offer.id, stream.offer.key, epoch, stream.session.delivered)
        self._step("resume", f"attempt {epoch}, {stream.session.delivered} received")
        self._redial = Redial(self._dial, [("Wstunnel-Resume", request.header())])

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
                outage.failed(exc, now)
            else:
                self._attach(connection, now)
        except TunnelError as exc:
            self._failure = exc

    def _attach(self, connection: Connection, now: float) -> None:
        """Go on over a new connection. Raises TunnelError when it leads to somebody who has not got our session."""
        received = connection.received
        try:
            self.stream.attach(received, now)
        except RemoteProtocolError as exc:
            connection.channel.close()
            raise ConnectionLost("session-gone", reason=exc) from exc
        # What it answers tells that the connection is not only open, but works.
        self.stream.request_ack()
        self._pump.wire = connection.channel
        self._pump.wire_error = None
        self._step(
            "resumed", f"the bridge has received {received}; {self.stream.session.unacknowledged} bytes go again"
        )

    def _end_outage(self) -> None:
        """Note that the new connection works: the next loss is an outage of its own."""
        if self._outage:
            now = time.monotonic()
            self._step("resumed", f"connected again after {now - self._outage.began:.1f} s")
            if line := self._outage.over(now):
                self._notice(line)
            self._epoch = self._outage.epoch
        self._outage = None

    def _wake_up(self) -> None:
        now = time.monotonic()
        self._step("wake-up", "this machine or this process stood still")
        if self._outage:
            self._outage.slept(now)
        self.stream.probe(now)
        self._pump.write_wire()
