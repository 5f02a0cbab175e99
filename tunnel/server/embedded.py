"""The target ``embedded``: an SSH server of this project's own, which needs no port and no OpenSSH.

It runs as a process beside the bridge (`tunnel.ssh.server`, which tells what is said between the two) and gets one end
of a socketpair for each tunnel; the bridge keeps the other.
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
from pathlib import Path
from typing import Any

from tunnel.children.child import Child, start
from tunnel.net.address import Client
from tunnel.protocol.errors import DialError, UsageError
from tunnel.server.destination import Destination
from tunnel.server.log import event

EMBEDDED = "embedded"  # as the option's value, and in the log
MAX_LOGINS = 100  # connections that are not logged in yet; each is a process
_START_LIMIT = 30.0  # seconds
_END_LIMIT = 5.0  # seconds for the process to end by itself
_ROOM = 1 << 20  # bytes of a socketpair's buffers
_PACKAGES = Path(__file__).parents[2]  # where this project is imported from
_BOOT = "import sys; sys.path.append(sys.argv[1]); from tunnel.ssh.server.listener import main; main(sys.argv[2])"


class EmbeddedTarget(Destination):
    """The embedded SSH server. ``start`` it before the first ``dial``; paths are those of the options, or None."""

    def __init__(self, host_key: str | None, authorized_keys: str | None) -> None:
        # The process starts in another folder.
        self._options = {"host_key": _absolute(host_key), "authorized_keys": _absolute(authorized_keys)}
        self._process: Child | None = None
        self._control: socket.socket | None = None
        self._events = -1
        self._partial = b""
        self._last_id = 0
        self._clients: dict[int, str] = {}
        self._logging_in: set[int] = set()
        self._started: asyncio.Future[dict[str, Any]] | None = None
        self._starting = asyncio.Lock()
        self.greeting = ""  # for whoever starts the bridge: how to log in

    def __str__(self) -> str:
        return EMBEDDED

    async def start(self) -> None:
        """Start the process; raises UsageError when there is no usable key, for the host or for anybody to log in."""
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        ours, theirs = socket.socketpair()
        self._events, told = os.pipe()
        with theirs, contextlib.ExitStack() as cleaning:
            cleaning.callback(os.close, told)
            self._process = self._spawn(theirs.fileno(), told)
        ours.setblocking(False)
        os.set_blocking(self._events, False)
        self._control = ours
        loop.add_reader(self._events, self._read_events)
        try:
            async with asyncio.timeout(_START_LIMIT):
                ready = await self._started
        except TimeoutError as exc:
            await self.close()
            raise UsageError(f"--target embedded: its process was not ready within {_START_LIMIT:g} s") from exc
        except UsageError:
            await self.close()
            raise
        keys = "1 key" if ready["keys"] == 1 else f"{ready['keys']} keys"
        self.greeting = f"log in as {ready['user']} ({keys} admitted); host key {ready['host_key']}"

    def _spawn(self, control: int, events: int) -> Child:
        options = json.dumps({**self._options, "control": control, "events": events})
        child = start(
            # -P: not the current folder, where anything may lie, is where modules come from.
            [sys.executable, "-P", "-c", _BOOT, str(_PACKAGES), options],
            stdout=subprocess.DEVNULL,
            pass_fds=(control, events),
        )  # in a session of its own: Ctrl-C is for the bridge
        child.when_ended(child.reap)
        return child

    async def close(self) -> None:
        """Let the process end. Connections that it serves end with their own sockets."""
        if self._control is not None:
            self._control.close()
            self._control = None
        process, self._process = self._process, None
        if process is not None:
            try:
                async with asyncio.timeout(_END_LIMIT):
                    await process.wait()
            except TimeoutError:
                process.signal(signal.SIGKILL)  # and it is reaped when it has ended
        self._close_events()

    async def dial(self, seconds: float, client: Client) -> socket.socket:
        """Return a non-blocking socket that an SSH server speaks on. Raises DialError."""
        if len(self._logging_in) >= MAX_LOGINS:
            raise DialError(
                "tcp", address=EMBEDDED, reason=f"{MAX_LOGINS} clients are about to log in, which is the limit"
            )
        async with self._starting:
            if self._process is None or self._process.status is not None:
                await self._start_again()
        ours, theirs = socket.socketpair()
        with theirs:
            for sock in (ours, theirs):
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
            self._last_id += 1
            message = json.dumps({"id": self._last_id, "client": client.address}).encode() + b"\n"
            try:
                if self._control is None:
                    raise BrokenPipeError
                socket.send_fds(self._control, [message], [theirs.fileno()])
            except OSError as exc:
                ours.close()
                raise DialError("tcp", address=EMBEDDED, reason=exc.strerror or "its process has ended") from exc
        self._clients[self._last_id] = client.address
        self._logging_in.add(self._last_id)
        return ours

    async def _start_again(self) -> None:
        event(logging.WARNING, "ssh-restarted", reason="its process had ended")
        await self.close()
        try:
            await self.start()
        except UsageError as exc:
            raise DialError("tcp", address=EMBEDDED, reason=str(exc)) from exc

    # ---- what it tells

    def _read_events(self) -> None:
        try:
            data = os.read(self._events, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._close_events()
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, told: dict[str, Any]) -> None:
        name, number = told.pop("event"), told.pop("id", 0)
        if self._started is not None and not self._started.done():
            if name == "ready":
                self._started.set_result(told)
            elif name == "failed":
                self._started.set_exception(UsageError(told["message"]))
        client = self._clients.get(number, "")
        if name == "login":
            self._logging_in.discard(number)
            event(logging.INFO, "ssh-login", client=client, **told)
        elif name == "gone":
            self._logging_in.discard(number)
            self._clients.pop(number, None)
        elif name in ("refused", "warning"):
            event(logging.WARNING if name == "warning" else logging.INFO, f"ssh-{name}", client=client, **told)

    def _close_events(self) -> None:
        if self._events < 0:
            return
        asyncio.get_running_loop().remove_reader(self._events)
        os.close(self._events)
        self._events = -1
        self._partial = b""
        self._clients.clear()
        self._logging_in.clear()
        if self._started is not None and not self._started.done():
            self._started.set_exception(UsageError("--target embedded: its process ended at once; see above"))


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())
