"""One tunnel from a local end to a bridge: dials, and chooses the lifecycle of a plain tunnel or a session.

Modules for the open tunnel are imported while waiting for the bridge's answer.
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
    from tunnel.provider.sleep import Sleep

# How many connections in a row may be lost before a session has begun.
MAX_FALSE_STARTS = 3


def binary_codec() -> Codec:
    """Return the codec of a tunnel, whose messages are binary."""
    from tunnel.protocol.codec import BINARY_CODEC

    return BINARY_CODEC


class Tunnel:
    """A tunnel with ``settings``; ``reload`` makes them again for a later connection, as a token may have changed.

    ``notice`` gets lines for the user. ``offer``: the subprotocols to offer (None: according to the settings).
    ``make_codec`` makes the codec for a plain connection.
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
        if settings.sandbox is not None:
            settings.sandbox.notice = notice
        # websocat's server always selects the first name, so Wire 2, which it does not implement, is the second.
        ours = ("binary", SUBPROTOCOL) if settings.resume else ("binary",)
        self._offer: Sequence[str] = ours if offer is None else offer
        self._make_codec = make_codec
        self._codec: Codec | None = None  # of the last connection, if it was a plain one
        self._sent_in_vain = b""  # sent on a connection that could not be used; to be sent again first
        self._sleep: Sleep | None = None  # of the sandbox, if its provider can be asked
        self.relay: Relay | None = None  # what moves the bytes, once `run` has begun
        self.is_resumable = False  # whether there is a session, as far as is known

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
        """Relay until the tunnel ends, and return the relay. Raises the errors of `Relay.run`.

        ``interrupts`` makes a context that is entered while the relay runs.
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
        look = self._keep_alive()
        while True:
            try:
                with interrupts() as interrupting:
                    lifecycle = self._lifecycle(connection, sink)
                    self.relay = Relay(connection.channel, source, sink, lifecycle, interrupting, look)
                    self.relay.run()
                    return self.relay
            except SessionNeverBegan as exc:
                false_starts += 1
                if false_starts == MAX_FALSE_STARTS:
                    raise
                if exc.without:
                    self._trace.step("resume", "something on the way does not pass it on: continuing without")
                    self._offer = tuple(name for name in self._offer if name != SUBPROTOCOL)
                    self._sent_in_vain = exc.sent
            except BaseException:
                connection.channel.close()  # there may not have been a relay to close it
                raise
            connection = self.dial()

    def _keep_alive(self) -> Callable[[float, int], float] | None:
        """Return the function that extends the sandbox's time between turns of the relay; None without a provider."""
        sandbox = self._settings.sandbox
        if sandbox is None:
            return None
        from tunnel.client.sandbox_time import SandboxTime
        from tunnel.provider.sleep import Sleep

        self._sleep = Sleep(sandbox.id, sandbox.wake)
        return SandboxTime(sandbox, self._notice, self._trace.step).look

    def _lifecycle(self, connection: Connection, sink: LocalSink) -> Lifecycle:
        """Return the lifecycle for the selected subprotocol. The first message may still change it."""
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
            sleep=self._sleep,
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
            sink_limit=None,  # the user may suspend ssh for any time
            max_message=settings.max_message,
            codec=self._codec,
            beginning=beginning,
        )
        stream.send_first(self._sent_in_vain)

        def begin_session(offer: SessionOffer, outbox: Outbox, sent: bytes) -> ResumableLifecycle:
            self._trace.step("resume", "the bridge has begun a session, although its answer did not show that")
            lifecycle = self._resumable(sink)
            lifecycle.stream.adopt(offer, outbox, sent)
            return lifecycle

        return PlainLifecycle(stream, begin_session)

    def _dial_again(self, headers: Sequence[tuple[str, str]]) -> Connection:
        from tunnel.client.resume_offset import find_offset

        settings = self._reload()
        if settings.sandbox is not None:
            settings.sandbox.notice = self._notice
            settings.sandbox.sleep = self._sleep
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
