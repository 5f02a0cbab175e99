"""Connect with JSON (connectrpc.com/docs/protocol), whatever the service: errors, envelopes, the JSON in them.

Bytes in, objects out, and the other way round; no sockets and no clock. Both ends use it.
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
MESSAGE_LIMIT = 4 << 20  # bytes of one message of a request or of a reply
ERROR_LIMIT = 1000  # characters of an error's message, which may quote what a client has sent

Object = Mapping[str, object]

_HEAD = struct.Struct(">BI")
_COMPRESSED = 0x01
_END_OF_STREAM = 0x02

# Codes of errors and the HTTP status of a unary reply that carries one.
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
# The code to assume when an HTTP error has no JSON body that tells one: the answer of something in between.
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
    """An error as the protocol tells it: ``code``, a key of `STATUS`, and ``message``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class Malformed(ConnectError):
    """What came is not of the protocol; a service answers it with ``invalid_argument``."""

    def __init__(self, message: str) -> None:
        super().__init__("invalid_argument", message)


# --- Envelopes


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message of a stream; the last one of a reply has ``last``."""

    data: bytes
    last: bool = False


class Decoder:
    """Cuts a stream into envelopes, however its bytes arrive; keeps one incomplete message (``limit``) at most."""

    def __init__(self, limit: int = MESSAGE_LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Envelope]:
        """Return the envelopes that ``data`` completes.

        Raises ConnectError: ``resource_exhausted`` for a message above the limit, ``unimplemented`` for a compressed
        one, Malformed for flags that are not known.
        """
        buffer = self._buffer
        buffer += data
        found = []
        start = 0
        while len(buffer) - start >= _HEAD.size:
            flags, length = _HEAD.unpack_from(buffer, start)
            if flags & _COMPRESSED:
                raise ConnectError("unimplemented", "messages may not be compressed")
            if flags & ~_END_OF_STREAM:
                raise Malformed(f"the envelope's flags {flags:#04x} are not known")
            if length > self._limit:
                raise ConnectError(
                    "resource_exhausted", f"a message of {length} bytes is more than {self._limit} allow"
                )
            end = start + _HEAD.size + length
            if len(buffer) < end:
                break
            found.append(Envelope(bytes(buffer[start + _HEAD.size : end]), bool(flags & _END_OF_STREAM)))
            start = end
        del buffer[:start]
        return found

    def finish(self) -> None:
        """Tell that the stream has ended; raises Malformed when it ended within a message."""
        if self._buffer:
            raise Malformed("the stream ended within a message")


def envelope(data: bytes, *, last: bool = False) -> bytes:
    """Return ``data`` as a message of a stream, or as its ``last``."""
    return _HEAD.pack(_END_OF_STREAM if last else 0, len(data)) + data


def end_of_stream(error: ConnectError | None = None) -> bytes:
    """Return the envelope that ends a reply."""
    return envelope(encode({} if error is None else {"error": error_object(error)}), last=True)


def parse_end_of_stream(data: bytes) -> ConnectError | None:
    """Return the error that the last envelope of a reply tells, if any; raises Malformed."""
    error = decode(data).get("error")
    return None if error is None else _parse_error(as_object(error, "error"), "unknown")


# --- JSON and errors


def encode(message: Object) -> bytes:
    """Return a message as JSON."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def decode(data: bytes) -> Object:
    """Return the JSON object in ``data``; raises Malformed when it is none.

    It has to be I-JSON (RFC 7493): UTF-8, no name twice in an object, no NaN and no Infinity.
    """
    try:
        return as_object(_JSON.decode(data.decode()), "the message")
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"this is no JSON: {exc}"[:200]) from exc


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _no_name_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return found


_JSON = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_no_name_twice)


def error_object(error: ConnectError) -> Object:
    return {"code": error.code, "message": error.message[:ERROR_LIMIT]}


def parse_error(status: int, body: bytes) -> ConnectError:
    """Return the error that a unary reply with an HTTP ``status`` other than 200 tells, whoever wrote it."""
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
    """Return ``value``, which must be a JSON object; raises Malformed with its ``name`` when it is none."""
    if not isinstance(value, dict):
        raise Malformed(f"{name} is no JSON object")
    return value
