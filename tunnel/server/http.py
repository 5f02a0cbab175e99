"""The HTTP exchange before a tunnel: reads one bounded request head, and sends one answer.

This module handles sockets and the form of HTTP; `tunnel.server.handshake` handles access rules and WebSockets.
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import json
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from tunnel.net.async_sockets import close_gently, readable, writable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunnel.net.channel import Channel

HEAD_LIMIT = 16 * 1024  # bytes of a request head
RETRY_AFTER = 5  # seconds; the Retry-After for a client when a limit is reached
_SEND_LIMIT = 2.0  # seconds for a last answer, which fits into any socket's buffer
_END = b"\r\n\r\n"
# RFC 9112 section 3: method SP request-target SP HTTP-version, all of them visible ASCII.
_REQUEST_LINE = re.compile(rb"([!-~]+) ([!-~]+) HTTP/1\.([01])\r")


class Refusal(Exception):
    """A request that is answered with an HTTP error.

    ``code`` is the reason for programs, ``message`` for people; ``headers`` are added to the answer. ``slowly``: delay
    the answer, to slow down guessing of secrets.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        slowly: bool = False,
    ) -> None:
        super().__init__(message)
        self.slowly = slowly
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def answer(self) -> bytes:
        body = {"error": self.code, "message": self.message}
        return answer(self.status, body, {"Wstunnel-Error": self.code, **self.headers})


def busy(code: str, message: str) -> Refusal:
    """Return the refusal of a client that may try again soon."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, code, message, {"Retry-After": str(RETRY_AFTER)})


class Head:
    """A request's head: ``data`` up to the empty line, the ``rest`` after it, and the parts of its first line."""

    __slots__ = ("data", "method", "minor", "path", "rest")

    def __init__(self, data: bytes, rest: bytes) -> None:
        self.data = data
        self.rest = rest
        match = _REQUEST_LINE.match(data)
        if not match:
            raise _garbage("the first line is not an HTTP/1.1 request line")
        self.method = match[1].decode("ascii")
        self.path = match[2].decode("ascii").partition("?")[0]
        self.minor = int(match[3])


async def read_head(channel: Channel) -> Head:
    """Read one request head. There is no time limit: the caller sets one.

    Raises Refusal for an invalid or too long request, ConnectionError if the client closed the connection without
    sending anything, OSError if the connection broke.
    """
    buffer = bytearray(HEAD_LIMIT)
    filled = 0
    while filled < HEAD_LIMIT:
        n = channel.receive_into(memoryview(buffer)[filled:])
        if n is None:
            if channel.pending:
                await asyncio.sleep(0)  # let other tasks run
            else:
                await readable(channel.fileno())
            continue
        if n == 0:
            if filled:
                raise _garbage("the request ends in the middle of its head")
            raise ConnectionError("closed without a request")
        _check_start(buffer, filled + n)
        end = buffer.find(_END, max(0, filled - len(_END)), filled + n)
        filled += n
        if end >= 0:
            end += len(_END)
            return Head(bytes(buffer[:end]), bytes(buffer[end:filled]))
    raise Refusal(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "head-too-large",
        f"the head of the request is longer than {HEAD_LIMIT} bytes",
    )


def _check_start(buffer: bytearray, filled: int) -> None:
    """Refuse data that is not HTTP at once, instead of waiting for an end that never comes."""
    if buffer[0] == 0x16:  # a TLS handshake record
        raise _garbage("this is TLS, but this port speaks plain HTTP: use ws://, not wss://")
    line_end = buffer.find(b"\n", 0, filled)
    if line_end >= 0 and not _REQUEST_LINE.match(buffer):
        raise _garbage("the first line is not an HTTP/1.1 request line")


def _garbage(problem: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "bad-request", problem)


def answer(
    status: HTTPStatus, body: Mapping[str, object], headers: Mapping[str, str], *, with_body: bool = True
) -> bytes:
    """Return the bytes of an answer with a JSON body, after which the connection is closed.

    ``with_body`` is False for a HEAD request: the answer is the same without the body.
    """
    payload = json.dumps(body).encode() + b"\n"
    fields = {
        "Date": date(),
        "Content-Type": "application/json",
        "Content-Length": str(len(payload)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **headers,
    }
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    return head.encode("ascii") + b"\r\n" + (payload if with_body else b"")


def date() -> str:
    """Return the value of a Date field."""
    return _date_of(int(time.time()))


@functools.lru_cache(maxsize=1)  # many tunnels may be opened in a second
def _date_of(seconds: int) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


async def send(channel: Channel, data: bytes) -> None:
    """Send all of ``data``. There is no time limit: the caller sets one. Raises OSError when the connection broke."""
    view = memoryview(data)
    while view:
        n = channel.send([view])
        if n == 0:
            await writable(channel.fileno())
        view = view[n:]


async def send_last(channel: Channel, data: bytes) -> None:
    """Send ``data`` and close the connection so that the client can read it; ignores errors of the connection."""
    try:
        async with asyncio.timeout(_SEND_LIMIT):
            await send(channel, data)
            channel.end_writing()
    except OSError:  # TimeoutError too
        channel.close()
    else:
        await close_gently(channel.sock)
