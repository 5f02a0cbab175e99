"""One tunnel from a local end, whatever that is, to a bridge: dials, and chooses between plain and resumable."""

from __future__ import annotations

import time

from tunnel.client.dial import dial
from tunnel.client.relay import PlainRelay, SessionNeverBegan
from tunnel.protocol.control import SPEED_TEST, SUBPROTOCOL
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.stream import PlainStream, ReadBuffers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from tunnel.client.dial import Connection
    from tunnel.client.relay import Interrupts, LocalSink, LocalSource, Relay
    from tunnel.client.resumable import ResumableRelay
    from tunnel.client.settings import Settings
    from tunnel.client.trace import Trace

# Connections that may be lost in a row before a session has begun on one.
MAX_FALSE_STARTS = 3


class Tunnel:
    """A tunnel with ``settings``; ``reload`` makes them anew for a later connection, as a token may have changed.

    ``notice`` is told in one line what a user should know while the tunnel lives. ``relay`` is what moves its bytes,
    once `run` has begun.
    """

    def __init__(
        self, settings: Settings, trace: Trace, reload: Callable[[], Settings], notice: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._trace = trace
        self._reload = reload
        self._notice = notice
        # websocat's server echoes the first name, whatever it is; so Wire 2, which it cannot speak, is the second.
        self._offer: Sequence[str] = ("binary", SUBPROTOCOL) if settings.resume else ("binary",)
        self._max_message = settings.max_message
        self._sent_in_vain = b""  # on a connection that could not be used, and so to be sent first
        self.relay: Relay | None = None
        self.is_resumable = False  # whether there is a session, once that is known

    def dial(self) -> Connection:
        """Open the first connection. Raises DialError and UsageError."""
        meanwhile = _import_what_resumes if self._settings.resume else lambda: None
        return dial(self._settings, self._trace, subprotocols=self._offer, meanwhile=meanwhile)

    def run(
        self,
        connection: Connection,
        source: LocalSource,
        sink: LocalSink,
        interrupts: Callable[[], AbstractContextManager[Interrupts]],
    ) -> Relay:
        """Relay until the tunnel ends, and return the relay, which knows how; raises what `Relay.run` raises.

        ``interrupts`` are entered while the relay runs.
        """
        false_starts = 0
        while True:
            try:
                with interrupts() as interrupting:
                    return self._relay(connection, source, sink, interrupting)
            except SessionNeverBegan as exc:
                false_starts += 1
                if false_starts == MAX_FALSE_STARTS:
                    raise
                if exc.without:
                    self._trace.step("resume", "something on the way does not let it pass: going without")
                    self._offer = tuple(name for name in self._offer if name != SUBPROTOCOL)
                    self._sent_in_vain = exc.sent
            except BaseException:
                connection.channel.close()  # there may be no relay that has done so
                raise
            connection = self.dial()

    def _relay(self, connection: Connection, source: LocalSource, sink: LocalSink, interrupts: Interrupts) -> Relay:
        if connection.subprotocol == SUBPROTOCOL:
            self.relay = self._resumable_relay(connection, source, sink, interrupts)
        else:
            self.relay = plain = self._plain_relay(connection, source, sink, interrupts)
            plain.run()
            beginning = plain.stream.beginning
            if not plain.handed_over or beginning is None or beginning.offer is None:
                return plain
            self._trace.step("resume", "the bridge has begun a session, though something on the way hides it")
            resumable = self._resumable_relay(connection, source, sink, interrupts)
            resumable.stream.adopt(beginning.offer, plain.stream.take_outbox(), beginning.sent)
            resumable.take_over(plain)
            self.relay = resumable
        self.relay.run()
        return self.relay

    def _resumable_relay(
        self, connection: Connection, source: LocalSource, sink: LocalSink, interrupts: Interrupts
    ) -> ResumableRelay:
        from tunnel.client.resumable import ResumableRelay
        from tunnel.protocol.resume import ResumableStream

        self.is_resumable = True
        settings = self._settings
        return ResumableRelay(
            connection.channel,
            source,
            sink,
            ResumableStream(
                client=True,
                buffers=ReadBuffers(),
                now=time.monotonic(),
                ping_interval=settings.ping_interval,
                ping_timeout=settings.ping_timeout,
                max_message=self._max_message,
            ),
            interrupts,
            dial=self._dial_again,
            limit=settings.reconnect_for,
            notice=self._notice,
            step=self._trace.step,
        )

    def _plain_relay(
        self, connection: Connection, source: LocalSource, sink: LocalSink, interrupts: Interrupts
    ) -> PlainRelay:
        settings, now = self._settings, time.monotonic()
        stream = self._plain_stream(Keepalive(now, settings.ping_interval, settings.ping_timeout))
        stream.max_message = self._max_message
        if SUBPROTOCOL in self._offer and connection.subprotocol != SPEED_TEST:
            from tunnel.protocol.beginning import Beginning

            stream.beginning = Beginning(now)
        stream.send_first(self._sent_in_vain)
        return PlainRelay(connection.channel, source, sink, stream, interrupts)

    def _plain_stream(self, keepalive: Keepalive) -> PlainStream:
        # No limit for the sink: a user may suspend ssh for as long as he likes.
        return PlainStream(client=True, buffers=ReadBuffers(), keepalive=keepalive, sink_limit=None)

    def _dial_again(self, headers: Sequence[tuple[str, str]]) -> Connection:
        from tunnel.client.resume_offset import find_offset

        settings = self._reload()
        connection = dial(settings, self._trace, subprotocols=self._offer, extra_headers=headers)
        try:
            connection.received = find_offset(connection, str(settings.address))
        except BaseException:
            connection.channel.close()
            raise
        return connection


def _import_what_resumes() -> None:
    """Import what a resumable tunnel needs, in a time in which there is nothing else to do."""
    import tunnel.client.resumable
    import tunnel.protocol.resume  # noqa: F401
