"""HTTP requests of the synchronous client. The twin of `http_async`.

`HttpClient` makes the calls; `OutputReader` reads a terminal's output and connects again when a connection breaks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from tunnel.errors import ProviderError, UsageError
from tunnel.protocol.upgrade import Response
from tunnel.pty.client import calls
from tunnel.pty.client.access import ServiceAccess
from tunnel.pty.client.calls import Attempts, Call
from tunnel.pty.client.endpoint import Endpoint
from tunnel.pty.client.http import (
    BODY_LIMIT,
    Broken,
    HttpOptions,
    Requests,
    broken,
    exchange_limit,
    exchange_timed_out,
    head_of,
    shut_down,
    stream_ended,
    transport_options,
)
from tunnel.pty.client.stream import Gap, TerminalStream
from tunnel.pty.protocol.framing import Object

# After `http`, which raises a clear error if httpx is not installed.
import httpx  # isort: skip
from tunnel.pty.client.deadline import Deadline, Transport, rest  # isort: skip


class HttpClient:
    """Makes calls to one terminal service."""

    def __init__(self, endpoint: Endpoint, options: HttpOptions, access: ServiceAccess | None = None) -> None:
        self._options = options
        self._access = access
        self._is_located = access is None
        self._transport: Transport | None = None
        self._unused: list[Transport] = []  # transports of an earlier endpoint
        self.endpoint = endpoint
        self._use(endpoint)
        self._ours = False

    def _use(self, endpoint: Endpoint) -> None:
        """Make requests to ``endpoint`` from now on."""
        if self._transport is None or endpoint.url != self.endpoint.url:
            if self._transport is not None:
                self._unused.append(self._transport)
            self._transport = Transport(**transport_options(endpoint, self._options))
        self.endpoint = endpoint
        self._requests = Requests(endpoint, self._options)

    def perform(self, call: Call) -> Object:
        """Make a unary call and return the message of its answer. Raises TunnelError."""
        attempts = Attempts(call, self.endpoint, now=time.monotonic())
        while True:
            try:
                return calls.result(call, self._exchange(call), self.endpoint)
            except Broken as exc:
                delay = attempts.again(exc.error, now=time.monotonic(), arrived=exc.arrived, ours=self._ours)
            time.sleep(delay)

    def _exchange(self, call: Call) -> Response:
        self._locate()
        answer = self._exchange_once(call)
        return self._exchange_once(call) if self._renew(answer, call) else answer

    def _locate(self) -> None:
        """Ask the sandbox's provider, if there is one, before the first request. Raises TunnelError."""
        if not self._is_located and self._access is not None:
            self._use(self._access.first())
            self._is_located = True

    def _renew(self, answer: Response, call: Call) -> bool:
        """Ask the provider again after a refusal; return whether the call is worth another attempt."""
        if self._access is None or answer.status == 200:
            return False
        endpoint = self._access.after(answer, call, self.endpoint)
        if endpoint is not None:
            self._use(endpoint)
        return endpoint is not None

    def _exchange_once(self, call: Call) -> Response:
        with self._time_limit():
            response = self._send(self._requests.unary(call))
            with contextlib.closing(response):
                return self._read_body(response)

    def open(self, call: Call, read_timeout: float) -> tuple[httpx.Response, Response]:
        """Open a stream whose next bytes may take ``read_timeout`` seconds; return it and its head. Raises Broken."""
        try:
            self._locate()
            response, answer = self._open_once(call, read_timeout)
            if self._renew(answer, call):
                response, answer = self._open_once(call, read_timeout)
        except ProviderError as exc:
            raise Broken(exc, arrived=False) from exc
        return response, answer

    def _open_once(self, call: Call, read_timeout: float) -> tuple[httpx.Response, Response]:
        with self._time_limit():
            response = self._send(self._requests.stream(call, read_timeout))
            if response.status_code == 200:
                return response, self._head(response)
            with contextlib.closing(response):
                return response, self._read_body(response)

    def _send(self, request: httpx.Request) -> httpx.Response:
        assert self._transport is not None  # noqa: S101  # `_use` has made it
        try:
            response = self._transport.handle_request(request)
        except httpx.RequestError as exc:
            exc.request = request
            raise
        response.request = request
        return response

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        """Limit the time of a whole exchange. Raises Broken when it is over, and for httpx's errors."""
        with Deadline(exchange_limit(self._options)) as deadline:
            try:
                yield
            except httpx.HTTPError as exc:
                if deadline.passed:
                    raise exchange_timed_out(self.endpoint, self._options) from exc
                raise broken(exc, self.endpoint, self._options) from exc
            if deadline.passed:  # without an error, if the answer ends where its connection ends
                raise exchange_timed_out(self.endpoint, self._options)

    def _head(self, response: httpx.Response) -> Response:
        answer = head_of(response)
        self._ours = self._ours or calls.is_ours(answer)
        return answer

    def _read_body(self, response: httpx.Response) -> Response:
        """Return the answer with its body, which is cut off beyond `BODY_LIMIT`."""
        answer = self._head(response)
        body = bytearray()
        for data in response.iter_raw():
            body += data
            if len(body) > BODY_LIMIT:
                break
        answer.body = bytes(body)
        return answer

    def read(self, chunks: Iterator[bytes]) -> bytes:
        """Return the next bytes of a stream. Raises Broken, also at its end."""
        try:
            return next(chunks)
        except StopIteration:
            raise stream_ended() from None
        except (httpx.HTTPError, httpx.StreamError) as exc:
            raise broken(exc, self.endpoint, self._options) from exc

    def close(self) -> None:
        """Close all connections."""
        for transport in (*self._unused, self._transport):
            if transport is not None:
                transport.close()
        rest()


