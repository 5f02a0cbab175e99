"""The terminal service: an HTTP server that E2B's SDKs, E2B's CLI and our own client can use.

    async with TerminalService(TerminalSettings(pty="127.0.0.1:0")) as service:
        print(service.urls)
        await service.close()

It is built on aiohttp, which parses chunked bodies in C, has backpressure in both directions, cancels the handler of a
client that disconnects, and takes sockets that are already open. ``connectrpc``, the official server, is an ASGI
application over generated protobuf classes: it needs an HTTP server as well, and cannot change all answers. Starlette
with uvicorn is two packages, and needs a second task per request to notice that a client has disconnected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Self, cast

from aiohttp import web

from tunnel.errors import UsageError, spelled
from tunnel.net.address import TCPAddress, is_loopback
from tunnel.net.descriptors import raise_descriptor_limit
from tunnel.net.forwarded import TrustedProxies
from tunnel.net.listening import open_listening
from tunnel.pty.protocol import messages
from tunnel.pty.server.accepting import Accepting
from tunnel.pty.server.authentication import Guard
from tunnel.pty.server.connection import Connection
from tunnel.pty.server.files import FileService
from tunnel.pty.server.processes import Processes
from tunnel.pty.server.request_checks import RequestChecks
from tunnel.pty.server.rpc import ProcessService
from tunnel.pty.server.users import Users
from tunnel.restart.part import HOLD_LIMIT
from tunnel.restart.state import Handed, Kept, Tree
from tunnel.server.access import Tokens
from tunnel.server.listen import Listener, restored
from tunnel.server.log import event
from tunnel.server.settings import TerminalSettings

_HEALTH = "/health"
_LOOK_AGAIN = 0.02  # seconds, while answers are finished
_STREAMS_LIMIT = 2.0  # seconds for streams to end after their processes


class TerminalService:
    """The service with its listeners. An asynchronous context manager that ends all processes on exit.

    ``routes`` are served as well, and need the same token unless they are in ``open_paths``; with ``same_origin`` the
    service's own pages may use it. Raises UsageError for invalid settings, and on entry DialError (``listen``) for an
    address that cannot be used.
    """

    def __init__(
        self,
        settings: TerminalSettings,
        *,
        routes: Iterable[web.AbstractRouteDef] = (),
        open_paths: Iterable[str] = (),
        same_origin: bool = False,
    ) -> None:
        if settings.pty is None:
            raise UsageError("the terminal service needs an address", setting="pty")
        self._address = settings.pty
        self._tokens = Tokens(settings.pty_token_file, "pty_token_file")
        guard = Guard(self._tokens, settings.pty_host, same_origin=same_origin)
        self._checks = RequestChecks(guard, frozenset({_HEALTH, *open_paths}), TrustedProxies(settings.trusted_proxy))
        users = Users(settings.pty_user, may_switch=bool(self._tokens))
        self._processes = Processes(settings.pty_max_processes, settings.pty_max_subscribers, settings.pty_scrollback)
        self._rpc = ProcessService(self._processes, users)
        app = web.Application()
        files = FileService(users)
        app.add_routes(
            [
                web.route("*", messages.PREFIX + "{method}", self._rpc.handle),
                web.get(_HEALTH, _health),
                web.get("/files", files.get, allow_head=False),
                web.post("/files", files.post),
                *routes,
            ]
        )
        app.on_response_prepare.append(_add_service_header)
        # Handlers are cancelled when the client disconnects; each of them can be cancelled safely.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_STREAMS_LIMIT)
        self._listeners: list[Listener] = []
        self._accepting: Accepting | None = None

    @property
    def urls(self) -> list[str]:
        """The addresses with their actual ports: URLs and ``unix:PATH``."""
        addresses = [listener.address for listener in self._listeners]
        return [f"http://{each}" if isinstance(each, TCPAddress) else str(each) for each in addresses]

    @property
    def authentication(self) -> str:
        """How clients authenticate: ``token`` or ``none``."""
        return "token" if self._tokens else "none"

    def reload(self) -> None:
        """Read the tokens again. If they cannot be used, that is logged, and the old ones stay in use."""
        try:
            self._tokens.reload()
        except UsageError as exc:
            event(logging.ERROR, "reload-failed", what="access tokens", reason=str(exc), kept="those in use")
        else:
            event(logging.INFO, "reloaded", what="access tokens")

    async def __aenter__(self) -> Self:
        listeners = self._listeners or list(map(Listener, open_listening([(self._address, "pty")], unix_mode=0o600)))
        try:
            if not self._tokens and not all(is_loopback(each.address) for each in listeners):
                problem = f"{self._address}: an address other than loopback requires {spelled('pty_token_file')}"
                raise UsageError(problem, setting="pty")
            await self._runner.setup()
            server = cast(web.Server, self._runner.server)  # there is one after setup()
            self._checks.install(server, {messages.PREFIX: self._rpc.handle})
            self._accepting = Accepting(server, listeners, raise_descriptor_limit())
        except BaseException:
            await self._runner.cleanup()
            for listener in listeners:
                listener.close()
            raise
        self._listeners = listeners
        self._processes.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def wait_for_failure(self) -> None:
        """Wait until the service can no longer accept connections, which is logged."""
        if self._accepting is not None:
            await self._accepting.wait_for_failure()

    # --- A restart in place: see `tunnel.restart.part`

    async def hold(self) -> None:
        """Accept no connections, and let answers be finished that do not take long.

        Idle connections are closed, so that no client sends its next request on one that nobody will read.
        """
        for listener in self._listeners:
            listener.pause()
        loop = asyncio.get_running_loop()
        end = loop.time() + HOLD_LIMIT
        is_busy = True
        while is_busy and loop.time() < end:
            await asyncio.sleep(_LOOK_AGAIN)  # also at first: a connection accepted just now may bring a request
            connections = cast(list[Connection], cast(web.Server, self._runner.server).connections)
            for each in connections:
                each.close_if_idle()
            is_busy = any(each.is_answering for each in connections)

    def go_on(self) -> None:
        """Undo `hold`."""
        for listener in self._listeners:
            listener.go_on()

    def capture(self, kept: Kept) -> Tree:
        """Return the listeners and all processes. Connections are not kept; clients reconnect."""
        return {
            "listeners": [each.capture(kept) for each in self._listeners],
            "processes": self._processes.capture(kept),
        }

    def let_go(self) -> None:
        """Tell the clients of streams that they must connect again."""
        self._rpc.end_streams()

    def restore(self, tree: Tree, handed: Handed) -> None:
        """Become what `capture` returned."""
        self._listeners = [restored(each, handed) for each in tree["listeners"]]
        self._processes.restore(tree["processes"], handed)

    async def close(self) -> None:
        """End all processes and their streams, and stop listening."""
        await self._processes.close()
        if self._accepting is not None:
            await self._accepting.close()
        await self._runner.cleanup()
        for listener in self._listeners:
            listener.close()


async def _add_service_header(request: web.Request, response: web.StreamResponse) -> None:
    """Mark every answer, so that clients know that this service supports the extensions of this project."""
    response.headers[messages.SERVICE] = "1"


async def _health(request: web.Request) -> web.Response:
    return web.Response(status=204)
