"""A process of the embedded SSH server, from the bridge's side: its start, control socket, events and end.

`tunnel.ssh.server.messages` describes the messages between the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from tunnel.children.child import Child, start
from tunnel.errors import DialError, UsageError
from tunnel.net.address import Client
from tunnel.restart.state import Handed, Kept, Tree
from tunnel.server.log import event, unexpected
from tunnel.server.settings import EMBEDDED

START_LIMIT = 30.0  # seconds for the process to start
END_LIMIT = 5.0  # seconds for the process to end by itself
_BUFFER = 128 << 10  # bytes of a socketpair's buffers; the kernel doubles the number
_LINE_LIMIT = 1 << 16  # bytes; far longer than any line that the process writes
_PACKAGES = Path(__file__).parents[2]  # the folder, or the single file, that contains this package
# A folder comes last, as it also has other packages; the single file first, as another version may be installed.
_BOOT = """\
import os, sys
sys.path.insert(0 if os.path.isfile(sys.argv[1]) else len(sys.path), sys.argv[1])
from tunnel.ssh.server.listener import main
main(sys.argv[2])
"""

Event = dict[str, Any]


def spawn(options: Mapping[str, object], control: int, events: int) -> Child:
    """Start the process with its ends of the control socket and of the pipe of events. Raises OSError."""
    return start(
        # -P keeps the current folder out of the module search path.
        [
            sys.executable,
            "-P",
            "-c",
            _BOOT,
            str(_PACKAGES),
            json.dumps({**options, "control": control, "events": events}),
        ],
        stdout=subprocess.DEVNULL,
        pass_fds=(control, events),
    )  # in its own session, because Ctrl-C is meant for the bridge


class ServerProcess:
    """One process. ``clients`` are its connections: the address of each by its id.

    ``on_event`` is called with this object and each event, ``on_silence`` with this object after the last event.
    """

    def __init__(
        self,
        child: Child,
        control: socket.socket | None,
        events: int,
        on_event: Callable[[ServerProcess, Event], None],
        on_silence: Callable[[ServerProcess], None],
    ) -> None:
        self.child = child
        self.clients: dict[int, str] = {}
        self.greeting = ""
        self._control = control
        self._events = events
        self._on_event = on_event
        self._on_silence = on_silence
        self._partial = b""
        self._started: asyncio.Future[Event] | None = None

    @classmethod
    async def started(
        cls,
        start_process: Callable[[int, int], Child],
        on_event: Callable[[ServerProcess, Event], None],
        on_silence: Callable[[ServerProcess], None],
    ) -> Self:
        """Return a process that is ready. ``start_process`` gets its ends of the control socket and of the events.

        Raises UsageError if there is no usable host key or no usable authorized key, and OSError.
        """
        with contextlib.ExitStack() as cleaning:
            ours, theirs = socket.socketpair()
            cleaning.callback(theirs.close)
            failing = cleaning.enter_context(contextlib.ExitStack())
            failing.callback(ours.close)
            events, told = os.pipe()
            cleaning.callback(os.close, told)
            failing.callback(os.close, events)
            server = cls(start_process(theirs.fileno(), told), ours, events, on_event, on_silence)
            failing.pop_all()
        ours.setblocking(False)
        os.set_blocking(events, False)
        await server._wait_until_ready()
        return server

    async def _wait_until_ready(self) -> None:
        self._started = asyncio.get_running_loop().create_future()
        self.watch()
        try:
            async with asyncio.timeout(START_LIMIT):
                ready = await self._started
        except BaseException as exc:
            await self.close()
            if isinstance(exc, TimeoutError):
                problem = f"the SSH server was not ready within {START_LIMIT:g} s"
                raise UsageError(problem, setting="target") from exc
            raise
        keys = "1 key" if ready.get("keys") == 1 else f"{ready.get('keys')} keys"
        self.greeting = f"log in as {ready.get('user')} ({keys} authorized); host key {ready.get('host_key')}"

    def watch(self) -> None:
        """Begin to read its events, and to wait for its end."""
        self.child.when_ended(self._ended)
        asyncio.get_running_loop().add_reader(self._events, self._read_events)

    @property
    def takes_connections(self) -> bool:
        """Whether it is ready and can be given connections."""
        is_ready = self._started is None or self._started.done()
        return is_ready and self._control is not None and self.child.status is None

    @property
    def is_alive(self) -> bool:
        """Whether it is running and its events can still be read."""
        return self.child.status is None and self._events >= 0

    # --- Over a restart of the bridge

    def capture(self, kept: Kept) -> Tree:
        """Return its state for `restored`."""
        return {
            "pid": self.child.pid,
            "control": None if self._control is None else kept.socket(self._control),
            "events": kept.descriptor(self._events),
            "partial": self._partial,
            "clients": list(self.clients.items()),
            "greeting": self.greeting,
        }

    @classmethod
    def restored(
        cls,
        tree: Tree,
        handed: Handed,
        on_event: Callable[[ServerProcess, Event], None],
        on_silence: Callable[[ServerProcess], None],
    ) -> Self:
        """Return the captured process, which has continued meanwhile. Call `watch` next."""
        control = None if tree["control"] is None else handed.socket(tree["control"])
        server = cls(Child(tree["pid"]), control, handed.descriptor(tree["events"]), on_event, on_silence)
        server._partial = bytes(tree["partial"])
        server.clients = dict(tree["clients"])
        server.greeting = tree["greeting"]
        return server

    # --- Connections

    def connect(self, number: int, client: Client) -> socket.socket:
        """Give it a new connection with the id ``number``; return the bridge's end. Raises DialError."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            raise DialError("tcp", address=EMBEDDED, reason=exc.strerror or str(exc)) from exc
        with theirs:
            try:
                for sock in (ours, theirs):
                    sock.setblocking(False)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
                message = json.dumps({"id": number, "client": client.address}).encode() + b"\n"
                if self._control is None:
                    raise BrokenPipeError
                socket.send_fds(self._control, [message], [theirs.fileno()])
            except OSError as exc:
                ours.close()
                raise DialError(
                    "tcp", address=EMBEDDED, reason=exc.strerror or "the SSH server's process has ended"
                ) from exc
        self.clients[number] = client.address
        return ours

    # --- Its end

    def retire(self) -> None:
        """Give it no more connections; it ends when those that it has are over."""
        if self._control is not None:
            self._control.close()
            self._control = None

    async def close(self) -> None:
        """End it. Its connections end with their own sockets."""
        self.retire()
        if self.greeting:
            self.child.signal(signal.SIGKILL)  # it would wait for its connections, and has nothing else to do
        try:
            async with asyncio.timeout(END_LIMIT):
                await self.child.wait()
        except TimeoutError:
            self.child.signal(signal.SIGKILL)  # it is reaped once it has ended
        self._close_events()

    def _ended(self) -> None:
        self.child.reap()
        if self._control is None:
            self._read_events()  # the last events; the end of remaining connections will not be reported
            self._close_events()

    # --- Its events

    def _read_events(self) -> None:
        try:
            data = os.read(self._events, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_events()
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _LINE_LIMIT:
            self._partial = b""
        for line in lines:
            try:
                self._take(_parse_event(line))
            except (ValueError, RecursionError):
                event(logging.WARNING, "ssh-warning", message="received an invalid event from the SSH server's process")
            except Exception as exc:  # continue with the next event
                unexpected(exc, during="an event from the embedded SSH server")

    def _take(self, told: Event) -> None:
        if self._started is not None and not self._started.done():
            if told["event"] == "ready":
                self._started.set_result(told)
            elif told["event"] == "failed":
                self._started.set_exception(_start_error(told))
        self._on_event(self, told)
        if told["event"] == "gone":
            self.clients.pop(told["id"], None)

    def _close_events(self) -> None:
        if self._events < 0:
            return
        asyncio.get_running_loop().remove_reader(self._events)
        os.close(self._events)
        self._events = -1
        self._partial = b""
        self._on_silence(self)
        self.clients.clear()
        if self._started is not None and not self._started.done():
            self._started.set_exception(
                UsageError("the SSH server ended while it was starting; see above", setting="target")
            )


def _parse_event(line: bytes) -> Event:
    """Parse an event; its id is 0 if it has none. Raises ValueError."""
    told = json.loads(line)
    if not isinstance(told, dict) or not isinstance(told.get("event"), str):
        raise ValueError("not an event")
    number = told.setdefault("id", 0)
    if type(number) is not int:
        raise ValueError("not a number")
    return told


def _start_error(told: Event) -> UsageError:
    message, setting = str(told.get("message", "its process cannot start")), str(told.get("setting", ""))
    code = "no-keys" if told.get("code") == "no-keys" else "usage"
    return UsageError(message, code=code, setting=setting or None)
