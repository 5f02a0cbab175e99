"""The messages between the bridge and the embedded SSH server, one JSON object each.

To the server, on a Unix stream socket: a connection to serve, with its descriptor as ancillary data:

    {"id": 1, "client": "192.0.2.1:5000"}

When that socket is closed, the bridge has ended, or it has started a newer server: this one ends with its last
connection. So the bridge may be of a later version than the server: a change of the messages must allow for that.

From the server, as lines on a pipe:

    {"event": "ready", "user": …, "host_key": "SHA256:…", "keys": 2}    or
    {"event": "failed", "message": …, "setting": …, "code": …}
    {"event": "hello", "id": 1}                                         the client has sent data
    {"event": "begin", "id": 1}                                         keys were exchanged, the login begins
    {"event": "login", "id": 1, "user": …, "key": "SHA256:…", "authority": …}
    {"event": "refused", "id": 1, "user": …, "reason": …}               a login that failed
    {"event": "warning", "id": 1, "message": …}
    {"event": "gone", "id": 1}                                          the process of that connection has ended
"""

from __future__ import annotations

import json
import os
from typing import Any

# Writes of up to PIPE_BUF bytes to a pipe are atomic; POSIX guarantees 512.
LINE_LIMIT = 512
_TEXT_LIMITS = (200, 100, 50, 25, 10, 0)  # characters of one value; the first limit that makes the line short enough


class Events:
    """The pipe to the bridge. ``descriptor`` is its writing end."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def tell(self, event: str, **fields: str | int) -> None:
        """Send an event, with long texts cut; ignored if the bridge has ended."""
        for limit in _TEXT_LIMITS:
            cut = {key: value[:limit] if isinstance(value, str) else value for key, value in fields.items()}
            line = encode({"event": event, **cut})
            if len(line) <= LINE_LIMIT:
                break
        try:
            os.write(self.descriptor, line)
        except OSError:
            pass  # EPIPE


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message).encode() + b"\n"


def decode(data: bytes) -> dict[str, Any]:
    """Parse one message; raises ValueError for anything else."""
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message
