"""The upgrade at the bridge: from a request's head to the 101 that opens a tunnel, or to a refusal. Sans-I/O.

It first checks the form (RFC 6455 section 4.2, with the ``websockets`` library), then the access rules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from websockets.exceptions import InvalidHandshake, InvalidHeader, InvalidUpgrade
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.streams import StreamReader
from websockets.typing import Subprotocol

from tunnel.protocol.control import SPEED_TEST, SUBPROTOCOL
from tunnel.server.http import Head, Refusal, answer, date

if TYPE_CHECKING:
    from tunnel.server.access import Origins, Tokens

HEALTH_PATH = "/healthz"
_VERSION = "Sec-WebSocket-Version"
_HARMLESS_PROBLEMS = ("unsupported request body", "transfer codings aren't supported")  # messages of the library
# The library's own log lines are not needed: the errors are raised and logged with the connection.
_NO_LOG = logging.getLogger("tunnel.server.handshake")
_NO_LOG.disabled = True
BINARY = Subprotocol("binary")  # the name that websocat, noVNC and others use for a byte stream


class Upgrade:
    """A request for a WebSocket. ``forwarded_for`` is what proxies report as its origin; it proves nothing."""

    def __init__(self, head: Head) -> None:
        """Parse the head. Raises Refusal if it is not a valid request for a WebSocket."""
        if head.method != "GET":
            raise Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED, "method", f"{head.method[:20]} is not allowed here", {"Allow": "GET"}
            )
        if head.minor != 1:
            raise _bad_request("a WebSocket needs HTTP/1.1, this request is HTTP/1.0")
        self.path = head.path
        self.offered: Sequence[str] = ()  # the subprotocols that the client offers, set by `check`
        self.offers_resume = False  # whether the client offers sessions (Wire 2)
        self.asks_for_speed_test = False  # instead of the target
        self._subprotocol: str | None = None  # the subprotocol that the 101 selects, and its extra headers
        self._added: list[tuple[str, str]] = []
        self._request = _parse(head.data)
        headers = self._request.headers
        if len(headers.get_all("Host")) != 1:
            raise _bad_request("a request must have exactly one Host field")  # RFC 9112 section 3.2
        self.forwarded_for = headers.get_all("X-Forwarded-For")
        self.origins = headers.get_all("Origin")
        self.authorization = headers.get_all("Authorization")
        self.resume = headers.get_all("Wstunnel-Resume")

    def check(self) -> None:
        """Raise Refusal if this is not a valid request for a WebSocket."""
        _CHECKS.offered = ()
        try:
            self._digest, _, self._subprotocol = _CHECKS.process_request(self._request)
        except InvalidUpgrade as exc:
            raise Refusal(
                HTTPStatus.UPGRADE_REQUIRED,
                "upgrade-required",
                "this is a tunnel for WebSocket clients: ssh -o ProxyCommand='wstunnel-py connect URL' USER@HOST",
                {"Upgrade": "websocket", "Connection": "close, Upgrade"},
            ) from exc
        except InvalidHeader as exc:
            refusal = _bad_request(f"invalid {exc.name} header" if exc.value else str(exc))
            if exc.name == _VERSION:
                refusal.headers = {_VERSION: "13"}  # RFC 6455 section 4.4: the version that this server has
            raise refusal from exc
        except InvalidHandshake as exc:
            raise _bad_request("it is not a valid WebSocket request (RFC 6455)") from exc
        self.offered = _CHECKS.offered
        self.offers_resume = SUBPROTOCOL in self.offered
        self.asks_for_speed_test = SPEED_TEST in self.offered

    def answer_with(self, subprotocol: str | None, headers: Iterable[tuple[str, str]]) -> None:
        """Set the ``subprotocol`` (None: unchanged) and extra ``headers`` of the 101 for a checked request."""
        if subprotocol is not None:
            self._subprotocol = subprotocol
        self._added += headers

    def accept(self, *, resumable: bool = False, received: int | None = None) -> bytes:
        """Return the bytes of the 101 for a request that was checked.

        ``resumable``: select Wire 2, which the client offers; ``received``: how many numbers a resumed session has
        delivered so far.
        """
        headers = [] if received is None else [("Wstunnel-Received", str(received))]
        self.answer_with(SUBPROTOCOL if resumable else None, headers)
        fields = [
            ("Date", date()),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", self._digest),
        ]
        if self._subprotocol is not None:
            fields.append(("Sec-WebSocket-Protocol", self._subprotocol))
        lines = "".join(f"{name}: {value}\r\n" for name, value in (*fields, *self._added))
        return f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode("latin-1")


class _Checks(ServerProtocol):
    """The library's checks of a request; ``offered`` are the subprotocols of the latest one."""

    offered: Sequence[str] = ()

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Select ``binary`` if it is offered, else none, which every client accepts; `accept` may select another."""
        self.offered = subprotocols
        if SPEED_TEST in subprotocols:
            return Subprotocol(SPEED_TEST)
        return BINARY if BINARY in subprotocols else None


# One for all requests: to make one takes longer than to parse a header, and no check uses anything from the last one.
_CHECKS = _Checks(logger=_NO_LOG)


class Rules:
    """The access rules for an upgrade: the ``path`` (None: any), a token, and the origin of a web page.

    ``negotiate`` may change the answer to an upgrade that passes, or raise Refusal.
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
    """Return whether the request is a health check; load balancers may use HTTP/1.0 for it."""
    return head.path == HEALTH_PATH and head.method in ("GET", "HEAD")


def health_answer(head: Head, *, tunnels: int, detached: int, draining: bool) -> bytes:
    """Return the answer to a health check: 503 once no more tunnels are opened.

    ``detached`` is the number of detached sessions, which do not count as ``tunnels``.
    """
    status = HTTPStatus.SERVICE_UNAVAILABLE if draining else HTTPStatus.OK
    state = "draining" if draining else "ok"
    body = {"status": state, "tunnels": tunnels, "detached": detached, "draining": draining}
    return answer(status, body, {}, with_body=head.method == "GET")


def _parse(head: bytes) -> Request:
    reader = StreamReader()
    reader.feed_data(head)
    problem = "a header is malformed or too long, or there are too many"
    try:
        next(Request.parse(reader.read_line))
    except StopIteration as done:
        request: Request = done.value
        return request
    except EOFError:  # the head is complete, so it is the end of a line that is missing
        problem = "a header line does not end with CR LF"
    except Exception as exc:
        # Not the library's messages, which quote the request and so perhaps a secret.
        if str(exc) in _HARMLESS_PROBLEMS:
            problem = str(exc)
    raise _bad_request(problem)


def _bad_request(problem: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "bad-request", problem)
