"""One run of the ProxyCommand: a tunnel for standard input and output, and an exit code."""

from __future__ import annotations

import errno
import os

from tunnel.client.trace import say
from tunnel.client.tunnel import Tunnel
from tunnel.errors import ConnectionLost, DialError, TunnelError
from tunnel.net.standard_streams import CLOSED_OUTPUT, is_missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnel.client.dial import Connection
    from tunnel.client.settings import Settings
    from tunnel.client.stdio import StandardInput, StandardOutput
    from tunnel.client.threaded_stdio import ThreadedInput, ThreadedOutput
    from tunnel.client.trace import Trace


def run(
    settings: Settings,
    trace: Trace,
    reload: Callable[[], Settings],
    make_tunnel: Callable[[Settings, Trace, Callable[[], Settings], Callable[[str], None]], Tunnel] = Tunnel,
) -> int:
    """Relay standard input and output over a tunnel; return the exit code.

    ``reload`` is as for `Tunnel`, which ``make_tunnel`` makes. Raises TunnelError (`DialError`, `ConnectionLost`, …).
    """
    for descriptor, name in ((1, "output"), (0, "input")):
        # The missing descriptor is the null device by now, but nobody wants a tunnel to that.
        if is_missing(descriptor):
            raise ConnectionLost(name, reason=os.strerror(errno.EBADF))
    notice: Callable[[str], None] = (lambda _: None) if settings.quiet else say
    tunnel = make_tunnel(settings, trace, reload, notice)
    connection = _dial(tunnel, settings.wait, notice)
    try:
        source, sink = _open_ends(settings)
    except ConnectionLost:
        connection.channel.close()
        raise
    try:
        return _relay(tunnel, connection, source, sink, trace)
    finally:
        source.close()
        sink.close()


def _dial(tunnel: Tunnel, wait: float, notice: Callable[[str], None]) -> Connection:
    def dial() -> Connection:
        return tunnel.dial(meanwhile=_import_ends)

    if not wait:
        return dial()
    from tunnel.client.waiting import dial_when_up  # late, as few runs need it

    return dial_when_up(dial, wait, notice)


def _import_ends() -> None:
    import tunnel.client.signals
    import tunnel.client.stdio  # noqa: F401


def _open_ends(settings: Settings) -> tuple[StandardInput | ThreadedInput, StandardOutput | ThreadedOutput]:
    """Return standard input and output as the ends of a tunnel. Raises ConnectionLost."""
    from tunnel.client.stdio import open_input, open_output

    try:
        sink = open_output(threaded=settings.stdio_threads)
    except OSError as exc:
        raise ConnectionLost("output", reason=exc.strerror) from exc
    try:
        return open_input(threaded=settings.stdio_threads), sink
    except OSError as exc:
        sink.close()
        raise ConnectionLost("input", reason=exc.strerror) from exc


def _relay(
    tunnel: Tunnel,
    connection: Connection,
    source: StandardInput | ThreadedInput,
    sink: StandardOutput | ThreadedOutput,
    trace: Trace,
) -> int:
    from tunnel.client.relay import FAREWELL_LIMIT
    from tunnel.client.signals import SignalPipe
    from tunnel.client.stdio import discard_standard_output

    trace.step("relay", "standard input and output are connected")
    try:
        try:
            relay = tunnel.run(connection, source, sink, SignalPipe)
        except TunnelError:
            _finish_anyway(sink)
            raise
        if relay.interrupted is not None:
            _finish_anyway(sink, FAREWELL_LIMIT)
            return relay.interrupted
        return sink.finish()
    except BrokenPipeError:
        trace.step("end", "standard output was closed")
        discard_standard_output()
        return CLOSED_OUTPUT
    except OSError as exc:
        reason = exc.strerror or exc
        if tunnel.relay is not None and tunnel.relay.sink_error is exc:
            raise ConnectionLost("output", reason=reason) from exc
        raise DialError("resources", reason=reason) from exc  # a module that cannot be opened, for example
    finally:
        if tunnel.relay:
            sent, received = tunnel.relay.counts
            trace.step("end", f"{sent} bytes sent, {received} bytes received")


def _finish_anyway(sink: StandardOutput | ThreadedOutput, limit: float = float("inf")) -> None:
    """Wait until everything received is written, and ignore errors: another one is reported already."""
    try:
        sink.finish(limit)
    except OSError:
        pass
