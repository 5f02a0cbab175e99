"""The PTY service: an HTTP server for terminals, as E2B's SDKs and CLI and our own client speak to one.

    async with TerminalService(TerminalSettings(pty="127.0.0.1:0")) as service:
        print(service.urls)
        await service.close()

It is built on aiohttp. The alternatives were weighed by what streams need. ``connectrpc``, the official server, is an
ASGI application over generated protobuf classes: it still needs an HTTP server, and leaves no say in edge answers.
Starlette with uvicorn is two packages, whose way to notice that a client has gone is a second task that reads from the
request. aiohttp parses chunked bodies in C, gives back-pressure in both directions, cancels the handler of a client
that is gone, takes sockets that are open already, and is as well kept. All of them import in about 0.2 s.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Self, cast

from aiohttp import web

from tunnel.errors import UsageError, spelled
from tunnel.net.address import TCPAddress, is_loopback
from tunnel.net.descriptors import raise_descriptor_limit
from tunnel.net.forwarded import TrustedProxies
from tunnel.net.listening import ListeningSocket, open_listening
from tunnel.pty.protocol import messages
from tunnel.pty.server.accepting import Accepting
from tunnel.pty.server.authentication import Guard
from tunnel.pty.server.files import FileService
from tunnel.pty.server.middleware import Door
from tunnel.pty.server.processes import Processes
from tunnel.pty.server.rpc import ProcessService
from tunnel.pty.server.users import Users
from tunnel.server.access import Tokens
from tunnel.server.log import event
from tunnel.server.settings import TerminalSettings

_HEALTH = "/health"
_STREAMS_LIMIT = 2.0  # seconds that streams have to end after their processes


class TerminalService:
    """The service with its listeners, as an async context manager; leaving it ends its processes.

    ``routes`` are served beside its own, under the same token unless they are among ``open_paths``; with
    ``same_origin`` pages of its own may use it. Raises UsageError when the settings cannot be used, and on entering
    DialError (``listen``) when an address cannot.
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
        self._door = Door(guard, frozenset({_HEALTH, *open_paths}), TrustedProxies(settings.trusted_proxy))
        users = Users(settings.pty_user, may_switch=bool(self._tokens))
        self._processes = Processes(settings.pty_max_processes, settings.pty_max_subscribers, settings.pty_scrollback)
        app = web.Application()
        files = FileService(users)
        app.add_routes(
            [
                web.route("*", messages.PREFIX + "{method}", ProcessService(self._processes, users).handle),
                web.get(_HEALTH, _health),
                web.get("/files", files.get, allow_head=False),
                web.post("/files", files.post),
                *routes,
            ]
        )
        app.on_response_prepare.append(_sign)
        # A stream's handler is cancelled when its client goes; no handler leaves anything half done then.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_STREAMS_LIMIT)
        self._listeners: list[ListeningSocket] = []
        self._accepting: Accepting | None = None

    @property
    def urls(self) -> list[str]:
        """Where the service listens, with the real ports: URLs and ``unix:PATH``."""
        addresses = [listener.address for listener in self._listeners]
        return [f"http://{each}" if isinstance(each, TCPAddress) else str(each) for each in addresses]

    @property
    def authentication(self) -> str:
        """What clients must show: ``token`` or ``none``."""
        return "token" if self._tokens else "none"

    def reload(self) -> None:
        """Read the tokens again. What cannot be used is logged, and what was in use stays."""
        try:
            self._tokens.reload()
        except UsageError as exc:
            event(logging.ERROR, "reload-failed", what="access tokens", reason=str(exc), kept="those in use")
        else:
            event(logging.INFO, "reloaded", what="access tokens")

    async def __aenter__(self) -> Self:
        listeners = open_listening([(self._address, "pty")], unix_mode=0o600)
        try:
            if not self._tokens and not all(is_loopback(each.address) for each in listeners):
                raise UsageError(
                    f"{self._address}: without {spelled('pty_token_file')} only loopback addresses are possible",
                    setting="pty",
                )
            await self._runner.setup()
            server = cast(web.Server, self._runner.server)  # there is one after setup()
            self._door.guard(server)
            self._accepting = Accepting(server, listeners, raise_descriptor_limit())
        except BaseException:
            await self._runner.cleanup()
            for listener in listeners:
                listener.close()
            raise
        self._listeners = listeners
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def wait_for_failure(self) -> None:
        """Wait until the service has given up to accept connections, which the log tells."""
        if self._accepting is not None:
            await self._accepting.wait_for_failure()

    async def close(self) -> None:
        """End all processes, let the streams tell it, and stop listening."""
        await self._processes.close()
        if self._accepting is not None:
            await self._accepting.close()
        await self._runner.cleanup()
        for listener in self._listeners:
            listener.close()


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    """Let clients know, with whatever answer, that this service keeps more promises than E2B's."""
    response.headers[messages.SERVICE] = "1"


async def _health(request: web.Request) -> web.Response:
    return web.Response(status=204)
