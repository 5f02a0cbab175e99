"""One connection to the terminal service: deadlines, size limits, and answers to malformed requests.

aiohttp has no time limit for the head of a request, logs a traceback for each malformed one, and quotes it in the
answer. This module sets limits, and neither answers nor log lines quote any part of a request: the part that is wrong
may be the header with the token.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import BadHttpMethod, BadStatusLine, HttpProcessingError, InvalidURLError, LineTooLong

from tunnel.net.address import Client
from tunnel.pty.protocol.messages import SERVICE
from tunnel.pty.server.compression import BrokenBody
from tunnel.server.log import event, unexpected
from tunnel.server.shares import Place

HEAD_LIMIT = 10.0  # seconds for a request's head, from the connection's start or the head's first byte
IDLE_LIMIT = 75.0  # seconds that a connection may stay without a request
LINGER_LIMIT = 2.0  # seconds for a client to read the last answer, while it may still be sending
HEAD_SIZE = 64 << 10  # bytes of one head
AHEAD_SIZE = 64 << 10  # bytes of pipelined requests
BODY_BUFFER = 64 << 10  # bytes of a body to read ahead; aiohttp reads up to twice that
BODY_PATIENCE = 2.0  # seconds after which a request whose body is still incomplete counts as idle

# Standings of a connection, for `tunnel.server.shares`: the lowest is evicted first.
UNKNOWN, IDLE, AT_WORK = 0, 1, 2

_END_OF_HEAD = b"\r\n\r\n"
# Error messages of the parser that quote nothing of the request but the name of a header field.
_QUOTABLE = re.compile(
    r"Duplicate '[A-Za-z-]{1,40}' header found\.|Missing 'Host' header in request\.|Too many headers.*"
)

# Arguments of aiohttp's class.
OPTIONS: dict[str, Any] = {
    "access_log": None,
    "auto_decompress": False,
    "keepalive_timeout": IDLE_LIMIT,
    "lingering_time": LINGER_LIMIT,
    "read_bufsize": BODY_BUFFER,
}


class Connection(web.RequestHandler):
    """aiohttp's connection with deadlines and limits. It holds ``place`` until it is closed."""

    __slots__ = (
        "_ahead", "_began", "_body", "_came", "_hurry", "_ignores_data", "_is_admitted", "_lasts", "_moves", "_seen",
        "_tail", "_timer", "_wire", "_works", "client", "peer", "place", "refusals",
    )  # fmt: skip

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, client: Client) -> None:
        super().__init__(server, loop=loop, **OPTIONS)
        self.peer = client  # the other end of the connection
        self.client = client  # the client behind it, if the peer is a trusted proxy
        self.place: Place | None = None
        self.refusals = 0  # in a row
        self._wire: asyncio.Transport | None = None  # set until it is really closed, unlike aiohttp's `transport`
        self._is_admitted = False  # whether the last request was let in
        self._works = False  # whether a request is being answered
        self._lasts = False  # whether that may take long
        self._began = 0.0  # when its answer began
        self._moves: Callable[[], object] | None = None  # whether the request makes progress, if its handler knows
        self._body: StreamReader | None = None  # of the latest request
        self._seen = 0  # bytes of an incomplete head
        self._tail = b""  # the last of these bytes
        self._came = False  # whether the head of the next request is complete
        self._ahead = 0  # bytes that arrived while a request was being answered
        self._ignores_data = False  # whether further data is ignored
        self._hurry: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- Eviction for others

    def standing(self) -> int:
        """Return its standing: see `tunnel.server.shares`."""
        if not self._is_admitted:
            return UNKNOWN
        return AT_WORK if self._works and self._gets_on() else IDLE

    def _gets_on(self) -> bool:
        """Return whether the request makes progress, and does not just wait for a body that never arrives."""
        if self._moves is not None:
            return bool(self._moves())
        has_all = self._body is None or self._body.is_eof()
        return has_all or self._loop.time() - self._began < BODY_PATIENCE

    def judge_by(self, moves: Callable[[], object]) -> None:
        """Let ``moves`` decide whether the current request makes progress, however much of its body has arrived."""
        self._moves = moves

    @property
    def is_answering(self) -> bool:
        """Whether an answer is under way that is worth waiting for: it does not take long."""
        return self._works and not self._lasts

    def lasts(self, on: bool = True) -> None:
        """Note that the current answer takes long, or no longer."""
        self._lasts = on

    def close_if_idle(self) -> None:
        """Close the connection if it has served its purpose: requests were answered, and none has begun since."""
        if self._wire is not None and self._body is not None and not (self._works or self._seen or self._messages):
            self._wire.close()

    def count_for(self, client: Client) -> None:
        """Count as a connection of ``client`` from now on, as reported by a trusted proxy."""
        self.client = client
        if self.place is not None and self.place.source != client.source:
            self.place.move(client.source)

    def give_way(self) -> None:
        """Close the connection, because another client needs its slot."""
        event(logging.INFO, "refused", client=self.client.address, error="evicted")
        self.drop()

    def drop(self) -> None:
        """Close the connection at once."""
        self._ignores_data = True
        if self._wire is not None:
            self._wire.abort()

    # --- Requests

    @contextmanager
    def answering(self, request: web.BaseRequest) -> Iterator[None]:
        """Mark ``request`` as being answered, for the time of the block."""
        self._disarm()
        self._works, self._came, self._body, self._ahead = True, False, request.content, 0
        self._began, self._moves, self._lasts = self._loop.time(), None, False
        try:
            yield
        finally:
            self._works = False
            self._arm(2 * LINGER_LIMIT if self._ignores_data else IDLE_LIMIT)

    def note_admission(self, admitted: bool) -> None:
        """Note whether the current request was let in."""
        self._is_admitted = admitted
        self.refusals = 0 if admitted else self.refusals + 1

    def when_more_comes(self, hurry: Callable[[], None] | None) -> None:
        """Call ``hurry`` when the client sends another request before this one is answered."""
        self._hurry = hurry
        if hurry is not None and self._messages:
            hurry()

    # --- Data from the network

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wire = self.transport
        self._arm(HEAD_LIMIT)
        if self._ignores_data:  # it was evicted in the meantime
            self.drop()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._wire = None
        self._disarm()
        if self.place is not None:
            self.place.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ignores_data:
            return
        if data and (self._body is None or self._body.is_eof()) and not self._may_come(data):
            return
        try:
            super().data_received(data)
        except Exception as exc:  # a bug in the parser, which a client can trigger
            if not isinstance(exc, ValueError | AssertionError):
                unexpected(exc, client=self.client.address)
            if self._works:
                self._stop_listening()
            else:
                self.hang_up(400, "malformed", "the request is malformed")
            return
        if self._messages and not hasattr(self._messages[-1][0], "headers"):
            self._stop_listening()

    def _may_come(self, data: bytes) -> bool:
        """Count ``data``, which is not part of a body; return whether it is within the limits."""
        if self._works:
            self._ahead += len(data)
            if self._ahead > AHEAD_SIZE:
                self.drop()
                return False
            if self._hurry is not None:
                self._hurry()
            return True
        if self._came:
            return True  # probably the beginning of the body
        if not self._seen:
            data = data.lstrip(b"\r\n")  # the parser does the same
            if data and self._body is not None:
                self._arm(HEAD_LIMIT)
        end = (self._tail + data).find(_END_OF_HEAD)
        self._seen += len(data) if end < 0 else end
        if self._seen > HEAD_SIZE:
            self.hang_up(400, "malformed", "the request's head is too long")
            return False
        self._came = end >= 0
        self._tail = (self._tail + data)[1 - len(_END_OF_HEAD) :]
        if self._came:
            self._seen, self._tail = 0, b""
        return True

    def _stop_listening(self) -> None:
        """Ignore further data: aiohttp has found something malformed and will answer it in turn."""
        self._ignores_data = True
        if self._body is not None and not self._body.is_eof():
            # aiohttp forgets the body that it was reading, so a handler would wait for the rest forever.
            self._body.set_exception(BrokenBody("the body is malformed"))
        if not self._works:
            self._arm(HEAD_LIMIT)

    # --- Answers to malformed requests

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a malformed request (400) or to one whose handler failed (500)."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionResetError("this client cannot be answered any more") from exc
        if status == 400:
            text = _reason(exc)
            self._log_refusal(400, "malformed", text)
        else:
            status, text = 500, "internal error; the service's log has the details"
            unexpected(exc or RuntimeError(f"status {status}"), client=self.client.address)
        answer = _FinalAnswer(self.transport, status=status, text=f"{text}\n")
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log an exception that aiohttp could not handle, unless it is about a broken connection or body."""
        exc = kwargs.get("exc_info")
        if not isinstance(exc, BaseException):
            exc = RuntimeError(str(args[0]) if args else "")
        if not isinstance(exc, BODY_ERRORS) and not isinstance(exc, ConnectionError):
            unexpected(exc, client=self.client.address)

    def hang_up(self, status: int, error: str, reason: str) -> None:
        """Send a final answer in place of aiohttp's, and close the connection."""
        self._ignores_data = True
        self._log_refusal(status, error, reason)
        if self.transport is not None:
            self.transport.write(final_answer(status, reason))
            _half_close(self.transport)
        self._arm(LINGER_LIMIT)

    def _log_refusal(self, status: int, error: str, reason: str) -> None:
        event(logging.INFO, "refused", client=self.client.address, status=status, error=error, reason=reason)

    # --- Deadlines

    def _arm(self, seconds: float) -> None:
        self._disarm()
        if self._wire is not None:
            self._timer = self._loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if self._seen and self._body is None and not self._ignores_data:
            self.hang_up(408, "slow", "the request did not arrive in time")
        else:
            self.drop()


