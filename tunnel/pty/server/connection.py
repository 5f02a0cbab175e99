"""A connection to the terminal service, watched from its first byte: deadlines, bounds, answers to what is no HTTP.

aiohttp speaks HTTP; it gives a client all the time of the world for a request's head, and tells of malformed requests
by tracebacks in a log of its own and by quoting them in the answer. This keeps both in bounds. Nothing of a request is
ever quoted, neither in an answer nor in the log: what a client got wrong may be the header with its token.
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

HEAD_LIMIT = 10.0  # seconds from a connection's begin, or from a later head's first byte, to the end of that head
IDLE_LIMIT = 75.0  # seconds that a connection is kept without a request
LINGER_LIMIT = 2.0  # seconds that a client has to read a last answer while it may still be sending
HEAD_SIZE = 64 << 10  # bytes of one head
AHEAD_SIZE = 64 << 10  # bytes of requests that are sent while another one is being answered
BODY_BUFFER = 64 << 10  # bytes of a body that are read ahead (twice that at most)
BODY_PATIENCE = 2.0  # seconds after which a request whose body is not there yet has less to show

# What a connection has to show for its place.
UNKNOWN, IDLE, AT_WORK = 0, 1, 2

_END_OF_HEAD = b"\r\n\r\n"
# Complaints of the parser that tell nothing of the request but the name of a header field.
_QUOTABLE = re.compile(
    r"Duplicate '[A-Za-z-]{1,40}' header found\.|Missing 'Host' header in request\.|Too many headers.*"
)

# The options of aiohttp's class.
OPTIONS: dict[str, Any] = {
    "access_log": None,
    "auto_decompress": False,
    "keepalive_timeout": IDLE_LIMIT,
    "lingering_time": LINGER_LIMIT,
    "read_bufsize": BODY_BUFFER,
}


class Connection(web.RequestHandler):
    """aiohttp's connection with deadlines and bounds; it holds ``place``, which it gives back when it is closed."""

    __slots__ = (
        "_ahead", "_began", "_body", "_came", "_deaf", "_hurry", "_is_admitted", "_moves", "_seen", "_tail", "_timer",
        "_wire", "_works", "client", "peer", "place", "refusals",
    )  # fmt: skip

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, client: Client) -> None:
        super().__init__(server, loop=loop, **OPTIONS)
        self.peer = client  # who has connected …
        self.client = client  # … and for whom, if that is a proxy that is trusted to tell
        self.place: Place | None = None
        self.refusals = 0  # in a row
        self._wire: asyncio.Transport | None = None  # also when aiohttp has closed it, and what it wrote is under way
        self._is_admitted = False  # whether the last request had what it needs to be let in
        self._works = False  # whether a request is being answered
        self._began = 0.0  # when that has begun
        self._moves: Callable[[], object] | None = None  # whether it gets on, as its handler sees it
        self._body: StreamReader | None = None  # of the latest request
        self._seen = 0  # bytes of a head that is incomplete
        self._tail = b""  # its last ones
        self._came = False  # whether a head is complete whose request is not being answered yet
        self._ahead = 0  # bytes that came while a request was being answered
        self._deaf = False  # whether nothing that comes counts any more
        self._hurry: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- Its place among others

    def standing(self) -> int:
        """Return what it has to show: see `tunnel.server.shares`."""
        if not self._is_admitted:
            return UNKNOWN
        return AT_WORK if self._works and self._gets_on() else IDLE

    def _gets_on(self) -> bool:
        """Return whether the request gets on, rather than to hold the place with a body that does not come."""
        if self._moves is not None:
            return bool(self._moves())
        has_all = self._body is None or self._body.is_eof()
        return has_all or self._loop.time() - self._began < BODY_PATIENCE

    def judge_by(self, moves: Callable[[], object]) -> None:
        """Let ``moves`` tell whether the request that is being answered gets on, however much of its body has come."""
        self._moves = moves

    def count_for(self, client: Client) -> None:
        """Count for another client from now on: a proxy that is trusted tells for whom its request is."""
        self.client = client
        if self.place is not None and self.place.source != client.source:
            self.place.move(client.source)

    def give_way(self) -> None:
        """Lease to another client, which needs the place."""
        event(logging.INFO, "refused", client=self.client.address, error="gave-way")
        self.drop()

    def drop(self) -> None:
        """Close the connection at once, whatever is going on."""
        self._deaf = True
        if self._wire is not None:
            self._wire.abort()

    # --- Requests

    @contextmanager
    def answering(self, request: web.BaseRequest) -> Iterator[None]:
        """Tell that ``request`` is being answered."""
        self._disarm()
        self._works, self._came, self._body, self._ahead = True, False, request.content, 0
        self._began, self._moves = self._loop.time(), None
        try:
            yield
        finally:
            self._works = False
            self._arm(2 * LINGER_LIMIT if self._deaf else IDLE_LIMIT)

    def note_admission(self, admitted: bool) -> None:
        """Tell whether the request that is being answered had what it needs to be let in."""
        self._is_admitted = admitted
        self.refusals = 0 if admitted else self.refusals + 1

    def when_more_comes(self, hurry: Callable[[], None] | None) -> None:
        """Let ``hurry`` be called when the client sends another request before this one is answered."""
        self._hurry = hurry
        if hurry is not None and self._messages:
            hurry()

    # --- What comes from the network

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wire = self.transport
        self._arm(HEAD_LIMIT)
        if self._deaf:  # its place was taken by another one meanwhile
            self.drop()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._wire = None
        self._disarm()
        if self.place is not None:
            self.place.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if data and (self._body is None or self._body.is_eof()) and not self._may_come(data):
            return
        try:
            super().data_received(data)
        except Exception as exc:  # of the parser, which passes not all that a client may do to it
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
        """Take note of ``data``, which belongs to no body; return whether it is within bounds."""
        if self._works:
            self._ahead += len(data)
            if self._ahead > AHEAD_SIZE:
                self.drop()
                return False
            if self._hurry is not None:
                self._hurry()
            return True
        if self._came:
            return True  # the beginning of its body, most likely
        if not self._seen:
            data = data.lstrip(b"\r\n")  # as the parser does
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
        """Do what is left to do when aiohttp has met something malformed, which it will answer in its turn."""
        self._deaf = True
        if self._body is not None and not self._body.is_eof():
            # It forgets the body that this was a part of, and whoever reads that would wait for more.
            self._body.set_exception(BrokenBody("the body is malformed"))
        if not self._works:
            self._arm(HEAD_LIMIT)

    # --- Answers to what is malformed

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that is malformed (400), or whose handler has failed in an unexpected way."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionResetError("there is no answering this client any more") from exc
        if status == 400:
            text = _reason(exc)
            self._log_refusal(400, "malformed", text)
        else:
            status, text = 500, "an unexpected error; the service's log has more"
            unexpected(exc or RuntimeError(f"status {status}"), client=self.client.address)
        answer = _LastAnswer(self.transport, status=status, text=f"{text}\n")
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log what aiohttp could not handle; what a client did to its connection or to a body is nothing to log."""
        exc = kwargs.get("exc_info")
        if not isinstance(exc, BaseException):
            exc = RuntimeError(str(args[0]) if args else "")
        if not isinstance(exc, BODY_ERRORS) and not isinstance(exc, ConnectionError):
            unexpected(exc, client=self.client.address)

    def hang_up(self, status: int, error: str, reason: str) -> None:
        """Refuse what aiohttp shall not answer, and close."""
        self._deaf = True
        self._log_refusal(status, error, reason)
        if self.transport is not None:
            self.transport.write(last_words(status, reason))
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
        if self._seen and self._body is None and not self._deaf:
            self.hang_up(408, "slow", "the request did not come in time")
        else:
            self.drop()


class _LastAnswer(web.Response):
    """The last answer on a connection whose client may still be sending.

    To close such a connection at once would reset it, and the reset would overtake the answer (RFC 9112 section 9.6).
    """

    def __init__(self, transport: asyncio.Transport | None, *, status: int, text: str) -> None:
        super().__init__(status=status, text=text)
        self._transport = transport

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data)
        if self._transport is not None:
            _half_close(self._transport)
            await asyncio.sleep(LINGER_LIMIT)  # ends sooner when the client hangs up, which cancels this


def last_words(status: int, reason: str) -> bytes:
    """Return a whole answer as bytes, for a connection that is closed after it."""
    body = f"{reason}\n".encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{SERVICE}: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _half_close(transport: asyncio.Transport) -> None:
    if transport.can_write_eof():
        transport.write_eof()


# What reading a body raises for a client's fault.
BODY_ERRORS = (BrokenBody, web.RequestPayloadError, HttpProcessingError)


def _reason(exc: BaseException | None) -> str:
    """Return what is wrong with a request, without a word of it."""
    if isinstance(exc, BadHttpMethod):
        tls = "HTTPS" in str(exc)
        return "this is TLS, and the service speaks plain HTTP" if tls else "this is no HTTP request"
    if isinstance(exc, InvalidURLError):
        return "the request's target is malformed"
    if isinstance(exc, LineTooLong):
        return "a line of the request's head is too long"
    if isinstance(exc, BadStatusLine):
        return "the request's first line is malformed"
    text = getattr(exc, "message", "")
    return text if isinstance(text, str) and _QUOTABLE.fullmatch(text) else "the request is malformed"
