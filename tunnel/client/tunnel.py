"""One tunnel from a local end, whatever that is, to a bridge: dials, and chooses between plain and resumable."""

from __future__ import annotations

import time

from tunnel.client.dial import dial
from tunnel.client.relay import PlainRelay, SessionNeverBegan
from tunnel.protocol.control import SUBPROTOCOL
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.stream import PlainStream, ReadBuffers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from tunnel.client.dial import Connection
    from tunnel.client.relay import Interrupts, LocalSink, LocalSource, Relay
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
        self.relay: Relay | None = None

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
                    self.relay = self._make_relay(connection, source, sink, interrupting)
                    self.relay.run()
                    return self.relay
            except SessionNeverBegan:
                false_starts += 1
                if false_starts == MAX_FALSE_STARTS:
                    raise
            connection = self.dial()

    def _make_relay(
        self, connection: Connection, source: LocalSource, sink: LocalSink, interrupts: Interrupts
    ) -> Relay:
        settings, now = self._settings, time.monotonic()
        if connection.subprotocol == SUBPROTOCOL:
            from tunnel.client.resumable import ResumableRelay
            from tunnel.protocol.resume import ResumableStream

            return ResumableRelay(
                connection.channel,
                source,
                sink,
                ResumableStream(
                    client=True,
                    buffers=ReadBuffers(),
                    now=now,
                    ping_interval=settings.ping_interval,
                    ping_timeout=settings.ping_timeout,
                ),
                interrupts,
                dial=self._dial_again,
                limit=settings.reconnect_for,
                notice=self._notice,
                step=self._trace.step,
            )
        stream = self._plain_stream(Keepalive(now, settings.ping_interval, settings.ping_timeout))
        stream.refuses_session = SUBPROTOCOL in self._offer
        return PlainRelay(connection.channel, source, sink, stream, interrupts)

    def _plain_stream(self, keepalive: Keepalive) -> PlainStream:
        # No limit for the sink: a user may suspend ssh for as long as he likes.
        return PlainStream(client=True, buffers=ReadBuffers(), keepalive=keepalive, sink_limit=None)

    def _dial_again(self, headers: Sequence[tuple[str, str]]) -> Connection:
        return dial(self._reload(), self._trace, subprotocols=self._offer, extra_headers=headers)


def _import_what_resumes() -> None:
    """Import what a resumable tunnel needs, in a time in which there is nothing else to do."""
    import tunnel.client.resumable
    import tunnel.protocol.resume  # noqa: F401
