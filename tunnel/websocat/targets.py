"""Targets of websocat's bridge besides addresses: our standard input and output, programs, other WebSockets.

Each is a `Target` that returns one end of a socket pair, so that a session need not know the difference.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import threading
from collections.abc import Callable, Sequence

from tunnel.client.sockets import relayed_socket
from tunnel.client.trace import Trace, say
from tunnel.errors import ConnectionLost, DialError, TunnelError
from tunnel.net.address import Client
from tunnel.net.standard_streams import CLOSED_OUTPUT, is_closed_by_reader
from tunnel.server.target import Target
from tunnel.websocat.dialling import Dialler

_CHUNK = 64 * 1024
_STUCK = 5.0  # seconds after which a client that accepts nothing is disconnected, as all others wait for it


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


class StandardStreams(Target):
    """Standard input goes to every client, and the data of every client to standard output.

    ``several``: there may be several clients, to which the end of standard input is not passed on. ``end`` is called
    with an exit code when standard output is closed.
    """

    def __init__(self, *, several: bool, end: Callable[[int], None]) -> None:
        self._several = several
        self._end = end
        self._clients: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._output = asyncio.Lock()
        self._reading = False

    def __str__(self) -> str:
        return "standard input and output"

    async def dial(self, seconds: float, client: Client) -> socket.socket:
        """Return the client's end; the first call begins to read standard input."""
        ours, theirs = _pair()
        self._clients.add(ours)
        task = asyncio.create_task(self._write_output(ours))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not self._reading:
            self._reading = True
            # In a thread that the process does not wait for, as a read of a terminal cannot be interrupted.
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._read_input, args=(loop,), name="stdin", daemon=True).start()
        return theirs

    def _read_input(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while data := os.read(0, _CHUNK):
                asyncio.run_coroutine_threadsafe(self._deliver(data), loop).result()
            if not self._several:
                asyncio.run_coroutine_threadsafe(self._half_close(), loop).result()
        except (OSError, RuntimeError, concurrent.futures.CancelledError):
            return  # an error counts as the end of the input; or the loop is closed

    async def _deliver(self, data: bytes) -> None:
        await asyncio.gather(*(self._send(client, data) for client in self._clients))

    async def _send(self, client: socket.socket, data: bytes) -> None:
        try:
            async with asyncio.timeout(_STUCK):
                await asyncio.get_running_loop().sock_sendall(client, data)
        except TimeoutError:
            say(f"a client accepted nothing for {_STUCK:g} s and was disconnected")
            self._forget(client)
        except OSError:
            pass  # it is gone, which its reader notices

    async def _half_close(self) -> None:
        for client in self._clients:
            try:
                client.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it is gone

    async def _write_output(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(client, _CHUNK):
                async with self._output:
                    await self._write(data)
        except OSError:
            pass  # the client is gone
        finally:
            self._forget(client)

    async def _write(self, data: bytes) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, _write_all, data)
        except OSError as exc:
            if is_closed_by_reader(exc):
                self._end(CLOSED_OUTPUT)
                return
            failure = ConnectionLost("output", reason=exc.strerror or exc)
            say(str(failure))
            self._end(failure.exit_code)

    def _forget(self, client: socket.socket) -> None:
        if client in self._clients:
            self._clients.remove(client)
            client.close()


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


class Program(Target):
    """A program that is started for each tunnel, with the tunnel as its standard input and output."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command

    def __str__(self) -> str:
        return f"the program {self._command[0]}"

    async def dial(self, seconds: float, client: Client) -> socket.socket:
        """Start the program; the end of the tunnel is the end of its input. Raises DialError."""
        ours, theirs = _pair()
        theirs.setblocking(True)  # programs do not expect non-blocking output
        with theirs:
            try:
                self._start(theirs.fileno())
            except OSError as exc:
                ours.close()
                raise DialError("tcp", address=self, reason=exc.strerror or exc) from exc
        return ours

    def _start(self, fd: int) -> None:
        from tunnel.children.child import start  # late, as it needs signals that Windows lacks

        child = start(self._command, stdin=fd, stdout=fd, new_session=False, ends_with_us=False)
        child.when_ended(child.reap)


class OutgoingWebSocket(Target):
    """Another WebSocket, dialled for each tunnel."""

    def __init__(self, dialler: Dialler, trace: Trace) -> None:
        self._dialler = dialler
        self._trace = trace

    def __str__(self) -> str:
        return str(self._dialler.settings().address)

    async def dial(self, seconds: float, client: Client) -> socket.socket:
        """Open a tunnel and return a socket for it. Raises DialError."""
        tunnel = self._dialler.tunnel(self._dialler.settings(), self._trace, self._dialler.settings, say)
        loop = asyncio.get_running_loop()
        connection = await loop.run_in_executor(None, tunnel.dial)
        sock, _ = relayed_socket(tunnel, connection, ended=_tell)
        return sock


def _tell(failure: TunnelError | None) -> None:
    if failure is not None:
        say(str(failure))
