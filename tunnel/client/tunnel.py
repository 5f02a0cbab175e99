"""One tunnel from a local end, whatever that is, to a bridge: dials, and chooses between plain and resumable.

What is needed once the tunnel is open is imported while the bridge answers, when there is nothing else to do.
"""

from __future__ import annotations

import time

from tunnel.client.dial import dial
from tunnel.protocol.control import SPEED_TEST, SUBPROTOCOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from tunnel.client.dial import Connection
    from tunnel.client.plain import PlainLifecycle
    from tunnel.client.relay import Interrupts, Lifecycle, LocalSink, LocalSource, Relay
    from tunnel.client.resumable import ResumableLifecycle
    from tunnel.client.settings import Settings
    from tunnel.client.trace import Trace
    from tunnel.protocol.codec import Codec
    from tunnel.protocol.control import SessionOffer
    from tunnel.protocol.outbox import Outbox

# Connections that may be lost in a row before a session has begun on one.
MAX_FALSE_STARTS = 3


def binary_codec() -> Codec:
    """Return the codec of a tunnel: its messages carry bytes."""
    from tunnel.protocol.codec import BINARY_CODEC

    return BINARY_CODEC


class Tunnel:
    """A tunnel with ``settings``; ``reload`` makes them anew for a later connection, as a token may have changed.

    ``notice`` is told in one line what a user should know while the tunnel lives. ``offer``: the subprotocols to offer
    (None: as the settings say). ``make_codec`` makes the codec for a plain connection.
    """

    def __init__(
        self,
        settings: Settings,
        trace: Trace,
        reload: Callable[[], Settings],
        notice: Callable[[str], None],
        *,
        offer: Sequence[str] | None = None,
        make_codec: Callable[[], Codec] = binary_codec,
    ) -> None:
        self._settings = settings
        self._trace = trace
        self._reload = reload
        self._notice = notice
        # websocat's server echoes the first name, whatever it is; so Wire 2, which it cannot speak, is the second.
        ours = ("binary", SUBPROTOCOL) if settings.resume else ("binary",)
        self._offer: Sequence[str] = ours if offer is None else offer
        self._make_codec = make_codec
        self._codec: Codec | None = None  # that of the last connection, if it was a plain one
        self._sent_in_vain = b""  # on a connection that could not be used, and so to be sent first
        self.relay: Relay | None = None  # what moves the bytes, once `run` has begun
        self.is_resumable = False  # whether there is a session, once that is known

    def dial(self, meanwhile: Callable[[], None] = lambda: None) -> Connection:
        """Open the first connection. Raises DialError and UsageError.

        ``meanwhile`` is called while the bridge answers.
        """

        def get_ready() -> None:
            meanwhile()
            _import_resumable() if self._settings.resume else _import_plain()

        return dial(self._settings, self._trace, subprotocols=self._offer, meanwhile=get_ready)

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
        try:
            return self._run(connection, source, sink, interrupts)
        finally:
            if self._codec is not None and self._codec.remark:
                self._notice(self._codec.remark)

    def _run(
        self,
        connection: Connection,
        source: LocalSource,
        sink: LocalSink,
        interrupts: Callable[[], AbstractContextManager[Interrupts]],
    ) -> Relay:
        from tunnel.client.relay import Relay, SessionNeverBegan

        false_starts = 0
        while True:
            try:
                with interrupts() as interrupting:
                    lifecycle = self._lifecycle(connection, sink)
                    self.relay = Relay(connection.channel, source, sink, lifecycle, interrupting)
                    self.relay.run()
                    return self.relay
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

    def _lifecycle(self, connection: Connection, sink: LocalSink) -> Lifecycle:
        """Return the lifecycle that the subprotocol asks for. The first message may still change it."""
        if connection.subprotocol == SUBPROTOCOL:
            return self._resumable(sink)
        return self._plain(connection, sink)

    def _resumable(self, sink: LocalSink) -> ResumableLifecycle:
        from tunnel.client.resumable import ResumableLifecycle
        from tunnel.protocol.read_buffers import ReadBuffers
        from tunnel.protocol.resumable_stream import ResumableStream

        self.is_resumable = True
        settings = self._settings
        stream = ResumableStream(
            client=True,
            buffers=ReadBuffers(),
            now=time.monotonic(),
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            max_message=settings.max_message,
        )
        return ResumableLifecycle(
            stream,
            sink,
            dial=self._dial_again,
            limit=settings.reconnect_for,
            notice=self._notice,
            step=self._trace.step,
        )

    def _plain(self, connection: Connection, sink: LocalSink) -> PlainLifecycle:
        from tunnel.client.plain import PlainLifecycle
        from tunnel.protocol.keepalive import Keepalive
        from tunnel.protocol.plain_stream import PlainStream
        from tunnel.protocol.read_buffers import ReadBuffers

        beginning = None
        settings, now = self._settings, time.monotonic()
        if SUBPROTOCOL in self._offer and connection.subprotocol != SPEED_TEST:
            from tunnel.protocol.beginning import Beginning

            beginning = Beginning(now)
        self._codec = self._make_codec()
        stream = PlainStream(
            client=True,
            buffers=ReadBuffers(),
            keepalive=Keepalive(now, settings.ping_interval, settings.ping_timeout),
            sink_limit=None,  # a user may suspend ssh for as long as they like
            max_message=settings.max_message,
            codec=self._codec,
            beginning=beginning,
        )
        stream.send_first(self._sent_in_vain)

        def begin_session(offer: SessionOffer, outbox: Outbox, sent: bytes) -> ResumableLifecycle:
            self._trace.step("resume", "the bridge has begun a session, though something on the way hides it")
            lifecycle = self._resumable(sink)
            lifecycle.stream.adopt(offer, outbox, sent)
            return lifecycle

        return PlainLifecycle(stream, begin_session)

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


def _import_resumable() -> None:
    import tunnel.client.relay
    import tunnel.client.resumable
    import tunnel.protocol.resumable_stream  # noqa: F401


def _import_plain() -> None:
    import tunnel.client.plain
    import tunnel.client.relay
    import tunnel.protocol.keepalive
    import tunnel.protocol.plain_stream  # noqa: F401
