"""Whether something on the way to a bridge buffers: small messages then wait until more come, and SSH begins with some.

A bridge of ours is asked for its echo (`tunnel.server.speed_test`), any other is pinged, as every WebSocket server
answers pings (RFC 6455 section 5.5.2). Small messages do not come back; once enough was sent, all do.
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

ANSWER_LIMIT = 3.0  # seconds that a small message's answer may take
PAUSE = 1.0  # seconds that are waited after each round
_GREETINGS = 3  # reads of what comes unasked
_PIECE = 512  # bytes of one message of the echo
_PING = 125  # bytes that a ping may hold
_FIRST, _LAST = 1 << 10, 256 << 10  # bytes that were said after the first round and after the last; each doubles them


def held_back(settings: Settings) -> int | None:
    """Return how many bytes, at most, wait on the way until more come; None if none do, or if that cannot be told."""
    try:
        connection = dial(settings, Trace(), subprotocols=("binary", SPEED_TEST))
    except TunnelError:
        return None  # it was there a moment ago
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
                    break  # what the SSH server says by itself is no answer
        line.send(opcode, b"?")
        if line.hears(ANSWER_LIMIT):
            return None
        said, wanted = 0, _FIRST
        while wanted <= _LAST:
            while said < wanted:
                line.send(opcode, os.urandom(size))
                said += size
                if not has_echo:
                    time.sleep(0.002)  # of many pings at once a server need answer the last only
            if line.hears(PAUSE):
                return wanted
            wanted *= 2
    return None


class _Line:
    """An open WebSocket connection on which it only counts whether anything comes."""

    def __init__(self, connection: Connection, selector: selectors.BaseSelector) -> None:
        self._channel = connection.channel
        self._selector = selector
        selector.register(self._channel.fileno(), selectors.EVENT_READ)

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one frame. Raises OSError, also when nobody takes it."""
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
        """Return whether anything comes within so many seconds. Raises OSError at the end of the connection."""
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
