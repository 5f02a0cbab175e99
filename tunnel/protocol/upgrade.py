"""The client's side of the HTTP upgrade (RFC 6455 section 4.1), Sans-I/O.

`upgrade_request` writes the request; `ResponseParser` reads any HTTP/1.1 answer, within limits; `check_upgrade` decides
whether it opened a WebSocket, and otherwise raises an error with the server's message.
"""

from __future__ import annotations

import binascii
import os

from tunnel.errors import DialError, UpgradeRefused, UsageError, printable, redacted
from tunnel.protocol.numbers import parse_decimal, parse_hexadecimal

try:
    # Not hashlib, which loads all of OpenSSL: 3 ms for one digest, while the rest of this program takes 15 ms.
    from _sha1 import sha1  # type: ignore[import-not-found]
except ImportError:  # a Python that was built without it
    from hashlib import sha1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Headers = Sequence[tuple[str, str]]

HEAD_LIMIT = 16 * 1024  # bytes of a status line with its header fields
BODY_LIMIT = 64 * 1024  # bytes of a refusal's body that are read
_LONGEST_SHOWN = 16  # characters of an invalid name of a header
MAX_INTERIM = 100  # interim responses (1xx); a proxy may send one every few seconds while it works
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Fields of a response that only our bridge or RFC 6455 defines, so that any malformed one is an error.
_STRICT_FIELDS = ("wstunnel-", "sec-websocket-")
_OWN_FIELDS = {"host", "upgrade", "connection", "content-length", "transfer-encoding"}
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class ResponseError(Exception):
    """Not an HTTP/1.1 response, or one that exceeds the limits."""


class NoFinalResponse(ResponseError):
    """There were too many interim responses (RFC 9110 section 15.2)."""


def check_header(name: str, value: str) -> None:
    """Raise UsageError unless a user may add this field to the request (RFC 9110, section 5)."""
    if not name or not _TOKEN.issuperset(name):
        # Only the beginning of a long one: without a colon it may include the value, a secret.
        shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"
        raise UsageError(f"{shown!r} is not a valid name for an HTTP header")
    if name.lower() in _OWN_FIELDS or name.lower().startswith("sec-websocket-"):
        raise UsageError(f"the header {name} belongs to the handshake and cannot be set")
    if any((c < " " and c != "\t") or c == "\x7f" for c in value) or not value.isascii():
        raise UsageError(f"the value of the header {name} has characters that a header cannot have")


def new_key() -> str:
    """Return a fresh Sec-WebSocket-Key."""
    return binascii.b2a_base64(os.urandom(16), newline=False).decode()


