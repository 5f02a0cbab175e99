"""`tunnel.Sandbox`: the terminals of a sandbox, for programs that use threads or none.

Output is pulled by who iterates or waits, in that thread; only an ``on_data`` callback has a thread of its own. Any
method may be called from any thread, and from the callback itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

from tunnel.errors import TunnelError, UsageError
from tunnel.protocol.upgrade import Response
from tunnel.pty.client import calls
from tunnel.pty.client.calls import Attempts, Call
from tunnel.pty.client.endpoint import Endpoint, locate
from tunnel.pty.client.http import (
    BODY_LIMIT,
    Broken,
    Way,
    broken,
    client_options,
    exchange_limit,
    head_of,
    request_options,
    shut_down,
    stream_ended,
    too_late,
)
from tunnel.pty.client.model import ProcessInfo, PtySize, Result, size_of
from tunnel.pty.client.stream import TerminalStream
from tunnel.pty.protocol.framing import Object

# Behind `http`, which tells what is missing if httpx is.
import httpx  # isort: skip
from tunnel.pty.client.deadline import Deadline, Transport  # isort: skip

OnData = Callable[[bytes], object]
CLOSE_LIMIT = 20.0  # seconds; a connection that is just being made is the longest thing to wait for


class Sandbox:
    """A sandbox with a terminal service: that of this project (by its URL), or E2B's (by the sandbox's id or host).

    ``token`` is the service's access token. ``reconnect_for`` is for how many seconds a terminal whose connection broke
    is tried again. The rest is how the service is reached, as for ``wstunnel-py connect``; times are in seconds.
    Nothing is sent before the first call. Raises UsageError for what cannot be used.

    A context manager; `close` ends all connections, and no process.
    """

    def __init__(
        self,
        host_or_url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        insecure: bool = False,
        proxy: str | None = None,
        connect_timeout: float = 15.0,
        request_timeout: float = 30.0,
        reconnect_for: float = 60.0,
    ) -> None:
        way = Way(
            ca_file=ca_file, client_cert=client_cert, client_key=client_key, insecure=insecure, proxy=proxy,
            connect_timeout=connect_timeout, request_timeout=request_timeout,
        )  # fmt: skip
        self.pty = Pty(Service(locate(host_or_url, token=token, headers=headers), way), reconnect_for)

    def close(self) -> None:
        """End all connections; terminals go on running."""
        self.pty.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Service:
    """Requests to one service over an ``httpx.Client``."""

    def __init__(self, place: Endpoint, way: Way) -> None:
        self.place = place
        self._way = way
        options = client_options(self.place, way)
        own = {name: options.pop(name) for name in ("verify", "proxy", "limits")}
        self._client = httpx.Client(transport=Transport(trust_env=False, **own), **options)
        self._ours = False

    def perform(self, call: Call) -> Object:
        """Make a unary call; return the message of its answer. Raises TunnelError."""
        attempts = Attempts(call, self.place, now=time.monotonic())
        while True:
            try:
                return calls.result(call, self._exchange(call), self.place)
            except Broken as exc:
                delay = attempts.again(exc.error, now=time.monotonic(), arrived=exc.arrived, ours=self._ours)
            time.sleep(delay)

    def _exchange(self, call: Call) -> Response:
        request = self._client.build_request(**request_options(call, self.place, stream=False))
        with self._in_time():
            response = self._client.send(request, stream=True)
            with contextlib.closing(response):
                return self._complete(response)

    def open(self, call: Call, patience: float) -> tuple[httpx.Response, Response]:
        """Open a stream whose next bytes may take ``patience`` seconds; return it and its head. Raises Broken."""
        timeout = httpx.Timeout(patience, connect=self._way.connect_timeout)
        request = self._client.build_request(**request_options(call, self.place, stream=True), timeout=timeout)
        with self._in_time():
            response = self._client.send(request, stream=True)
            if response.status_code == 200:
                return response, self._head(response)
            with contextlib.closing(response):
                return response, self._complete(response)

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        """Limit what is done meanwhile as a whole. Raises Broken for that, and for errors of httpx."""
        with Deadline(exchange_limit(self._way)) as deadline:
            try:
                yield
            except httpx.HTTPError as exc:
                if deadline.passed:
                    raise too_late(self.place, self._way) from exc
                raise broken(exc, self.place, self._way) from exc
            if deadline.passed:  # the end of an answer may be that of its connection
                raise too_late(self.place, self._way)

    def _head(self, response: httpx.Response) -> Response:
        answer = head_of(response)
        self._ours = self._ours or calls.is_ours(answer)
        return answer

    def _complete(self, response: httpx.Response) -> Response:
        """Return an answer with its body, as far as it is within bounds."""
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
            raise broken(exc, self.place, self._way) from exc

    def close(self) -> None:
        self._client.close()


class Pty:
    """The terminals of a sandbox, and all else that its service runs."""

    def __init__(self, service: Service, reconnect_for: float = 60.0) -> None:
        self._service = service
        self._reconnect_for = reconnect_for
        self._terminals: weakref.WeakSet[Terminal] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._typing: weakref.WeakValueDictionary[int, threading.Lock] = weakref.WeakValueDictionary()

    def create(
        self,
        size: PtySize | None = None,
        *,
        cols: int | None = None,
        rows: int | None = None,
        on_data: OnData | None = None,
        envs: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float = 60.0,
        command: Sequence[str] | None = None,
    ) -> Terminal:
        """Start a terminal of ``cols`` × ``rows`` characters, 80 × 24 by default, with an interactive login bash.

        ``command`` (a program and its arguments) runs instead of bash. ``on_data`` is called with the output's bytes,
        in a thread. After ``timeout`` seconds, whoever is connected, the service kills the terminal; 0: never. Raises
        TunnelError: for a user or folder that there is not, TerminalError.
        """
        tag = calls.new_tag()
        begin = calls.start(size_of(size, rows, cols), tag, command=command, envs=envs, cwd=cwd, user=user)
        return self._open(begin, on_data, timeout, tag)

    def connect(
        self, pid: int, *, on_data: OnData | None = None, timeout: float = 60.0, replay_from: int | None = None
    ) -> Terminal:
        """Connect to a terminal that runs. ``timeout`` ends this connection, not the terminal; 0: never.

        The output from now on comes; from our service also that from the offset ``replay_from`` on, or from the oldest
        byte that it keeps. `Terminal.offset` tells such an offset. Raises TerminalError if there is no such terminal.
        """
        return self._open(calls.connect(pid, replay_from=replay_from), on_data, timeout, None)

    def send_stdin(self, pid: int, data: bytes) -> None:
        """Type ``data`` on a terminal.

        It arrives once and in order, also when threads call this at the same time. Raises TerminalError if there is no
        such terminal, ConnectionLost (cause ``pty-input-unsure``) if a service other than ours may or may not have it.
        """
        with self._lock:
            typing = self._typing.setdefault(pid, threading.Lock())
        with typing:
            for at in range(0, len(data), calls.INPUT_LIMIT):
                self._service.perform(calls.send_input(pid, bytes(data[at : at + calls.INPUT_LIMIT])))

    send_input = send_stdin

    def resize(
        self, pid: int, size: PtySize | None = None, *, cols: int | None = None, rows: int | None = None
    ) -> None:
        """Tell a terminal its new size, in characters."""
        self._service.perform(calls.resize(pid, size_of(size, rows, cols)))

    def kill(self, pid: int) -> bool:
        """Kill a process with all that it started; return whether there was one."""
        try:
            self._service.perform(calls.kill(pid))
        except TunnelError as exc:
            if calls.is_unknown(exc):
                return False
            raise
        return True

    def list(self) -> list[ProcessInfo]:
        """Return the processes that the service runs."""
        return calls.processes(self._service.perform(calls.list_processes()), self._service.place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, begin: Call, on_data: OnData | None, timeout: float, tag: str | None) -> Terminal:
        stream = TerminalStream(
            begin, place=self._service.place, now=time.monotonic(), timeout=timeout, reconnect_for=self._reconnect_for,
            tag=tag,
        )  # fmt: skip
        terminal = Terminal(self, self._service, stream, on_data)
        self._terminals.add(terminal)
        return terminal

    def close(self) -> None:
        """End all connections; terminals go on running."""
        for terminal in list(self._terminals):
            terminal.disconnect()
        self._service.close()


class Terminal:
    """A terminal that runs in the sandbox, and the connection that its output comes over.

    Iterating yields the output as bytes, in whatever pieces it comes (a character of UTF-8 may be split), until the
    terminal ends. A connection that breaks is made again, and the output goes on where it broke off. A context manager,
    which disconnects.
    """

    pid: int

    def __init__(self, pty: Pty, service: Service, stream: TerminalStream, on_data: OnData | None) -> None:
        self._pty = pty
        self._service = service
        self._stream = stream
        self._on_data = on_data
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None
        self._reading = threading.Lock()
        self._leaving = threading.Event()
        self._callback_error: BaseException | None = None
        self._thread: threading.Thread | None = None
        try:
            while stream.pid is None and not stream.over:
                self._step()
            if stream.pid is None and stream.failure is not None:
                raise stream.failure
        except BaseException:
            self._hang_up()
            raise
        self.pid = stream.pid or 0
        if on_data is not None:
            self._thread = threading.Thread(target=self._deliver, name=f"terminal {self.pid}", daemon=True)
            self._thread.start()

    @property
    def offset(self) -> int:
        """How many bytes of output came, counted from the terminal's first one if the service is ours."""
        return self._stream.offset

    @property
    def result(self) -> Result | None:
        """How the terminal ended, None as far as is known here yet."""
        return self._stream.result

    def send_stdin(self, data: bytes) -> None:
        """Type ``data``; see `Pty.send_stdin`."""
        self._pty.send_stdin(self.pid, data)

    send_input = send_stdin

    def resize(self, size: PtySize | None = None, *, cols: int | None = None, rows: int | None = None) -> None:
        """Tell the terminal its new size, in characters."""
        self._pty.resize(self.pid, size, cols=cols, rows=rows)

    def kill(self) -> bool:
        """Kill the terminal with all that runs in it; return whether it still ran."""
        return self.result is None and self._pty.kill(self.pid)

    def disconnect(self) -> None:
        """End the connection; the terminal goes on running, and ``sandbox.pty.connect(pid)`` finds it again."""
        self._leaving.set()
        if (response := self._response) is not None:
            shut_down(response)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_LIMIT)
        if self._reading.acquire(blocking=False):  # otherwise who reads will hang up
            try:
                self._hang_up()
            finally:
                self._reading.release()

    def wait(self, on_data: OnData | None = None) -> Result:
        """Wait for the terminal's end and return how it ended; a failure of what ran in it is no exception.

        ``on_data`` is called with the output in this thread. Without it, and without one of `Pty.create`, output is
        dropped. Raises TunnelError: TerminalError (``pty-deadline``) when the time is over, ConnectionLost when the
        connection is lost for good, UsageError after `disconnect`; and what a callback raised.
        """
        if self._thread is None:
            for data in self:
                if on_data is not None:
                    on_data(data)
        else:
            if on_data is not None or self._thread is threading.current_thread():
                raise UsageError("the output goes to on_data already")
            self._thread.join()
            if self._callback_error is not None:
                raise self._callback_error
            self._stream.take()
        if self._stream.result is None:
            raise UsageError(f"terminal {self.pid} is disconnected: connect to it again to wait for it")
        return self._stream.result

    def __iter__(self) -> Iterator[bytes]:
        if self._thread is not None:
            raise UsageError("the output goes to on_data already")
        while (data := self._next()) is not None:
            yield data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    # ---- inside

    def _deliver(self) -> None:
        """Call ``on_data`` with the output: what the thread does."""
        try:
            while (data := self._next()) is not None:
                if self._on_data is not None:
                    self._on_data(data)
        except TunnelError:
            pass  # the stream keeps its failure, and `wait` raises it
        except BaseException as exc:
            self._callback_error = exc
            self.disconnect()

    def _next(self) -> bytes | None:
        """Return the next output, None at the end. Blocks."""
        if not self._reading.acquire(blocking=False):
            raise UsageError("the output is read by another thread already")
        try:
            while not self._leaving.is_set():
                item = self._stream.take()
                if isinstance(item, bytes):  # never a gap, as the stream is strict
                    return item
                if self._stream.over:
                    return None
                self._step()
            self._hang_up()
            return None
        finally:
            self._reading.release()

    def _step(self) -> None:
        """Do one thing that takes time: connect, or read, or wait before connecting again."""
        arrived, error = True, stream_ended().error
        try:
            if self._open() if self._chunks is None else self._stream.receive(self._service.read(self._chunks)):
                if (late := self._stream.overdue(time.monotonic())) is None:
                    return
                error = late
        except Broken as exc:
            arrived, error = exc.arrived, exc.error
        self._hang_up()
        delay = self._stream.broke(error, time.monotonic(), arrived=arrived)
        if not self._stream.over:
            self._leaving.wait(delay)

    def _open(self) -> bool:
        now = time.monotonic()
        self._response, answer = self._service.open(self._stream.call(now), self._stream.patience(now))
        if not self._stream.answered(answer):
            return False
        self._chunks = self._response.iter_raw()
        return True

    def _hang_up(self) -> None:
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            response.close()
