"""`tunnel.Sandbox`: the terminals of a sandbox, for programs that use threads or none. The twin of `aio`.

Output is read by the thread that iterates or waits; only an ``on_data`` callback has its own thread. Any method
may be called from any thread, and from the callback itself.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

from tunnel.errors import TunnelError, UsageError
from tunnel.pty.client import calls
from tunnel.pty.client.access import locate_sandbox
from tunnel.pty.client.calls import Call
from tunnel.pty.client.http import HttpOptions
from tunnel.pty.client.http_sync import HttpClient, OutputReader
from tunnel.pty.client.model import ProcessInfo, PtySize, Result, size_of
from tunnel.pty.client.stream import Gap, TerminalStream

OnData = Callable[[bytes], object]
CLOSE_LIMIT = 20.0  # seconds; a connection that is just being made takes longest


class Sandbox:
    """A sandbox with a terminal service: one of this project (by URL) or E2B's (by sandbox id or host name).

    ``token`` is the service's access token. A terminal whose connection breaks is reconnected for up to
    ``reconnect_for`` seconds. The other options say how to reach the service, as for ``wstunnel-py connect``; times are
    in seconds. Nothing is sent before the first call. Raises UsageError for arguments that cannot be used.

    If there is a key for it (E2B_API_KEY), or ``provider`` is ``e2b``, E2B is asked about a sandbox that is named by
    its id: calls wake it if it is paused, and its tokens need not be given. With ``none``, E2B is not asked.

    A context manager. `close` ends all connections but leaves all processes running.
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
        provider: str | None = None,
    ) -> None:
        options = HttpOptions(
            ca_file=ca_file, client_cert=client_cert, client_key=client_key, insecure=insecure, proxy=proxy,
            connect_timeout=connect_timeout, request_timeout=request_timeout,
        )  # fmt: skip
        place, access = locate_sandbox(
            host_or_url, token=token, headers=headers, provider=provider, ca_file=ca_file, proxy=proxy
        )
        self.pty = Pty(HttpClient(place, options, access), reconnect_for)

    def close(self) -> None:
        """End all connections; terminals keep running."""
        self.pty.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pty:
    """The terminals of a sandbox, and the other processes that its service runs."""

    def __init__(self, client: HttpClient, reconnect_for: float = 60.0) -> None:
        self._client = client
        self._reconnect_for = reconnect_for
        self._terminals: weakref.WeakSet[Terminal] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._input_locks: weakref.WeakValueDictionary[int, threading.Lock] = weakref.WeakValueDictionary()

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
        """Start an interactive login bash in a terminal of ``cols`` × ``rows`` characters, 80 × 24 by default.

        ``command`` (a program and its arguments) runs instead of bash. ``on_data`` is called with the bytes of the
        output in a background thread. The service kills the terminal after ``timeout`` seconds, whether or not anyone
        is connected; 0 means never. Raises TunnelError; TerminalError if the user or the folder does not exist.
        """
        tag = calls.new_tag()
        begin = calls.start(size_of(size, rows, cols), tag, command=command, envs=envs, cwd=cwd, user=user)
        return self._open(begin, on_data, timeout, tag)

    def connect(
        self,
        pid: int,
        *,
        on_data: OnData | None = None,
        timeout: float = 60.0,
        replay_from: int | None = None,
    ) -> Terminal:
        """Connect to a running terminal. ``timeout`` ends this connection, not the terminal; 0 means never.

        Output from now on arrives. Our own service first repeats what follows the offset ``replay_from``, as far back
        as it keeps output; `Terminal.offset` is such an offset. Raises TerminalError if there is no such terminal.
        """
        return self._open(calls.connect(pid, replay_from=replay_from), on_data, timeout, None)

    def send_stdin(self, pid: int, data: bytes) -> None:
        """Type ``data`` on a terminal.

        It arrives once and in order, even if several threads call this at the same time. Raises TerminalError if there
        is no such terminal. A service other than ours may raise ConnectionLost (code ``pty-input-unsure``): the input
        may or may not have arrived.
        """
        with self._lock:
            lock = self._input_locks.setdefault(pid, threading.Lock())
        with lock:
            for at in range(0, len(data), calls.INPUT_LIMIT):
                self._client.perform(calls.send_input(pid, bytes(data[at : at + calls.INPUT_LIMIT])))

    send_input = send_stdin

    def resize(
        self, pid: int, size: PtySize | None = None, *, cols: int | None = None, rows: int | None = None
    ) -> None:
        """Set the size of a terminal, in characters."""
        self._client.perform(calls.resize(pid, size_of(size, rows, cols)))

    def kill(self, pid: int) -> bool:
        """Kill a process and everything it started; return whether it existed."""
        try:
            self._client.perform(calls.kill(pid))
        except TunnelError as exc:
            if calls.is_unknown(exc):
                return False
            raise
        return True

    def list(self) -> list[ProcessInfo]:
        """Return the processes that the service runs."""
        return calls.processes(self._client.perform(calls.list_processes()), self._client.endpoint)

    def _open(self, begin: Call, on_data: OnData | None, limit: float, tag: str | None) -> Terminal:
        stream = TerminalStream(
            begin, endpoint=self._client.endpoint, now=time.monotonic(), timeout=limit,
            reconnect_for=self._reconnect_for, tag=tag,
        )  # fmt: skip
        reader = OutputReader(self._client, stream)
        terminal = Terminal(self, reader, reader.start(), on_data)
        self._terminals.add(terminal)
        return terminal

    def close(self) -> None:
        """End all connections; terminals keep running."""
        for terminal in list(self._terminals):
            terminal.disconnect()
        self._client.close()


