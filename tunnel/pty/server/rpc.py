"""The eight methods of process.Process over HTTP: parsing requests, time limits, and replies.

Requests that reach no method are refused in plain HTTP (404, 405, 415). A unary method reports an error by an HTTP
status with JSON, a streaming method in the last envelope of a reply with status 200.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import cast

from aiohttp import web

from tunnel.net.time_limit import within
from tunnel.pty.protocol import framing, messages
from tunnel.pty.protocol.framing import ConnectError, Decoder, Malformed, Object
from tunnel.pty.protocol.messages import Event
from tunnel.pty.server.broadcast import Subscriber
from tunnel.pty.server.connection import BODY_ERRORS, Connection
from tunnel.pty.server.process import Process
from tunnel.pty.server.processes import KILL_LIMIT, Processes
from tunnel.pty.server.users import Users, asked_user
from tunnel.server.log import unexpected

BODY_LIMIT = 60.0  # seconds for the body of a request
WRITE_LIMIT = 900.0  # seconds that a subscriber may read nothing from its stream
TERMINATE_LIMIT = 1.0  # seconds to wait for the end after SIGTERM, which a process may ignore
KEEPALIVE_DEFAULT = 90  # seconds
_KEEPALIVE_LIMITS = (1, 3600)
_UNLIMITED = 10.0**9
_KILL_WITH_GRACE = re.compile(r"kill; *grace=([0-9]{1,5})")
_KEY = re.compile(r"[0-9a-f]{32}")

_NO_STORE = {"Cache-Control": "no-store"}
# Otherwise proxies such as nginx would buffer the stream.
_STREAM_HEADERS = {
    "Content-Type": framing.STREAM_TYPE, "X-Accel-Buffering": "no", **_NO_STORE, messages.SERVICE: "1",
}  # fmt: skip

Unary = Callable[[web.Request, Object], Awaitable[Object]]
Streaming = Callable[["_Stream"], Awaitable[None]]


class ProcessService:
    """The handler of ``/process.Process/{method}``."""

    def __init__(self, processes: Processes, users: Users) -> None:
        self._processes = processes
        self._users = users
        self._streams: set[_Stream] = set()
        self._unary: Mapping[str, Unary] = {
            "List": self._list,
            "Update": self._update,
            "SendInput": self._send_input,
            "SendSignal": self._signal,
            "CloseStdin": self._close_stdin,
        }
        self._streaming: Mapping[str, Streaming] = {
            "Start": self._start,
            "Connect": self._connect,
            "StreamInput": self._stream_input,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        name = request.path.removeprefix(messages.PREFIX)
        if name not in self._unary and name not in self._streaming:
            return web.Response(status=404, text="process.Process has no such method\n")
        if request.method != "POST":
            return web.Response(status=405, headers={"Allow": "POST"})
        expected = framing.UNARY_TYPE if name in self._unary else framing.STREAM_TYPE
        if request.content_type != expected:
            return web.Response(status=415, headers={"Accept-Post": expected})
        if name in self._unary:
            return await _answer(request, self._unary[name])
        stream = _Stream(request)
        self._streams.add(stream)
        try:
            return await stream.run(self._streaming[name])
        finally:
            self._streams.discard(stream)

    def end_streams(self) -> None:
        """End all streams at once and without waiting, as the service is about to become its new version."""
        for stream in self._streams:
            stream.break_off(ConnectError("unavailable", "the service is being restarted: connect again"))

    # --- Streams

    async def _start(self, stream: _Stream) -> None:
        start = messages.parse_start_request(await stream.read_message())
        user = self._users.choose(asked_user(stream.request.headers.get("Authorization")))
        grace = _grace(stream.request)
        if (twin := self._started_before(stream.request, start)) is not None:
            if start.size is not None and not twin.exited.is_set():
                twin.resize(start.size)
            await stream.relay(twin, twin.subscribe(0), owner=False)
            return
        process = self._processes.start(start, user)
        if stream.seconds is not None:
            process.kill_after(stream.seconds)
        if grace is not None:
            process.kill_when_left(grace)
        await stream.relay(process, process.subscribe(0), owner=True)

    def _started_before(self, request: web.Request, start: messages.StartRequest) -> Process | None:
        """Return the process that an earlier copy of this request has started, if the client wants it only once."""
        once = request.headers.get(messages.ONCE)
        if once is None:
            return None
        if once != "tag" or start.tag is None:
            raise Malformed(f"{messages.ONCE} of Start must be: tag; and the request needs one")
        try:
            return self._processes.find(start.tag, ended=True)
        except ConnectError:
            return None

    async def _connect(self, stream: _Stream) -> None:
        selector = messages.parse_selector(await stream.read_message())
        process = self._processes.find(selector, ended=True)
        wanted = stream.request.headers.get(messages.PROCESS)
        if wanted is not None and wanted != process.id:
            raise ConnectError("not_found", f"pid {process.pid} is another process now")
        offset = _number(stream.request.headers, messages.REPLAY_FROM, digits=18)
        await stream.relay(process, process.subscribe(offset), owner=False)

    async def _stream_input(self, stream: _Stream) -> None:
        process: Process | None = None
        async for message in stream.messages():
            told = messages.parse_stream_message(message)
            if isinstance(told, int | str):
                if process is not None:
                    raise Malformed("only the first message may be a start")
                process = self._processes.find(told)
                # From now on it is normal that data arrives only now and then.
                stream.connection.judge_by(lambda: True)
                stream.connection.lasts()
            elif process is None:
                raise Malformed("the first message must be a start")
            elif told is not None:
                if process.exited.is_set():
                    raise ConnectError("not_found", f"process {process.pid} has ended")
                await process.send(told)
        if process is None:
            raise Malformed("the request has no message")
        await stream.write(framing.envelope(framing.encode({})))

    # --- Unary methods

    async def _list(self, request: web.Request, message: Object) -> Object:
        return messages.list_reply(self._processes.list())

    async def _update(self, request: web.Request, message: Object) -> Object:
        selector, size = messages.parse_update_request(message)
        process = self._processes.find(selector)
        keep = request.headers.get(messages.ON_DISCONNECT)
        if keep not in (None, "keep"):
            raise Malformed(f"{messages.ON_DISCONNECT} of Update must be: keep")
        if size is not None:
            process.resize(size)
        if keep:
            process.kill_when_left(None)
        return {}

    async def _send_input(self, request: web.Request, message: Object) -> Object:
        selector, given = messages.parse_input_request(message)
        key = request.headers.get(messages.INPUT_KEY)
        if key is not None and not _KEY.fullmatch(key):
            raise Malformed(f"{messages.INPUT_KEY} must have 32 lowercase hexadecimal digits")
        await self._processes.find(selector).send(given, key)
        return {}

    async def _signal(self, request: web.Request, message: Object) -> Object:
        selector, number = messages.parse_signal_request(message)
        process = self._processes.find(selector)
        process.signal(number)
        kill = number == signal.SIGKILL
        try:
            async with asyncio.timeout(KILL_LIMIT if kill else TERMINATE_LIMIT):
                await process.exited.wait()
        except TimeoutError:
            if kill:
                raise ConnectError("internal", f"process {process.pid} was killed but has not ended yet") from None
        return {}

    async def _close_stdin(self, request: web.Request, message: Object) -> Object:
        self._processes.find(messages.parse_selector(message)).close_input()
        return {}


class _Reply(web.StreamResponse):
    """A reply whose head is sent together with its first message, which always follows at once."""

    _send_headers_immediately = False


class _Stream:
    """One request of a streaming method, and its reply.

    ``seconds`` is the request's time limit, None for none; it applies to `relay` and `messages`.
    """

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.connection = cast(Connection, request.protocol)
        self.seconds: float | None = None
        self._began = asyncio.get_running_loop().time()
        self._response: web.StreamResponse | None = None

    async def run(self, method: Streaming) -> web.StreamResponse:
        """Let ``method`` write the reply, then end it with the error that the method raised, if any."""
        try:
            error = await self._try(method)
            response = self._response or await self.open({})
            await self._write(response.write_eof(framing.end_of_stream(error)))
        except ConnectionResetError:
            pass  # the client has disconnected
        return self._response or await self.open({})

    async def _try(self, method: Streaming) -> ConnectError | None:
        try:
            _check_version(self.request)
            if self.request.headers.get("Connect-Content-Encoding", "identity") != "identity":
                raise ConnectError("unimplemented", "compressed messages are not supported")
            self.seconds = _timeout(self.request)
            await method(self)
        except ConnectError as exc:
            return exc
        except ConnectionResetError:
            raise
        except Exception as exc:
            unexpected(exc, path=self.request.path)
            return ConnectError("internal", "internal error; the service's log has the details")
        return None

    async def open(self, headers: Mapping[str, str]) -> web.StreamResponse:
        """Begin the reply."""
        self._response = _Reply(headers={**_STREAM_HEADERS, **headers})
        await self._response.prepare(self.request)
        return self._response

    async def write(self, data: bytes) -> None:
        """Write to the reply; raises ConnectionResetError if the client does not read it."""
        response = self._response or await self.open({})
        await self._write(response.write(data))

    def break_off(self, error: ConnectError) -> None:
        """End the reply with ``error`` as far as that can be sent without waiting. The method is not notified."""
        if self._response is not None and self._response.prepared:
            ending = self._response.write_eof(framing.end_of_stream(error))
            with contextlib.suppress(StopIteration, OSError, RuntimeError):
                ending.send(None)  # its first step hands everything to the transport
            ending.close()
        if self.request.transport is not None:
            self.request.transport.close()

    async def _write(self, writing: Coroutine[None, None, None]) -> None:
        try:
            await within(WRITE_LIMIT, writing)
        except TimeoutError:
            if self.request.transport is not None:
                self.request.transport.abort()
            raise ConnectionResetError(f"the client read nothing for {WRITE_LIMIT:g} s") from None

    async def read_message(self) -> Object:
        """Return the only message of the request; raises ConnectError."""
        decoder = Decoder()
        found = decoder.feed(await _read_body(self.request, framing.MESSAGE_LIMIT + 5))
        decoder.finish()
        if len(found) != 1:
            raise Malformed(f"the request has {len(found)} messages; it must have one")
        return framing.decode(found[0].data)

    async def messages(self) -> AsyncIterator[Object]:
        """Yield the messages of the request as they arrive; raises ConnectError, also when its time is over."""
        decoder = Decoder()
        try:
            async with asyncio.timeout(self.seconds):
                async for data in self.request.content.iter_any():
                    for each in decoder.feed(data):
                        yield framing.decode(each.data)
        except TimeoutError:
            raise ConnectError("deadline_exceeded", "the time limit of this request has passed") from None
        except BODY_ERRORS:
            raise _broken_body() from None
        decoder.finish()

    async def relay(self, process: Process, subscriber: Subscriber, *, owner: bool) -> None:
        """Write events until the process has ended; raises ConnectError.

        ``owner``: this request has started the process, and its time limit is that of the process.
        """
        loop = asyncio.get_running_loop()
        ends = self._began + (_UNLIMITED if self.seconds is None else self.seconds)
        keepalive = _keepalive(self.request)
        try:
            offsets = {messages.OFFSET: str(subscriber.offset), messages.LIVE: str(subscriber.live)}
            await self.open({**offsets, messages.PROCESS: process.id})
            await self._write_event(messages.Started(process.pid))
            self.connection.lasts()
            if subscriber.restore is not None:
                await self._write_event(subscriber.restore)
            while True:
                left = ends - loop.time()
                if left > 0:
                    event = await subscriber.next(min(keepalive, left))
                if left <= 0 or (event is None and loop.time() >= ends) or (owner and process.timed_out):
                    raise ConnectError("deadline_exceeded", "the time limit of this request has passed")
                await self._write_event(event or messages.Keepalive())
                if isinstance(event, messages.Ended):
                    return
        finally:
            subscriber.close()

    async def _write_event(self, event: Event) -> None:
        await self.write(framing.envelope(framing.encode(messages.event_message(event))))


async def _answer(request: web.Request, method: Unary) -> web.Response:
    try:
        _check_version(request)
        return _json(200, await within(_timeout(request), _call(request, method)))
    except TimeoutError:
        error = ConnectError("deadline_exceeded", "the time limit of this request has passed")
    except ConnectError as exc:
        error = exc
    except Exception as exc:
        unexpected(exc, path=request.path)
        error = ConnectError("internal", "internal error; the service's log has the details")
    return error_response(error)


async def _call(request: web.Request, method: Unary) -> Object:
    return await method(request, framing.decode(await _read_body(request, framing.MESSAGE_LIMIT)))


def error_response(error: ConnectError) -> web.Response:
    """Return the reply of a unary method that failed."""
    return _json(framing.STATUS[error.code], framing.error_object(error))


def _json(status: int, message: Object) -> web.Response:
    return web.Response(status=status, body=framing.encode(message), content_type=framing.UNARY_TYPE, headers=_NO_STORE)


async def _read_body(request: web.Request, limit: int) -> bytes:
    try:
        return await within(BODY_LIMIT, _whole_body(request, limit))
    except TimeoutError:
        raise ConnectError("deadline_exceeded", f"the request did not arrive within {BODY_LIMIT:g} s") from None
    except BODY_ERRORS:
        raise _broken_body() from None


async def _whole_body(request: web.Request, limit: int) -> bytes:
    body = bytearray()
    async for data in request.content.iter_any():
        body += data
        if len(body) > limit:
            raise ConnectError("resource_exhausted", f"the request is too large: the limit is {limit} bytes")
    return bytes(body)


def _broken_body() -> Malformed:
    return Malformed("the request's body is malformed")


def _check_version(request: web.Request) -> None:
    version = request.headers.get("Connect-Protocol-Version", framing.PROTOCOL_VERSION)
    if version != framing.PROTOCOL_VERSION:
        raise Malformed(f"Connect-Protocol-Version must be {framing.PROTOCOL_VERSION}")


def _timeout(request: web.Request) -> float | None:
    """Return the request's time limit in seconds, None for none; 0 in the header means none."""
    return (_number(request.headers, framing.TIMEOUT, digits=10) or 0) / 1000 or None


def _grace(request: web.Request) -> float | None:
    """Return for how many seconds a process may run without a subscriber, None for no limit."""
    text = request.headers.get(messages.ON_DISCONNECT)
    if text is None:
        return None
    match = _KILL_WITH_GRACE.fullmatch(text)
    if match is None:
        raise Malformed(f"{messages.ON_DISCONNECT} of Start must be: kill; grace=SECONDS")
    return float(match[1])


def _keepalive(request: web.Request) -> float:
    try:
        seconds = _number(request.headers, messages.KEEPALIVE, digits=10) or KEEPALIVE_DEFAULT
    except Malformed:
        seconds = KEEPALIVE_DEFAULT
    return min(max(seconds, _KEEPALIVE_LIMITS[0]), _KEEPALIVE_LIMITS[1])


def _number(headers: Mapping[str, str], name: str, *, digits: int) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= digits):
        raise Malformed(f"{name} must be a number of at most {digits} digits")
    return int(text)
