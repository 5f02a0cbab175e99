"""The target ``embedded``: this project's own SSH server, which needs neither OpenSSH nor a port.

It runs in a process beside the bridge (`tunnel.ssh.server`, where `messages` describes how the two talk). For each
tunnel the bridge passes one end of a socketpair to it, and keeps the other.
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
import time
from pathlib import Path
from typing import Any

from tunnel.children.child import Child, start
from tunnel.errors import DialError, UsageError
from tunnel.net.address import Client
from tunnel.net.backoff import backoff
from tunnel.net.home import expand_home
from tunnel.server.log import event, unexpected
from tunnel.server.settings import EMBEDDED
from tunnel.server.target import Target
from tunnel.ssh.logins import Logins

_START_LIMIT = 30.0  # seconds for the process to start
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 10.0  # seconds between attempts to start the process
_END_LIMIT = 5.0  # seconds for the process to end by itself
_BUFFER = 128 << 10  # bytes of a socketpair's buffers; the kernel doubles the number
_LINE_LIMIT = 1 << 16  # bytes; far longer than any line that the process writes
_DROPS_LOGGED_EVERY = 10.0  # seconds
_PACKAGES = Path(__file__).parents[2]  # the folder that contains this package
_BOOT = "import sys; sys.path.append(sys.argv[1]); from tunnel.ssh.server.listener import main; main(sys.argv[2])"


class EmbeddedTarget(Target):
    """The embedded SSH server. Call `start` before the first `dial`. The paths are options, None for the defaults."""

    def __init__(self, host_key: str | None, authorized_keys: str | None, *, agent_forwarding: bool = True) -> None:
        # Absolute, because the process has another working directory.
        self._options = {
            "host_key": _absolute(host_key, "host_key"),
            "authorized_keys": _absolute(authorized_keys, "authorized_keys"),
            "agent_forwarding": agent_forwarding,
        }
        self._process: Child | None = None
        self._control: socket.socket | None = None
        self._events = -1
        self._partial = b""
        self._last_id = 0
        self._clients: dict[int, str] = {}
        self._logins = Logins()
        self._drops_logged = 0
        self._drops_logged_at = -_DROPS_LOGGED_EVERY
        self._started: asyncio.Future[dict[str, Any]] | None = None
        self._restart: asyncio.Task[None] | None = None
        self._failed_restarts = 0  # in a row
        self.greeting = ""  # how to log in, for the person who starts the bridge

    def __str__(self) -> str:
        return EMBEDDED

    async def start(self) -> None:
        """Start the process; raises UsageError if there is no usable host key or no usable authorized key."""
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        with contextlib.ExitStack() as cleaning:
            ours, theirs = socket.socketpair()
            cleaning.callback(theirs.close)
            failing = cleaning.enter_context(contextlib.ExitStack())
            failing.callback(ours.close)
            self._events, told = os.pipe()
            cleaning.callback(os.close, told)
            failing.callback(self._close_events)
            self._process = self._spawn(theirs.fileno(), told)
            failing.pop_all()
        ours.setblocking(False)
        os.set_blocking(self._events, False)
        self._control = ours
        loop.add_reader(self._events, self._read_events)
        try:
            async with asyncio.timeout(_START_LIMIT):
                ready = await self._started
        except TimeoutError as exc:
            await self.close()
            raise UsageError(f"the SSH server was not ready within {_START_LIMIT:g} s", setting="target") from exc
        except UsageError:
            await self.close()
            raise
        keys = "1 key" if ready.get("keys") == 1 else f"{ready.get('keys')} keys"
        self.greeting = f"log in as {ready.get('user')} ({keys} authorized); host key {ready.get('host_key')}"

    def _spawn(self, control: int, events: int) -> Child:
        options = json.dumps({**self._options, "control": control, "events": events})
        child = start(
            # -P keeps the current folder out of the module search path.
            [sys.executable, "-P", "-c", _BOOT, str(_PACKAGES), options],
            stdout=subprocess.DEVNULL,
            pass_fds=(control, events),
        )  # in its own session, because Ctrl-C is meant for the bridge
        child.when_ended(child.reap)
        return child

    async def close(self) -> None:
        """End the process. Its connections end with their own sockets."""
        if self._control is not None:
            self._control.close()
            self._control = None
        process, self._process = self._process, None
        if process is not None:
            try:
                async with asyncio.timeout(_END_LIMIT):
                    await process.wait()
            except TimeoutError:
                process.signal(signal.SIGKILL)  # it is reaped once it has ended
        self._close_events()

    async def dial(self, seconds: float, client: Client) -> socket.socket:
        """Return a non-blocking socket with an SSH server at the other end. Raises DialError.

        The server is a process that counts as a pending login until the client has logged in: see `tunnel.ssh.logins`.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._dial(client)
        except TimeoutError as exc:
            raise DialError("tcp-timeout", address=EMBEDDED, seconds=seconds) from exc

    async def _dial(self, client: Client) -> socket.socket:
        login = await self._logins.enter(client.source)
        self._log_drops()
        try:
            if self._restart is not None or self._process is None or self._process.status is not None:
                await self._start_again()
            login.check()
            sock = self._connect(client)
        except BaseException:
            self._logins.abandon(login)
            raise
        self._clients[self._last_id] = client.address
        self._logins.started(login, self._last_id, sock)
        return sock

    def _connect(self, client: Client) -> socket.socket:
        """Pass a new connection, with a new ``_last_id``, to the process; raises DialError."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            raise DialError("tcp", address=EMBEDDED, reason=exc.strerror or str(exc)) from exc
        with theirs:
            try:
                for sock in (ours, theirs):
                    sock.setblocking(False)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
                self._last_id += 1
                message = json.dumps({"id": self._last_id, "client": client.address}).encode() + b"\n"
                if self._control is None:
                    raise BrokenPipeError
                socket.send_fds(self._control, [message], [theirs.fileno()])
            except OSError as exc:
                ours.close()
                raise DialError(
                    "tcp", address=EMBEDDED, reason=exc.strerror or "the SSH server's process has ended"
                ) from exc
        return ours

    async def _start_again(self) -> None:
        """Start the process again, once for all clients that wait for it; raises DialError."""
        if self._restart is None:
            self._restart = asyncio.create_task(self._restart_process())
            self._restart.add_done_callback(self._restarted)
        await asyncio.shield(self._restart)

    async def _restart_process(self) -> None:
        event(logging.WARNING, "ssh-restarted", reason="its process had ended")
        await self.close()
        try:
            await self.start()
        except (UsageError, OSError) as exc:
            raise DialError("tcp", address=EMBEDDED, reason=str(exc)) from exc

    def _restarted(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._restart = None
            self._failed_restarts = 0
        else:  # until the next attempt clients get the same error
            pause = backoff(self._failed_restarts, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
            self._failed_restarts += 1
            asyncio.get_running_loop().call_later(pause, self._forget_restart)

    def _forget_restart(self) -> None:
        self._restart = None

    def _log_drops(self) -> None:
        """Log connections that had to give way, but in a flood not each of them."""
        drops, now = self._logins.gave_way - self._drops_logged, time.monotonic()
        if drops and now >= self._drops_logged_at + _DROPS_LOGGED_EVERY:
            self._drops_logged, self._drops_logged_at = self._logins.gave_way, now
            event(logging.WARNING, "ssh-dropped", connections=drops, reason="too many clients that do not log in")

    # --- Events of the process

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
            except Exception as exc:  # go on with the next event
                unexpected(exc, during="an event from the embedded SSH server")

    def _take(self, told: dict[str, Any]) -> None:
        name, number = told["event"], told["id"]
        if self._started is not None and not self._started.done():
            if name == "ready":
                self._started.set_result(told)
            elif name == "failed":
                self._started.set_exception(_start_error(told))
        client = self._clients.get(number, "")
        if name in ("hello", "begin"):
            self._logins.heard(number, begun=name == "begin")
        elif name == "login":
            self._logins.over(number)
            event(logging.INFO, "ssh-login", client=client, **_texts(told, "user", "key", "authority"))
        elif name == "gone":
            self._logins.over(number)
            self._clients.pop(number, None)
        elif name == "refused":
            event(logging.INFO, "ssh-refused", client=client, **_texts(told, "user", "reason"))
        elif name == "warning":
            event(logging.WARNING, "ssh-warning", client=client, **_texts(told, "message"))

    def _close_events(self) -> None:
        if self._events < 0:
            return
        asyncio.get_running_loop().remove_reader(self._events)
        os.close(self._events)
        self._events = -1
        self._partial = b""
        self._clients.clear()
        self._logins.forget()
        if self._started is not None and not self._started.done():
            self._started.set_exception(
                UsageError("the SSH server ended while it was starting; see above", setting="target")
            )


def _parse_event(line: bytes) -> dict[str, Any]:
    """Parse an event; its id is 0 if it has none. Raises ValueError."""
    told = json.loads(line)
    if not isinstance(told, dict) or not isinstance(told.get("event"), str):
        raise ValueError("not an event")
    number = told.setdefault("id", 0)
    if type(number) is not int:
        raise ValueError("not a number")
    return told


def _start_error(told: dict[str, Any]) -> UsageError:
    message, setting = str(told.get("message", "its process cannot start")), str(told.get("setting", ""))
    code = "no-keys" if told.get("code") == "no-keys" else "usage"
    return UsageError(message, code=code, setting=setting or None)


def _texts(told: dict[str, Any], *names: str) -> dict[str, str]:
    return {name: str(told.get(name, "")) for name in names}


def _absolute(path: str | None, setting: str) -> str | None:
    return None if path is None else str(Path(expand_home(path, setting=setting)).absolute())
