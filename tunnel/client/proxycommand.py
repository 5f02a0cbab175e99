"""One run of the ProxyCommand: dial, relay, and an exit code."""

from __future__ import annotations

import time

from tunnel.client.dial import dial
from tunnel.client.relay import PlainRelay, SessionNeverBegan
from tunnel.client.signals import SignalPipe, exit_code_for_signal
from tunnel.client.stdio import StandardOutput, discard_standard_output, open_input
from tunnel.client.trace import say
from tunnel.protocol.control import SUBPROTOCOL
from tunnel.protocol.errors import ConnectionLost
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.stream import PlainStream, ReadBuffers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tunnel.client.dial import Connection
    from tunnel.client.redial import Dial
    from tunnel.client.relay import Relay
    from tunnel.client.settings import Settings
    from tunnel.client.stdio import StandardInput, ThreadedInput
    from tunnel.client.trace import Trace

# What a shell reports for a program that SIGPIPE ended; like those, we end without a word.
CLOSED_OUTPUT = 128 + 13
# Connections that may be lost in a row before a session has begun on one.
MAX_FALSE_STARTS = 3


def run(settings: Settings, trace: Trace, reload: Callable[[], Settings]) -> int:
    """Relay standard input and output over a tunnel; return the exit code.

    ``reload`` makes the settings anew, for a later connection: what a token file holds may have changed by then.
    Raises TunnelError (`DialError`, `ConnectionLost`, …) for what the user must be told.
    """
    try:
        # Before anything else is opened, which would get the number of a descriptor that is closed.
        sink = StandardOutput()
    except OSError as exc:
        raise ConnectionLost("output", reason=exc.strerror) from exc
    try:
        source = open_input(threaded=settings.stdin_thread)
    except OSError as exc:
        sink.close()
        raise ConnectionLost("input", reason=exc.strerror) from exc
    try:
        return _run(source, sink, settings, trace, reload)
    finally:
        source.close()
        sink.close()


def _run(
    source: StandardInput | ThreadedInput,
    sink: StandardOutput,
    settings: Settings,
    trace: Trace,
    reload: Callable[[], Settings],
) -> int:
    # websocat's server echoes the first name, whatever it is; so Wire 2, which it cannot speak, is the second.
    offer = ("binary", SUBPROTOCOL) if settings.resume else ("binary",)

    meanwhile = _import_the_rest if settings.resume else lambda: None

    def dial_again(headers: Sequence[tuple[str, str]]) -> Connection:
        return dial(reload(), trace, subprotocols=offer, extra_headers=headers)

    false_starts = 0
    while True:
        connection = dial(settings, trace, subprotocols=offer, meanwhile=meanwhile)
        try:
            with SignalPipe() as signals:
                relay = _make_relay(connection, source, sink, signals, dial_again, settings, trace)
                return _relay(relay, trace)
        except SessionNeverBegan:
            false_starts += 1
            if false_starts == MAX_FALSE_STARTS:
                raise


def _import_the_rest() -> None:
    """Import what a resumable tunnel needs, in a time in which there is nothing else to do."""
    import tunnel.client.resumable
    import tunnel.protocol.resume  # noqa: F401


def _relay(relay: Relay, trace: Trace) -> int:
    trace.step("relay", "standard input and output are connected")
    try:
        relay.run()
    except BrokenPipeError:
        trace.step("end", "standard output was closed")
        discard_standard_output()
        return CLOSED_OUTPUT
    except OSError as exc:
        raise ConnectionLost("output", reason=exc.strerror or exc) from exc
    finally:
        sent, received = relay.counts
        trace.step("end", f"{sent} bytes sent, {received} bytes received")
    return exit_code_for_signal(relay.signal) if relay.signal else 0


def _make_relay(
    connection: Connection,
    source: StandardInput | ThreadedInput,
    sink: StandardOutput,
    signals: SignalPipe,
    dial_again: Dial,
    settings: Settings,
    trace: Trace,
) -> Relay:
    now = time.monotonic()
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
            signals,
            dial=dial_again,
            limit=settings.reconnect_for,
            notice=(lambda _: None) if settings.quiet else say,
            step=trace.step,
        )
    keepalive = Keepalive(now, settings.ping_interval, settings.ping_timeout)
    # No limit for standard output: a user may suspend ssh for as long as he likes.
    stream = PlainStream(client=True, buffers=ReadBuffers(), keepalive=keepalive, sink_limit=None)
    return PlainRelay(connection.channel, source, sink, stream, signals)