class Terminal:
    """A terminal in the sandbox, and the connection that carries its output.

    Iterate over it to get the output as bytes, until the terminal ends. Pieces have any length, so a UTF-8 character
    may be split. When the connection breaks it is made again, and the output continues where it stopped. A context
    manager that disconnects on exit.
    """

    def __init__(self, pty: Pty, reader: OutputReader, pid: int, on_data: OnData | None) -> None:
        self.pid = pid
        self._pty = pty
        self._reader = reader
        self._callback_error: BaseException | None = None
        self._thread: threading.Thread | None = None
        if on_data is not None:
            self._thread = threading.Thread(target=self._deliver, args=(on_data,), name=f"terminal {pid}", daemon=True)
            self._thread.start()

    @property
    def offset(self) -> int:
        """How many bytes of output have arrived; from our own service counted from the terminal's first byte."""
        return self._reader.stream.offset

    @property
    def result(self) -> Result | None:
        """How the terminal ended; None until that is known here."""
        return self._reader.stream.result

    def send_stdin(self, data: bytes) -> None:
        """Type ``data``; see `Pty.send_stdin`."""
        self._pty.send_stdin(self.pid, data)

    send_input = send_stdin

    def resize(self, size: PtySize | None = None, *, cols: int | None = None, rows: int | None = None) -> None:
        """Set the size of the terminal, in characters."""
        self._pty.resize(self.pid, size, cols=cols, rows=rows)

    def kill(self) -> bool:
        """Kill the terminal and everything that runs in it; return whether it was still running."""
        return self.result is None and self._pty.kill(self.pid)

    def disconnect(self) -> None:
        """End the connection. The terminal keeps running; ``sandbox.pty.connect(pid)`` joins it again."""
        self._reader.interrupt()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_LIMIT)
        self._reader.close()

    def wait(self, on_data: OnData | None = None) -> Result:
        """Wait for the terminal to end and return its result; a failed command raises nothing.

        ``on_data`` is called with the output. If neither this call nor `Pty.create` was given a callback, output is
        discarded. Raises TerminalError (``pty-deadline``) when the terminal's time is up, ConnectionLost when the
        connection cannot be restored, UsageError after `disconnect`, and whatever a callback raised.
        """
        if self._thread is None:
            for data in self:
                if on_data is not None:
                    on_data(data)
        else:
            if on_data is not None or self._thread is threading.current_thread():
                raise UsageError(_TAKEN)
            self._thread.join()
            if self._callback_error is not None:
                raise self._callback_error
            self._reader.stream.take()
        if self.result is None:
            raise UsageError(f"terminal {self.pid} is disconnected: connect to it again to wait for it")
        return self.result

    def __iter__(self) -> Iterator[bytes]:
        """Yield the output until the terminal ends."""
        if self._thread is not None:
            raise UsageError(_TAKEN)
        while (data := self._next()) is not None:
            yield data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def _deliver(self, on_data: OnData) -> None:
        """Call ``on_data`` with the output: the work of the thread."""
        try:
            while (data := self._next()) is not None:
                on_data(data)
        except TunnelError:
            pass  # `wait` raises it: the stream keeps it
        except BaseException as exc:
            self._callback_error = exc
            self.disconnect()

    def _next(self) -> bytes | None:
        """Return the next output, None at the end."""
        item = self._reader.read()
        while isinstance(item, Gap):  # never, as the stream is strict
            item = self._reader.read()
        return item


_TAKEN = "the output already goes to on_data"