class _FinalAnswer(web.Response):
    """The last answer on a connection whose client may still be sending.

    Closing it at once would reset the connection, and the client could lose the answer (RFC 9112 section 9.6).
    """

    def __init__(self, transport: asyncio.Transport | None, *, status: int, text: str) -> None:
        super().__init__(status=status, text=text)
        self._transport = transport

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data)
        if self._transport is not None:
            _half_close(self._transport)
            await asyncio.sleep(LINGER_LIMIT)  # cancelled when the client closes the connection


def final_answer(status: int, reason: str) -> bytes:
    """Return a complete answer as bytes, for a connection that is closed after it."""
    body = f"{reason}\n".encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{SERVICE}: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _half_close(transport: asyncio.Transport) -> None:
    if transport.can_write_eof():
        transport.write_eof()


# What reading a body raises if the client is at fault.
BODY_ERRORS = (BrokenBody, web.RequestPayloadError, HttpProcessingError)


def _reason(exc: BaseException | None) -> str:
    """Return what is wrong with a request, without quoting it."""
    if isinstance(exc, BadHttpMethod):
        tls = "HTTPS" in str(exc)
        return "this is TLS, but the service speaks plain HTTP" if tls else "this is not an HTTP request"
    if isinstance(exc, InvalidURLError):
        return "the request's target is malformed"
    if isinstance(exc, LineTooLong):
        return "a line of the request's head is too long"
    if isinstance(exc, BadStatusLine):
        return "the request's first line is malformed"
    text = getattr(exc, "message", "")
    return text if isinstance(text, str) and _QUOTABLE.fullmatch(text) else "the request is malformed"
