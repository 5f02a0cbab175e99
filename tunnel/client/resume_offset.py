"""The offset at which a session continues over a new connection: how many of our bytes the bridge has received.

The bridge sends it in a header of its 101 and again in its first message, as edges that open their own WebSocket to the
bridge drop the header and choose the subprotocol themselves. Any other first message means another server: nothing
that it sends is delivered, and nothing is sent to it.
"""

from __future__ import annotations

import selectors
import time

from tunnel.errors import ConnectionLost, DialError, RemoteProtocolError
from tunnel.protocol.control import MESSAGE_LIMIT, SUBPROTOCOL, Ack, SessionError, parse_control
from tunnel.protocol.frames import TEXT, Close, FrameParser, Payload
from tunnel.protocol.numbers import parse_decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.dial import Connection
    from tunnel.net.channel import Channel

FIRST_MESSAGE_LIMIT = 5.0  # seconds for the first message; without one, the connection does not work


def find_offset(connection: Connection, place: str) -> int:
    """Return how many bytes the bridge has received; wait for its first message if an edge drops the header.

    ``place`` names the bridge in errors. Raises ConnectionLost (``session-gone``) if another server answers, DialError
    or another ConnectionLost if there is no answer.
    """
    header = dict(connection.headers).get("wstunnel-received")
    if connection.subprotocol == SUBPROTOCOL and header is not None:
        received = parse_decimal(header)
        if received is None:
            raise _another_server()
        return received
    return _first_ack(connection.channel, place)


def _first_ack(channel: Channel, place: str) -> int:
    deadline = time.monotonic() + FIRST_MESSAGE_LIMIT
    parser = FrameParser(masked=False)
    space = memoryview(bytearray(4096))
    line = b""
    while (left := deadline - time.monotonic()) > 0:
        if not channel.pending:
            with selectors.DefaultSelector() as selector:
                selector.register(channel.fileno(), selectors.EVENT_READ)
                selector.select(left)
        try:
            n = channel.receive_into(space)
        except OSError as exc:
            raise DialError("hung-up", hop=place) from exc
        if n is None:
            continue
        if n == 0:
            raise DialError("hung-up", hop=place)
        try:
            # The rest after the first message is for the session.
            events = list(parser.feed(space[:n], 0 if parser.in_frame else 1))
        except RemoteProtocolError as exc:
            raise _another_server() from exc
        if parser.used < n:
            channel.put_back(space[parser.used : n])
        for event in events:
            if isinstance(event, Close):
                raise ConnectionLost("closed", code=event.code, reason=f": {event.reason}" if event.reason else "")
            if isinstance(event, Payload):
                line += event.data
                if event.opcode != TEXT or len(line) > MESSAGE_LIMIT:
                    raise _another_server()
                if event.final:
                    return _offset_in(line)
    raise DialError("answer-timeout", hop=place, seconds=FIRST_MESSAGE_LIMIT)


def _offset_in(line: bytes) -> int:
    try:
        control = parse_control(line)
    except RemoteProtocolError as exc:
        raise _another_server() from exc
    if isinstance(control, Ack):
        return control.count
    if isinstance(control, SessionError):
        raise ConnectionLost("session-gone", reason=f"the bridge has ended it ({control.code}): {control.text}")
    raise _another_server()


def _another_server() -> ConnectionLost:
    return ConnectionLost("session-gone", reason="another server answers at the bridge's address")
