"""The target ``embedded``: this project's own SSH server, which needs neither OpenSSH nor a port.

It runs in a process beside the bridge (`tunnel.ssh.server_process`). For each tunnel the bridge passes one end of a
socketpair to it, and keeps the other.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from pathlib import Path

from tunnel.children.child import Child
from tunnel.errors import DialError, UsageError
from tunnel.net.address import Client
from tunnel.net.backoff import backoff
from tunnel.net.home import expand_home
from tunnel.restart.state import Handed, Kept, Tree
from tunnel.server.log import event
from tunnel.server.settings import EMBEDDED
from tunnel.server.target import Target
from tunnel.ssh.logins import Logins
from tunnel.ssh.server_process import Event, ServerProcess, spawn

_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 10.0  # seconds between attempts to start the process
_DROPS_LOGGED_EVERY = 10.0  # seconds


class EmbeddedTarget(Target):
    """The embedded SSH server. Call `start` before the first `dial`. The paths are options, None for the defaults.

    After a restart of the bridge, connections continue in their process, and new ones get a new process.
    """

    def __init__(self, host_key: str | None, authorized_keys: str | None, *, agent_forwarding: bool = True) -> None:
        # Absolute, because the process has another working directory.
        self._options = {
            "host_key": _absolute(host_key, "host_key"),
            "authorized_keys": _absolute(authorized_keys, "authorized_keys"),
            "agent_forwarding": agent_forwarding,
        }
        self._server: ServerProcess | None = None  # gets new connections
        self._retired: list[ServerProcess] = []
        self._is_restored = False
        self._last_id = 0
        self._logins = Logins()
        self._drops_logged = 0
        self._drops_logged_at = -_DROPS_LOGGED_EVERY
        self._restart: asyncio.Task[None] | None = None
        self._failed_restarts = 0  # in a row

    def __str__(self) -> str:
        return EMBEDDED

    @property
    def greeting(self) -> str:
        """How to log in, for the person who starts the bridge."""
        return "" if self._server is None else self._server.greeting

    def capture(self, kept: Kept) -> Tree:
        """Return the processes. Connections that have not logged in yet are no longer counted afterwards."""
        servers = [each.capture(kept) for each in self._processes() if each.is_alive]
        return {"servers": servers, "last_id": self._last_id}

    def restore(self, tree: Tree, handed: Handed) -> None:
        """Restore what `capture` returned, before `start`. The processes have continued meanwhile."""
        self._is_restored = True
        self._last_id = tree["last_id"]
        for each in tree["servers"]:
            self._retired.append(ServerProcess.restored(each, handed, self._take, self._forget))
        if self._retired and self._retired[-1].takes_connections:
            self._server = self._retired.pop()

    async def start(self) -> None:
        """Start the process; raises UsageError if there is no usable host key or no usable authorized key.

        After `restore` it does not wait for that, and cannot fail: the latest of the restored processes gets
        connections until there is a new one.
        """
        if not self._is_restored:
            self._server = await self._new_process()
            return
        for each in self._processes():
            each.watch()
        self._start_again()

    def _processes(self) -> list[ServerProcess]:
        return [*self._retired, *([] if self._server is None else [self._server])]

    async def _new_process(self) -> ServerProcess:
        return await ServerProcess.started(self._spawn, self._take, self._forget)

    def _spawn(self, control: int, events: int) -> Child:
        return spawn(self._options, control, events)

    async def close(self) -> None:
        """End the processes. Their connections end with their own sockets."""
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.wait([self._restart])
        servers = self._processes()
        self._server, self._retired = None, []
        await asyncio.gather(*(each.close() for each in servers))

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
            if self._server is None or not self._server.takes_connections:
                await asyncio.shield(self._start_again())
            login.check()
            if self._server is None:
                raise DialError("tcp", address=EMBEDDED, reason="the SSH server is being stopped")
            self._last_id += 1
            sock = self._server.connect(self._last_id, client)
        except BaseException:
            self._logins.abandon(login)
            raise
        self._logins.started(login, self._last_id, sock)
        return sock

    def _start_again(self) -> asyncio.Task[None]:
        """Return the task that starts another process, which is one for all clients that wait; it raises DialError."""
        if self._restart is None:
            self._restart = asyncio.create_task(self._replace())
            self._restart.add_done_callback(self._restarted)
        return self._restart

    async def _replace(self) -> None:
        """Start another process to replace one that has ended, or a restored one."""
        before = self._server
        if before is not None and not before.takes_connections:
            event(logging.WARNING, "ssh-restarted", reason="its process had ended")
            self._server = None
            await before.close()
            before = None
        try:
            self._server = await self._new_process()
        except (UsageError, OSError) as exc:
            if before is not None:
                event(
                    logging.WARNING,
                    "ssh-warning",
                    client="",
                    message=f"the process from before the restart stays in use: {exc}",
                )
            raise DialError("tcp", address=EMBEDDED, reason=str(exc)) from exc
        if before is not None:
            before.retire()
            self._retired.append(before)

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
        """Log evicted connections, but not each of them in a flood."""
        drops, now = self._logins.gave_way - self._drops_logged, time.monotonic()
        if drops and now >= self._drops_logged_at + _DROPS_LOGGED_EVERY:
            self._drops_logged, self._drops_logged_at = self._logins.gave_way, now
            event(logging.WARNING, "ssh-dropped", connections=drops, reason="too many clients that do not log in")

    # --- Events of the processes

    def _take(self, server: ServerProcess, told: Event) -> None:
        name, number = told["event"], told["id"]
        client = server.clients.get(number, "")
        if name in ("hello", "begin"):
            self._logins.heard(number, begun=name == "begin")
        elif name == "login":
            self._logins.over(number)
            event(logging.INFO, "ssh-login", client=client, **_texts(told, "user", "key", "authority"))
        elif name == "gone":
            self._logins.over(number)
        elif name == "refused":
            event(logging.INFO, "ssh-refused", client=client, **_texts(told, "user", "reason"))
        elif name == "warning":
            event(logging.WARNING, "ssh-warning", client=client, **_texts(told, "message"))

    def _forget(self, server: ServerProcess) -> None:
        """Remove the pending logins of a process of which nothing more will be heard."""
        for number in server.clients:
            self._logins.over(number)
        if server in self._retired:
            self._retired.remove(server)


def _texts(told: Event, *names: str) -> dict[str, str]:
    return {name: str(told.get(name, "")) for name in names}


def _absolute(path: str | None, setting: str) -> str | None:
    return None if path is None else str(Path(expand_home(path, setting=setting)).absolute())
