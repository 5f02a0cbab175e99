"""The opening handshake at the bridge: from a request's head to the 101 that opens a tunnel, or to a refusal.

First the form (RFC 6455 section 4.2, checked by the ``websockets`` library), then who asks. Nothing here does I/O.
"""

from __future__ import annotations

import email.utils
import logging
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from websockets.exceptions import InvalidHandshake, InvalidHeader, InvalidUpgrade
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from tunnel.protocol.control import SPEED_TEST, SUBPROTOCOL
from tunnel.server.http import Head, Refusal, answer

if TYPE_CHECKING:
    from tunnel.server.access import Origins, Tokens

HEALTH_PATH = "/healthz"
_HARMLESS_PROBLEMS = ("unsupported request body", "transfer codings aren't supported")  # in the library's words
# What the library would log are our own errors, which are raised and logged with a connection's others.
_NO_LOG = logging.getLogger("tunnel.server.handshake")
_NO_LOG.disabled = True
BINARY = Subprotocol("binary")  # what websocat, noVNC and others call a stream of bytes


class Upgrade:
    """A request for a WebSocket. ``forwarded_for`` is what proxies say about where it came from: it proves nothing."""

    def __init__(self, head: Head) -> None:
        """Parse the head; raises Refusal when it is no valid request, or not one for a WebSocket."""
        if head.method != "GET":
            raise Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED, "method", f"{head.method[:20]} is not possible here", {"Allow": "GET"}
            )
        if head.minor != 1:
            raise _bad_request("a WebSocket needs HTTP/1.1, this request is HTTP/1.0")
        self.path = head.path
        self.offered: Sequence[str] = ()  # the subprotocols that the client knows, once it was checked
        self.offers_resume = False  # whether the client can speak Wire 2
        self.asks_for_speed_test = False  # rather than for the target
        self._subprotocol: str | None = None  # what the 101 selects, and the headers that it has besides
        self._added: list[tuple[str, str]] = []
        # The library makes a method of its own of what it is given, which a bound method would not become.
        self._protocol = ServerProtocol(
            select_subprotocol=lambda _, offered: self._select_subprotocol(offered), logger=_NO_LOG
        )
        self._request = _parse(self._protocol, head.data)
        headers = self._request.headers
        if len(headers.get_all("Host")) != 1:
            raise _bad_request("a request has one Host field")  # RFC 9112 section 3.2
        self.forwarded_for = headers.get_all("X-Forwarded-For")
        self.origins = headers.get_all("Origin")
        self.authorization = headers.get_all("Authorization")
        self.resume = headers.get_all("Wstunnel-Resume")

    def check(self) -> None:
        """Raise Refusal when the request asks for no WebSocket, or not properly."""
        try:
            self._digest, _, self._subprotocol = self._protocol.process_request(self._request)
        except InvalidUpgrade as exc:
            raise Refusal(
                HTTPStatus.UPGRADE_REQUIRED,
                "upgrade-required",
                "this is a tunnel for WebSocket clients: ssh -o ProxyCommand='wstunnel-py connect URL' USER@HOST",
                {"Upgrade": "websocket", "Connection": "close, Upgrade"},
            ) from exc
        except InvalidHeader as exc:
            raise _bad_request(f"invalid {exc.name} header" if exc.value else str(exc)) from exc
        except InvalidHandshake as exc:
            raise _bad_request("it is no proper request for a WebSocket (RFC 6455)") from exc

    def answer_with(self, subprotocol: str | None, headers: Iterable[tuple[str, str]]) -> None:
        """Let the 101 for a request that was checked select ``subprotocol`` (None: as it is), and have ``headers``."""
        if subprotocol is not None:
            self._subprotocol = subprotocol
        self._added += headers

    def accept(self, *, resumable: bool = False, received: int | None = None) -> bytes:
        """Return the bytes of the 101 for a request that was checked.

        ``resumable``: for Wire 2, which the client offers; ``received`` are the numbers that a resumed session has
        delivered so far.
        """
        headers = [] if received is None else [("Wstunnel-Received", str(received))]
        self.answer_with(SUBPROTOCOL if resumable else None, headers)
        fields = [
            ("Date", email.utils.formatdate(usegmt=True)),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", self._digest),
        ]
        if self._subprotocol is not None:
            fields.append(("Sec-WebSocket-Protocol", self._subprotocol))
        lines = "".join(f"{name}: {value}\r\n" for name, value in (*fields, *self._added))
        return f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode("latin-1")

    def _select_subprotocol(self, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        """Select ``binary`` if it is offered, else none, which every client takes; `accept` may choose another."""
        self.offered = offered
        self.offers_resume = SUBPROTOCOL in offered
        if SPEED_TEST in offered:
            self.asks_for_speed_test = True
            return Subprotocol(SPEED_TEST)
        return BINARY if BINARY in offered else None


class Rules:
    """What the bridge demands of an upgrade: ``path`` (None: any), a token, and no foreign web page behind it.

    ``negotiate`` may change the answer to an upgrade that meets these demands, or raise Refusal.
    """

    def __init__(
        self, path: str | None, tokens: Tokens, origins: Origins, negotiate: Callable[[Upgrade], None] = lambda _: None
    ) -> None:
        self._path = path
        self._tokens = tokens
        self._origins = origins
        self._negotiate = negotiate

    def admit(self, upgrade: Upgrade) -> None:
        """Raise Refusal unless ``upgrade`` may open a tunnel."""
        if self._path is not None and upgrade.path != self._path:
            raise Refusal(HTTPStatus.NOT_FOUND, "not-found", "there is no tunnel at this path")
        upgrade.check()
        for origin in upgrade.origins:
            self._origins.admit(origin)
        self._tokens.admit(upgrade.authorization)
        self._negotiate(upgrade)


def is_health_check(head: Head) -> bool:
    """Return whether the request asks for the bridge's health; load balancers do so in HTTP/1.0 too."""
    return head.path == HEALTH_PATH and head.method in ("GET", "HEAD")


def health_answer(head: Head, *, tunnels: int, detached: int, draining: bool) -> bytes:
    """Return the answer to a health check: 503 once no more tunnels are opened.

    ``detached`` is the number of sessions that wait for their clients; they are not among the ``tunnels``.
    """
    status = HTTPStatus.SERVICE_UNAVAILABLE if draining else HTTPStatus.OK
    state = "draining" if draining else "ok"
    body = {"status": state, "tunnels": tunnels, "detached": detached, "draining": draining}
    return answer(status, body, {}, with_body=head.method == "GET")


def _parse(protocol: ServerProtocol, head: bytes) -> Request:
    # Nothing behind the head may get there: the protocol would take it for frames before the request is accepted.
    protocol.receive_data(head)
    for event in protocol.events_received():
        if isinstance(event, Request):
            return event
    # The library's own words quote what came, and with it perhaps a secret.
    problem = protocol.handshake_exc
    cause = problem.__cause__ if problem else None
    if isinstance(cause, EOFError):  # the head is whole: it is the end of a line that was not found
        raise _bad_request("a line of the head does not end in CR LF")
    if str(cause) in _HARMLESS_PROBLEMS:
        raise _bad_request(str(cause))
    raise _bad_request("a header is malformed or too long, or there are too many")


def _bad_request(problem: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "bad-request", problem)
