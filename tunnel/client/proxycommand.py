"""One run of the ProxyCommand: dial, relay, and an exit code."""

from __future__ import annotations

import time

from tunnel.client.dial import dial
from tunnel.client.relay import Relay, discard_standard_output, exit_code_for_signal
from tunnel.client.stdio import StandardOutput, open_input
from tunnel.protocol.errors import ConnectionLost
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.stream import PlainStream, ReadBuffers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.settings import Settings
    from tunnel.client.trace import Trace

# What a shell reports for a program that SIGPIPE ended; like those, we end without a word.
CLOSED_OUTPUT = 128 + 13


def run(settings: Settings, trace: Trace) -> int:
    """Relay standard input and output over a tunnel; return the exit code.

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
        connection = dial(settings, trace)
        keepalive = Keepalive(time.monotonic(), settings.ping_interval, settings.ping_timeout)
        # No limit for standard output: a user may suspend ssh for as long as he likes.
        stream = PlainStream(client=True, buffers=ReadBuffers(), keepalive=keepalive, sink_limit=None)
        relay = Relay(connection.channel, source, sink, stream)
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
    finally:
        source.close()
        sink.close()
