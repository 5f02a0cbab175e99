"""Checks of every request to the terminal service before its handler runs, and time limits for every answer.

In this order: host name and origin (403), access token (401), encoding of the body (415). No byte of a body is read
without a valid token. If a handler fails, the answer is 400 for a malformed body, and 500 for a bug.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion10, RawRequestMessage

from tunnel.net.forwarded import TrustedProxies
from tunnel.net.time_limit import within
from tunnel.pty.protocol import messages
from tunnel.pty.protocol.framing import ConnectError
from tunnel.pty.server.authentication import Guard
from tunnel.pty.server.compression import ENCODINGS, Inflated
from tunnel.pty.server.connection import BODY_ERRORS, Connection
from tunnel.pty.server.rejection_delay import RejectionDelay
from tunnel.pty.server.rpc import error_response
from tunnel.server.log import event, unexpected

ANSWER_LIMIT = 60.0  # seconds for a client to read an answer, unless it is a stream
REFUSAL_LIMIT = 10.0  # seconds for a client to read a refusal
REFUSALS_LIMIT = 4  # in a row, after which a connection is closed
_MULTIPART = "multipart/form-data"

Handler = Callable[[Any], Awaitable[web.StreamResponse]]


class RequestChecks:
    """The checks. Requests for ``open_paths`` need no token; ``proxies`` may name the clients of their requests."""

    def __init__(self, guard: Guard, open_paths: frozenset[str], proxies: TrustedProxies) -> None:
        self._guard = guard
        self._open_paths = open_paths
        self._proxies = proxies
        self._rejection_delay = RejectionDelay()

    def install(self, server: web.Server, direct: Mapping[str, Handler]) -> None:
        """Check all requests to ``server``, whose connections must be `Connection`s.

        Requests whose path begins with a key of ``direct`` go straight to that handler: the application's router and
        signals cost more than many a handler. Only those with Expect need the application, which answers that.
        """
        others, make_request = server.request_handler, server.request_factory

        def handler_of(request: web.BaseRequest) -> Handler:
            if "Expect" not in request.headers:
                for prefix, handler in direct.items():
                    if request.path.startswith(prefix):
                        return handler
            return others

        async def guarded(request: web.BaseRequest) -> web.StreamResponse:
            connection = cast(Connection, request.protocol)
            connection.count_for(self._proxies.client(connection.peer, request.headers.getall("X-Forwarded-For", ())))
            with connection.answering(request):
                response = await self._admit(request, connection) or await _handle(request, handler_of(request))
                if not response.prepared:
                    await _send(request, response, connection)
                return response

        def make(
            message: RawRequestMessage,
            payload: StreamReader,
            protocol: web.RequestHandler,
            writer: AbstractStreamWriter,
            task: asyncio.Task[None],
        ) -> web.BaseRequest:
            encoding = _encoding(message.headers.get("Content-Encoding"))
            body = cast(StreamReader, Inflated(payload, encoding)) if encoding in ENCODINGS else payload
            return make_request(message, body, protocol, writer, task)

        server.request_handler, server.request_factory = guarded, make

    async def _admit(self, request: web.BaseRequest, connection: Connection) -> web.Response | None:
        """Return the answer that refuses a request, None to let it in; raises ConnectionResetError."""
        if request.version < HttpVersion10:
            connection.hang_up(400, "malformed", "this is not an HTTP/1.1 request")
            raise ConnectionResetError("HTTP/0.9 has no status codes")
        is_open = request.rel_url.raw_path in self._open_paths
        try:
            self._guard.check_source(request.raw_path, request.headers)
            if not is_open:
                self._guard.check_token(request.headers)
        except ConnectError as exc:
            connection.note_admission(False)
            if exc.code == "unauthenticated":
                await self._rejection_delay.wait(connection)
            answer = error_response(exc)
            if "text/html" in request.headers.get("Accept", ""):  # somebody reads it in a browser
                answer = web.Response(
                    status=answer.status, text=f"{exc.message}\n", headers={"Cache-Control": "no-store"}
                )
            if connection.refusals >= REFUSALS_LIMIT:
                answer.force_close()
            event(logging.INFO, "refused", client=connection.client.address, status=answer.status, error=exc.code)
            return answer
        connection.note_admission(not is_open or not self._guard.needs_token)
        encoding = _encoding(request.headers.get("Content-Encoding"))
        if encoding not in ("identity", *ENCODINGS) or (encoding != "identity" and request.content_type == _MULTIPART):
            answer = web.Response(status=415, headers={"Accept-Encoding": ", ".join(ENCODINGS)})
            return answer
        return None


async def _handle(request: web.BaseRequest, handle: Handler) -> web.StreamResponse:
    try:
        return await handle(request)
    except web.HTTPException as exc:
        # A new object, because aiohttp only sends this one if it is raised, and then without a time limit.
        allow = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else None
        # Without the original text, which may quote a header.
        return web.Response(status=exc.status, text=f"{exc.status}: {exc.reason}\n", headers=allow)
    except ConnectionError:
        raise
    except Exception as exc:
        if _is_clients(exc):
            status, message = 400, "the request's body is malformed"
        else:
            status, message = 500, "internal error; the service's log has the details"
            unexpected(exc, path=request.path)
        response = web.json_response({"code": status, "message": message}, status=status)
        response.force_close()
        return response


async def _send(request: web.BaseRequest, response: web.StreamResponse, connection: Connection) -> None:
    response.headers[messages.SERVICE] = "1"
    if response.status >= 400 and ("Expect" in request.headers or "Upgrade" in request.headers):
        response.force_close()  # what follows may be a body, another protocol or a request
    try:
        await within(ANSWER_LIMIT if response.status < 400 else REFUSAL_LIMIT, _write(request, response))
    except TimeoutError:
        connection.drop()
        raise ConnectionResetError("the client did not read the answer in time") from None


async def _write(request: web.BaseRequest, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write_eof()


def _is_clients(error: Exception) -> bool:
    """Return whether the client caused an exception, by a body that aiohttp cannot parse."""
    if isinstance(error, BODY_ERRORS):
        return True
    if isinstance(error, OSError | MemoryError):
        return False
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "aiohttp.multipart":
            return True
        trace = trace.tb_next
    return False


def _encoding(header: str | None) -> str:
    return (header or "identity").strip().lower()