class OutputReader:
    """Reads the output of one terminal over as many connections as it takes."""

    def __init__(self, client: HttpClient, stream: TerminalStream) -> None:
        self.stream = stream
        self._client = client
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None
        self._reading = threading.Lock()
        self._stopping = threading.Event()

    def start(self) -> int:
        """Connect, and return the terminal's pid. Raises TunnelError."""
        stream = self.stream
        try:
            while stream.pid is None and not stream.over:
                self._step()
            if stream.pid is None and stream.failure is not None:
                raise stream.failure
        except BaseException:
            self._disconnect()
            raise
        return stream.pid or 0

    def read(self) -> bytes | Gap | None:
        """Return the next output or gap in it, None at the end. Blocks. Raises TunnelError."""
        if not self._reading.acquire(blocking=False):
            raise UsageError("another thread is already reading this terminal's output")
        try:
            while not self._stopping.is_set():
                if (item := self.stream.take()) is not None:
                    return item
                if self.stream.over:
                    return None
                self._step()
            self._disconnect()
            return None
        finally:
            self._reading.release()

    def interrupt(self) -> None:
        """Make `read` return None from now on, in any thread."""
        self._stopping.set()
        if (response := self._response) is not None:
            shut_down(response)

    def close(self) -> None:
        """Close the connection; if a thread is still in `read`, that thread closes it."""
        if self._reading.acquire(blocking=False):
            try:
                self._disconnect()
            finally:
                self._reading.release()

    def _step(self) -> None:
        """Connect, or read once, or wait before the next attempt to connect."""
        arrived, error = True, stream_ended().error
        try:
            if self._connect() if self._chunks is None else self.stream.receive(self._client.read(self._chunks)):
                if (late := self.stream.overdue(time.monotonic())) is None:
                    return
                error = late
        except Broken as exc:
            arrived, error = exc.arrived, exc.error
        self._disconnect()
        delay = self.stream.broke(error, time.monotonic(), arrived=arrived)
        if not self.stream.over:
            self._stopping.wait(delay)

    def _connect(self) -> bool:
        now = time.monotonic()
        self._response, answer = self._client.open(self.stream.call(now), self.stream.read_timeout(now))
        if not self.stream.answered(answer):
            return False
        self._chunks = self._response.iter_raw()
        return True

    def _disconnect(self) -> None:
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            response.close()
