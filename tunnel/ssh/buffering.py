"""Whether an edge buffers: small messages, with which SSH begins, then wait until more data follow.

For our own bridge the test uses its echo (`tunnel.server.speed_test`), for others pings, which every WebSocket server
answers (RFC 6455 section 5.5.2). With a buffer, small messages are not answered until enough data was sent.
"""

from __future__ import annotations

import os
import selectors
import time

from tunnel.client.dial import Connection, dial
from tunnel.client.settings import Settings
from tunnel.client.trace import Trace
from tunnel.errors import TunnelError
from tunnel.protocol.control import SPEED_TEST
from tunnel.protocol.frames import BINARY, PING, frame_header
from tunnel.protocol.masking import apply_mask

ANSWER_LIMIT = 3.0  # seconds for the answer to a small message
PAUSE = 1.0  # seconds to wait after each round
_GREETINGS = 3  # reads of unsolicited data
_PIECE = 512  # bytes of one message of the echo
_PING = 125  # most bytes of a ping
_FIRST, _LAST = 1 << 10, 256 << 10  # bytes sent after the first round and after the last; each round doubles them


def held_back(settings: Settings) -> int | None:
    """Return the size of the edge's buffer, as an upper limit in bytes; None if there is none, or it is unknown."""
    try:
        connection = dial(settings, Trace(), subprotocols=("binary", SPEED_TEST))
    except TunnelError:
        return None  # unknown: the bridge was reachable a moment ago
    try:
        return _probe(connection)
    except OSError:
        return None
    finally:
        connection.channel.close()


def _probe(connection: Connection) -> int | None:
    has_echo = connection.subprotocol == SPEED_TEST
    opcode, size = (BINARY, _PIECE) if has_echo else (PING, _PING)
    with selectors.DefaultSelector() as selector:
        line = _Line(connection, selector)
        if has_echo:
            line.send(BINARY, b"echo\n")
        else:
            for _ in range(_GREETINGS):
                if not line.hears(PAUSE):
                    break  # unsolicited data of the SSH server is not an answer
        line.send(opcode, b"?")
        if line.hears(ANSWER_LIMIT):
            return None
        said, wanted = 0, _FIRST
        while wanted <= _LAST:
            while said < wanted:
                line.send(opcode, os.urandom(size))
                said += size
                if not has_echo:
                    time.sleep(0.002)  # of many pings at once, a server need only answer the last one
            if line.hears(PAUSE):
                return wanted
            wanted *= 2
    return None


class _Line:
    """An open WebSocket connection, to find out whether anything is received."""

    def __init__(self, connection: Connection, selector: selectors.BaseSelector) -> None:
        self._channel = connection.channel
        self._selector = selector
        selector.register(self._channel.fileno(), selectors.EVENT_READ)

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one frame. Raises OSError, also if the peer does not accept it in time."""
        mask = os.urandom(4)
        rest = memoryview(frame_header(opcode, len(payload), mask) + apply_mask(payload, mask))
        deadline = time.monotonic() + ANSWER_LIMIT
        while rest:
            sent = self._channel.send([rest])
            rest = rest[sent:]
            if not sent:
                if time.monotonic() > deadline:
                    raise TimeoutError
                time.sleep(0.01)

    def hears(self, seconds: float) -> bool:
        """Return whether anything is received within ``seconds``. Raises OSError at the end of the connection."""
        space = memoryview(bytearray(4096))
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not self._channel.pending:
                self._selector.select(left)
            received = self._channel.receive_into(space)
            if received == 0:
                raise ConnectionResetError
            if received:
                return True
        return False
