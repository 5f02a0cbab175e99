"""The Connect protocol with JSON (connectrpc.com/docs/protocol): envelopes, the JSON in them, and errors.

Sans-I/O, for both ends, and independent of the service that is called.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

PROTOCOL_VERSION = "1"
UNARY_TYPE = "application/json"
STREAM_TYPE = "application/connect+json"
TIMEOUT = "Connect-Timeout-Ms"
MESSAGE_LIMIT = 4 << 20  # bytes of one message
ERROR_LIMIT = 1000  # characters of an error's message, which may quote the request

Object = Mapping[str, object]

_HEAD = struct.Struct(">BI")
_COMPRESSED = 0x01
_END_OF_STREAM = 0x02

# Error codes, and the HTTP status of a unary reply with that code.
STATUS: Mapping[str, int] = {
    "canceled": 499,
    "unknown": 500,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "data_loss": 500,
    "unauthenticated": 401,
}
# The code to assume when an HTTP error has no JSON body with a code: an intermediary has answered.
_ASSUMED = {
    400: "internal",
    401: "unauthenticated",
    403: "permission_denied",
    404: "unimplemented",
    429: "unavailable",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}


class ConnectError(Exception):
    """An error of the protocol: ``code``, a key of `STATUS`, and ``message``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class Malformed(ConnectError):
    """The peer broke the protocol; a service answers with ``invalid_argument``."""

    def __init__(self, message: str) -> None:
        super().__init__("invalid_argument", message)


# --- Envelopes


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message of a stream; ``last`` marks the one that ends a reply."""

    data: bytes
    last: bool = False


class Decoder:
    """Splits a stream into envelopes, however its bytes arrive. It buffers at most one message of ``limit`` bytes."""

    def __init__(self, limit: int = MESSAGE_LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Envelope]:
        """Return the envelopes that ``data`` completes.

        Raises ConnectError: ``resource_exhausted`` for a message above the limit, ``unimplemented`` for a compressed
        one; and Malformed for unknown flags.
        """
        buffer = self._buffer
        buffer += data
        found = []
        start = 0
        while len(buffer) - start >= _HEAD.size:
            flags, length = _HEAD.unpack_from(buffer, start)
            if flags & _COMPRESSED:
                raise ConnectError("unimplemented", "compressed messages are not supported")
            if flags & ~_END_OF_STREAM:
                raise Malformed(f"unknown envelope flags {flags:#04x}")
            if length > self._limit:
                raise ConnectError("resource_exhausted", f"the message has {length} bytes; the limit is {self._limit}")
            end = start + _HEAD.size + length
            if len(buffer) < end:
                break
            found.append(Envelope(bytes(buffer[start + _HEAD.size : end]), bool(flags & _END_OF_STREAM)))
            start = end
        del buffer[:start]
        return found

    def finish(self) -> None:
        """Note the end of the stream; raises Malformed if it ended within a message."""
        if self._buffer:
            raise Malformed("the stream ended within a message")


def envelope(data: bytes, *, last: bool = False) -> bytes:
    """Return ``data`` in an envelope; ``last`` marks the one that ends a reply."""
    return _HEAD.pack(_END_OF_STREAM if last else 0, len(data)) + data


def end_of_stream(error: ConnectError | None = None) -> bytes:
    """Return the envelope that ends a reply."""
    return envelope(encode({} if error is None else {"error": error_object(error)}), last=True)


def parse_end_of_stream(data: bytes) -> ConnectError | None:
    """Return the error in the last envelope of a reply, if any; raises Malformed."""
    error = decode(data).get("error")
    return None if error is None else _parse_error(as_object(error, "error"), "unknown")


# --- JSON and errors


def encode(message: Object) -> bytes:
    """Return a message as JSON."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def decode(data: bytes) -> Object:
    """Return the JSON object in ``data``; raises Malformed for anything else.

    It must be I-JSON (RFC 7493): UTF-8, no duplicate names in an object, no NaN and no Infinity.
    """
    try:
        return as_object(_JSON.decode(data.decode()), "the message")
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"this is not valid JSON: {exc}"[:200]) from exc


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _no_name_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate name in an object")
    return found


_JSON = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_no_name_twice)


def error_object(error: ConnectError) -> Object:
    """Return an error as a JSON object."""
    return {"code": error.code, "message": error.message[:ERROR_LIMIT]}


def parse_error(status: int, body: bytes) -> ConnectError:
    """Return the error of a unary reply with an HTTP ``status`` other than 200, from the service or an edge."""
    assumed = _ASSUMED.get(status, "unknown")
    try:
        return _parse_error(decode(body), assumed)
    except Malformed:
        return ConnectError(assumed, f"HTTP status {status}")


def _parse_error(fields: Object, assumed: str) -> ConnectError:
    code, message = fields.get("code"), fields.get("message", "")
    return ConnectError(
        code if isinstance(code, str) and code in STATUS else assumed,
        message if isinstance(message, str) else "",
    )


def as_object(value: object, name: str) -> Object:
    """Return ``value``, which must be a JSON object; otherwise raises Malformed with its ``name``."""
    if not isinstance(value, dict):
        raise Malformed(f"{name} is not a JSON object")
    return value