def upgrade_request(resource: str, host: str, key: str, subprotocols: Iterable[str], headers: Headers) -> bytes:
    """Return the upgrade request for ``resource`` (path and query); ``host`` is the Host field's value."""
    lines = [
        f"GET {resource} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    ]
    if offer := ", ".join(subprotocols):
        lines.append(f"Sec-WebSocket-Protocol: {offer}")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class Response:
    """An HTTP response: ``status``, ``reason``, header fields as (lower-case name, value), and ``body``."""

    __slots__ = ("body", "headers", "reason", "status")

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = b""

    def get(self, name: str) -> str | None:
        """Return the values of the field ``name`` (lower case), joined by commas (RFC 9110 section 5.3), or None."""
        values = [value for field, value in self.headers if field == name]
        return ", ".join(values) if values else None

    def has_token(self, name: str, token: str) -> bool:
        """Return whether the list-valued field ``name`` has ``token``, in any case."""
        return token in [part.strip().lower() for part in (self.get(name) or "").split(",")]


class ResponseParser:
    """Reads one final response from any chunks of bytes; interim (1xx) ones before it are skipped.

    ``head`` is the response once its head is complete. A response that opens a tunnel (101, or 2xx to CONNECT) is then
    complete, and the bytes after it are in ``rest``. Others are ``done`` when their body is complete or long enough.

    It is as lenient as curl, so that the message of an unusual proxy can be shown: lines may end with LF alone (RFC
    9112 section 2.2) and be folded (section 5.2), and lines that are not fields are skipped.
    """

    def __init__(self, *, connect: bool = False) -> None:
        self._connect = connect
        self._received = bytearray()
        self._chunked = False
        self._length: int | None = None
        self._interim = 0
        self.head: Response | None = None
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> None:
        """Parse received bytes. Raises ResponseError."""
        self._received += data
        while self.head is None:
            end, behind = _end_of_head(self._received)
            if max(end, len(self._received) if end < 0 else 0) > HEAD_LIMIT:
                raise ResponseError(f"its head is longer than {HEAD_LIMIT} bytes")
            if end < 0:
                if not b"HTTP/1.".startswith(self._received[:7]):
                    raise ResponseError(f"it began with {_excerpt(self._received.decode('latin-1'), 24)}")
                return
            head = bytes(self._received[:end])
            del self._received[:behind]
            self._take_head(head)
        self._take_body(self.head)

    def end(self) -> None:
        """Note EOF, which ends a body without a length. Raises ResponseError if the head is incomplete."""
        if self.head is None:
            raise ResponseError("it closed the connection in the middle of its answer" if self._received else "")
        self.done = True

    def salvage(self) -> bool:
        """Return whether there is a `head`; make one of an incomplete refusal if its status was read.

        This is for an answer that was cut off: it is reported with the fields that were received.
        """
        received = self._received[:HEAD_LIMIT]
        # The last line is incomplete and dropped, unless it is the first, whose status is enough.
        if self.head is None and (b"\n" in received or len(received.split(None, 2)) == 3):
            first, *lines = _lines(received)[: -1 if b"\n" in received else None]
            try:
                status, reason = _status(first)
                if status >= 300:
                    self.head = Response(status, reason, tuple(_fields(lines)))
            except ResponseError:
                return False
        return self.head is not None

    def _take_head(self, head: bytes) -> None:
        first, *lines = _lines(head)
        status, reason = _status(first)
        headers = _fields(lines)
        response = Response(status, reason, tuple(headers))
        if 100 <= response.status < 200 and response.status != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise NoFinalResponse(f"it sent {MAX_INTERIM} interim responses and no final one")
            return
        self.head = response
        self._chunked = response.has_token("transfer-encoding", "chunked")
        self._length = parse_decimal(response.get("content-length") or "")

    def _take_body(self, head: Response) -> None:
        opened = head.status == 101 or (self._connect and 200 <= head.status < 300)
        if opened:
            self.rest, self.done = bytes(self._received), True
            return
        if self._chunked:
            head.body, self.done = _dechunk(self._received)
        else:
            wanted = BODY_LIMIT if self._length is None else min(self._length, BODY_LIMIT)
            head.body = bytes(self._received[:wanted])
            self.done = len(self._received) >= wanted
        self.done = self.done or len(self._received) >= 2 * BODY_LIMIT


def _end_of_head(data: bytearray) -> tuple[int, int]:
    """Return where the last line of a head ends, and where the body begins after the empty line; -1 if incomplete."""
    long, short = data.find(b"\n\r\n"), data.find(b"\n\n")
    if short >= 0 and (long < 0 or short < long):
        return short, short + 2
    return long, long + 3


def _lines(head: bytes | bytearray) -> list[str]:
    return [line.rstrip("\r") for line in head.decode("latin-1").split("\n")]


def _status(line: str) -> tuple[int, str]:
    """Return status and reason phrase of a status line (section 4). Raises ResponseError."""
    version, code, reason = (*line.split(None, 2), "", "", "")[:3]
    status = parse_decimal(code) if len(code) == 3 else None
    if len(version) != len("HTTP/1.1") or not version.startswith("HTTP/1.") or status is None:
        raise ResponseError(f"it began with {_excerpt(line, 60)}")
    return status, reason


def _fields(lines: list[str]) -> list[tuple[str, str]]:
    """Return the fields of a head as (lower-case name, value). Raises ResponseError for one of `_STRICT_FIELDS`."""
    headers: list[tuple[str, str]] = []
    folds = False  # whether the last line was a field, which the next line may continue
    for line in lines:
        if line.startswith((" ", "\t")):
            # Ignored without a field before it (section 2.2).
            if folds:
                name, value = headers.pop()
                _check_spelling(name, line, odd=True)
                headers.append((name, f"{value} {line.strip()}".strip()))
            continue
        written, colon, value = line.partition(":")
        name = written.rstrip(" \t").lower()
        folds = bool(colon and name and _TOKEN.issuperset(name))
        _check_spelling(name, line, odd=not folds or len(name) < len(written))
        if folds:
            headers.append((name, value.replace("\r", " ").strip(" \t")))
    return headers


def _check_spelling(name: str, line: str, *, odd: bool) -> None:
    if odd and name.lstrip().startswith(_STRICT_FIELDS):
        raise ResponseError(f"it has the malformed header line {_excerpt(line, 60)}")


def _excerpt(text: str, length: int) -> str:
    """Return the beginning of ``text`` as a literal. Secrets are removed first, as a cut could leave half of one."""
    return printable(ascii(redacted(text)[:length]))


def _dechunk(data: bytearray) -> tuple[bytes, bool]:
    """Return the available part of a chunked body (RFC 9112 section 7.1), and whether it is complete or long enough."""
    body, at = bytearray(), 0
    while (end := data.find(b"\n", at)) >= 0 and len(body) < BODY_LIMIT:
        size = parse_hexadecimal(bytes(data[at:end]).split(b";")[0].rstrip(b" \t\r"))
        if not size:
            return bytes(body), True
        body += data[end + 1 : end + 1 + size]
        at = end + 1 + size
        at += 2 if data[at : at + 2] == b"\r\n" else 1
    return bytes(body[:BODY_LIMIT]), len(body) >= BODY_LIMIT


def check_upgrade(response: Response, *, url: str, key: str, subprotocols: Sequence[str]) -> str | None:
    """Return the subprotocol that the server selected, or None, if ``response`` opened a WebSocket.

    Raises UpgradeRefused for a status other than 101, DialError for a 101 that violates section 4.1.
    """
    if response.status != 101:
        raise refusal(response, url)
    if not response.has_token("upgrade", "websocket") or not response.has_token("connection", "upgrade"):
        raise DialError("not-websocket", url=url, reason="its 101 does not upgrade to websocket")
    digest: bytes = sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    if response.get("sec-websocket-accept") != binascii.b2a_base64(digest, newline=False).decode():
        raise DialError("not-websocket", url=url, reason="its Sec-WebSocket-Accept does not match our key")
    if response.get("sec-websocket-extensions"):
        raise DialError("not-websocket", url=url, reason="it uses an extension that was not offered")
    selected = response.get("sec-websocket-protocol")
    if selected is not None and selected not in subprotocols:
        raise DialError("not-websocket", url=url, reason=f"it selected {selected!r}, which was not offered")
    return selected


_CODES = {401: "unauthorized", 403: "forbidden", 404: "not-found", 410: "not-found", 502: "bad-gateway"}
_NOT_READY = (409, 425)  # from edges and sandboxes that are still starting
_OVERLOADED = (408, 429, 503, 504)


def refusal(response: Response, url: str) -> UpgradeRefused:
    """Return the error for ``response``, which is not a 101, with the server's message if it has one."""
    status, headers = response.status, response.headers
    location = response.get("location")
    if 300 <= status < 400 and location:
        return UpgradeRefused("redirect", status=status, headers=headers, url=url, location=location)
    if 200 <= status < 300:
        reason = f"it answered {status} like a normal web page"
        return UpgradeRefused("not-websocket", status=status, headers=headers, url=url, reason=reason)
    cause = "overloaded" if status in _OVERLOADED else _CODES.get(status, "http-status")
    if status in _NOT_READY and not response.get("wstunnel-error"):  # a bridge's own 409 is about a resume
        cause = "not-ready"
    return UpgradeRefused(cause, status=status, headers=headers, url=url, message=message_of(response))


def message_of(response: Response) -> str:
    """Return the message in a response's body (a message in JSON, a line of plain text), else its reason phrase."""
    kind = (response.get("content-type") or "").partition(";")[0].strip().lower()
    text = response.body.decode("utf-8", "replace").strip()
    said = ""
    if kind.endswith("json") or text.startswith("{"):
        said = _message_in_json(text)
    elif kind == "text/plain" and text:
        said = text.splitlines()[0]
    elif kind == "text/html":
        said = _message_in_title(text, response.status)
    return printable(said, 300) or printable(response.reason) or "no reason given"


def _message_in_title(page: str, status: int) -> str:
    """Return the title after the status, where nginx has its reason: ``400 No required SSL certificate was sent``."""
    title = page.partition("<title>")[2].partition("</title>")[0].strip()
    said = title.removeprefix(f"{status} ")
    return "" if said == title or "<" in said or "&" in said else said


def _message_in_json(text: str) -> str:
    import json

    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    for _ in range(3):
        if not isinstance(found, dict):
            break
        found = next((found[name] for name in ("message", "error", "detail") if found.get(name)), None)
    return found if isinstance(found, str) else ""
