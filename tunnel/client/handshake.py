"""The upgrade of a dial: sends the request over a socket, reads the answer, and raises the error for a bad one.

`tunnel.protocol.upgrade` builds the request and parses the answer.
"""

from __future__ import annotations

from tunnel.errors import DialError
from tunnel.protocol.upgrade import (
    NoFinalResponse,
    ResponseError,
    ResponseParser,
    check_upgrade,
    new_key,
    upgrade_request,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Sequence

    from tunnel.client.address import Address
    from tunnel.client.tcp import Limit

    Headers = tuple[tuple[str, str], ...]

BODY_WAIT = 2.0  # seconds to wait, after the head of a refusal, for the body that gives the reason


def upgrade(
    sock: _socket.socket,
    address: Address,
    subprotocols: Sequence[str],
    headers: Sequence[tuple[str, str]],
    limit: Limit,
    meanwhile: Callable[[], None],
) -> tuple[str | None, Headers, bytes]:
    """Open a WebSocket at ``address`` over ``sock``; ``meanwhile`` is called while waiting for the answer.

    Return the subprotocol that the server selected (or None), its headers, and the bytes after the headers. Raises
    DialError.
    """
    key, url = new_key(), str(address)
    parser = ResponseParser()
    try:
        try:
            limit.send(sock, upgrade_request(address.resource, address.host_field, key, subprotocols, headers))
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server that refuses early may have sent an answer, which can still be read
        try:
            meanwhile()
        except OSError as exc:  # not the server's fault: a module that cannot be opened, for example
            raise DialError("resources", reason=exc.strerror or exc) from exc
        while not parser.done:
            data = limit.apply(sock).recv(65536)
            if not data:
                parser.end()
                break
            parser.feed(data)
            if parser.head is not None:
                limit.shorten(BODY_WAIT)
    except NoFinalResponse as exc:
        raise DialError("no-answer", hop=url) from exc
    except ResponseError as exc:
        if not parser.salvage():
            if limit.over:  # the alarm has closed the connection
                raise DialError("answer-timeout", hop=url, seconds=limit.seconds) from exc
            if not str(exc):
                raise DialError("hung-up", hop=url) from exc
            raise DialError("not-http", url=url, reason=exc) from exc
    except OSError as exc:
        if not parser.salvage():
            if isinstance(exc, TimeoutError) or limit.over:
                raise DialError("answer-timeout", hop=url, seconds=limit.seconds) from exc
            raise _tls_error(exc, address) or DialError("hung-up", hop=url) from exc
    if parser.head is None:
        raise DialError("hung-up", hop=url)
    # A refusal whose body is late or cut off is still a refusal.
    subprotocol = check_upgrade(parser.head, url=url, key=key, subprotocols=subprotocols)
    return subprotocol, parser.head.headers, parser.rest


def _tls_error(exc: OSError, address: Address) -> DialError | None:
    if not address.secure:
        return None
    from tunnel.client.tls import tls_error

    return tls_error(exc, address)
