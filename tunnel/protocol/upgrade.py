"""The client's side of the HTTP handshake (RFC 6455, section 4.1), Sans-I/O.

`upgrade_request` writes the request; `ResponseParser` reads any HTTP/1.1 answer, in bounds; `check_upgrade` decides
whether it opened a WebSocket, and otherwise finds the sentence in it that a user should see.
"""

from __future__ import annotations

import binascii
import os

from tunnel.errors import DialError, UpgradeRefused, UsageError, printable, redacted
from tunnel.protocol.numbers import parse_decimal, parse_hexadecimal

try:
    # Not by hashlib, which loads the whole of OpenSSL: 3 ms for one digest, where the rest of this program takes 15.
    from _sha1 import sha1  # type: ignore[import-not-found]
except ImportError:  # a Python that was built without it
    from hashlib import sha1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Headers = Sequence[tuple[str, str]]

HEAD_LIMIT = 16 * 1024  # bytes of a status line with its header fields
BODY_LIMIT = 64 * 1024  # bytes of a refusal's body that are looked at
_LONGEST_SHOWN = 16  # characters of what is no name of a header
MAX_INTERIM = 100  # responses (1xx) before the final one; a proxy may send one every few seconds while it works
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Of a response: what only a bridge of ours or RFC 6455 defines, so that nobody has an excuse for spelling it oddly.
_STRICT_FIELDS = ("wstunnel-", "sec-websocket-")
_OWN_FIELDS = {"host", "upgrade", "connection", "content-length", "transfer-encoding"}
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class ResponseError(Exception):
    """What came is no HTTP/1.1 response, or one beyond the limits."""


class NoFinalResponse(ResponseError):
    """Interim responses (RFC 9110, section 15.2) come without end."""


def check_header(name: str, value: str) -> None:
    """Raise UsageError unless a user may add this field to the request (RFC 9110, section 5)."""
    if not name or not _TOKEN.issuperset(name):
        # Of a long one only the beginning: who forgot a colon has put the value there, too.
        shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"
        raise UsageError(f"{shown!r} is no name for an HTTP header")
    if name.lower() in _OWN_FIELDS or name.lower().startswith("sec-websocket-"):
        raise UsageError(f"the header {name} belongs to the handshake and cannot be set")
    if any((c < " " and c != "\t") or c == "\x7f" for c in value) or not value.isascii():
        raise UsageError(f"the value of the header {name} has characters that no header may have")


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
        """Return the values of the field ``name`` (lower case), joined as RFC 9110 section 5.3 says, or None."""
        values = [value for field, value in self.headers if field == name]
        return ", ".join(values) if values else None

    def has_token(self, name: str, token: str) -> bool:
        """Return whether the list-valued field ``name`` has ``token``, in any case."""
        return token in [part.strip().lower() for part in (self.get(name) or "").split(",")]


class ResponseParser:
    """Reads one final response from any chunking of its bytes; interim (1xx) ones before it are skipped.

    ``head`` is the response once its head is complete; a response that opens a tunnel (101, or 2xx to CONNECT) is
    complete with it, and what follows is in ``rest``. Others are ``done`` when their body is, or is long enough.

    It is as lenient as curl, since a proxy that spells its answer oddly still has something to say: lines may end with
    LF alone (RFC 9112 section 2.2) and be folded (section 5.2), and what is no field is passed over.
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
        """Take in bytes that came. Raises ResponseError."""
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
        """Note the end of file: it ends a body without a length. Raises ResponseError when no head had come."""
        if self.head is None:
            raise ResponseError("it hung up in the middle of its answer" if self._received else "")
        self._take_body(self.head, ended=True)
        self.done = True

    def salvage(self) -> bool:
        """Return whether there is a `head`, or a refusal whose status was read: then that becomes the head.

        For an answer that broke off: what came of its fields counts, and all the rest does not matter to a user.
        """
        received = self._received[:HEAD_LIMIT]
        # Of the last line nobody knows how it goes on; but of the first that does not matter behind the status.
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

    def _take_body(self, head: Response, *, ended: bool = False) -> None:
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
        self.done = self.done or ended or len(self._received) >= 2 * BODY_LIMIT


def _end_of_head(data: bytearray) -> tuple[int, int]:
    """Return where the last line of a head ends, and where what follows the empty line begins; -1 if there is none."""
    long, short = data.find(b"\n\r\n"), data.find(b"\n\n")
    if short >= 0 and (long < 0 or short < long):
        return short, short + 2
    return long, long + 3


def _lines(head: bytes | bytearray) -> list[str]:
    return [line.rstrip("\r") for line in head.decode("latin-1").split("\n")]


def _status(line: str) -> tuple[int, str]:
    """Return status and reason phrase of a status line (section 4). Raises ResponseError."""
    version, code, reason = (*line.replace("\t", " ").split(None, 2), "", "", "")[:3]
    status = parse_decimal(code, 3) if len(code) == 3 else None
    if len(version) != len("HTTP/1.1") or not version.startswith("HTTP/1.") or status is None:
        raise ResponseError(f"it began with {_excerpt(line, 60)}")
    return status, reason


def _fields(lines: list[str]) -> list[tuple[str, str]]:
    """Return the fields of a head as (lower-case name, value). Raises ResponseError for one of `_STRICT_FIELDS`."""
    headers: list[tuple[str, str]] = []
    folds = False  # whether the last line was a field, which the next may go on with
    for line in lines:
        if line.startswith((" ", "\t")):
            # Without a field before it (section 2.2) it goes unread.
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
    """Return the beginning of ``text`` as a literal. Secrets go out before it is cut, which could leave half of one."""
    return printable(ascii(redacted(text)[:length]))


def _dechunk(data: bytearray) -> tuple[bytes, bool]:
    """Return what of a chunked body (RFC 9112, section 7.1) is there, and whether that is all that is wanted."""
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
    """Return the subprotocol that the server selected (None: none), if ``response`` opened a WebSocket.

    Raises UpgradeRefused for any other status than 101, DialError for a 101 that breaks section 4.1.
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
_NOT_READY = (409, 425)  # of edges and sandboxes that are still starting
_OVERLOADED = (408, 429, 503, 504)


def refusal(response: Response, url: str) -> UpgradeRefused:
    """Return the error that ``response``, which is no 101, stands for, with the server's own words where it has any."""
    status, headers = response.status, response.headers
    location = response.get("location")
    if 300 <= status < 400 and location:
        return UpgradeRefused("redirect", status=status, headers=headers, url=url, location=location)
    if 200 <= status < 300:
        reason = f"it answered {status}, as to a browser"
        return UpgradeRefused("not-websocket", status=status, headers=headers, url=url, reason=reason)
    cause = "overloaded" if status in _OVERLOADED else _CODES.get(status, "http-status")
    if status in _NOT_READY and not response.get("wstunnel-error"):  # a bridge's own 409 is about a resume
        cause = "not-ready"
    return UpgradeRefused(cause, status=status, headers=headers, url=url, message=message_of(response))


def message_of(response: Response) -> str:
    """Return what a response says in its body (a message in JSON, a line of plain text), else its reason phrase."""
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
    """Return what the title says after the status, as nginx tells why: ``400 No required SSL certificate was sent``."""
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
