"""Dialling: DNS, TCP, the proxy, TLS and the upgrade, one after the other, within one time limit.

Every failure is a `DialError` that names the hop. Nothing is tried twice here, except that a host's addresses are tried
in turn (`tcp`).
"""

from __future__ import annotations

import socket

from tunnel.client.proxy import Proxy, choose_proxy, connect_http, connect_socks
from tunnel.client.tcp import Limit, connect_tcp, resolve_name
from tunnel.errors import DialError, UsageError
from tunnel.net.channel import Channel
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
    import ssl
    from collections.abc import Callable, Sequence

    from tunnel.client.address import Address
    from tunnel.client.settings import Settings, TLSSettings
    from tunnel.client.tls import Alarm
    from tunnel.client.trace import Trace


BODY_WAIT = 2.0  # seconds that are spent, once a refusal's head is there, on the body that says why


class Connection:
    """An open WebSocket connection: its channel, the subprotocol the server selected, and its answer's headers.

    ``received`` is how much of a resumed session the bridge has, 0 for any other connection.
    """

    __slots__ = ("channel", "headers", "received", "subprotocol")

    def __init__(self, channel: Channel, subprotocol: str | None, headers: tuple[tuple[str, str], ...]) -> None:
        self.channel = channel
        self.subprotocol = subprotocol
        self.headers = headers
        self.received = 0


def dial(
    settings: Settings,
    trace: Trace,
    *,
    subprotocols: Sequence[str] = ("binary",),
    extra_headers: Sequence[tuple[str, str]] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> Connection:
    """Open a WebSocket connection to ``settings.address`` within ``settings.connect_timeout`` seconds.

    ``extra_headers`` are added to the request as they are; ``meanwhile`` is called while the server answers. Raises
    DialError, and UsageError for files and proxies that cannot be used.
    """
    try:
        return _dial(settings, trace, subprotocols, extra_headers, meanwhile)
    except (OSError, RuntimeError) as exc:  # no hop's fault: no descriptor, no thread, no memory is left
        raise DialError("resources", reason=getattr(exc, "strerror", None) or exc) from exc


def _dial(
    settings: Settings,
    trace: Trace,
    subprotocols: Sequence[str],
    extra_headers: Sequence[tuple[str, str]],
    meanwhile: Callable[[], None],
) -> Connection:
    limit = Limit(settings.connect_timeout)
    address = settings.address
    # Before any packet is sent: what the user wrote may be wrong.
    try:
        context = _tls_context(settings) if address.secure else None
        proxy = choose_proxy(settings.proxy, address)
    except UsageError as exc:
        exc.name_origin(settings.origins)
        raise
    hop = proxy or address
    try:
        sock = connect_tcp(hop.host, hop.port, settings.family, limit, trace)
    except DialError as exc:
        if proxy is None:
            raise
        # An address of the proxy says nothing to a user who has forgotten that there is one.
        refused = exc.code == "tcp-refused" or exc.fields.get("refused")
        raise DialError("proxy-unreachable", proxy=proxy, reason=exc, refused=refused) from exc
    alarm: Alarm | None = None
    try:
        if proxy:
            _pass_proxy(sock, proxy, address, settings, limit)
            trace.step("proxy", f"{proxy} connected us to {address.authority}")
        if context:
            from tunnel.client import tls

            alarm = tls.Alarm()
            sock = tls.start_tls(sock, context, address, limit, trace, alarm)
        headers = [*settings.headers, *extra_headers]
        connection = _upgrade(sock, address, subprotocols, headers, limit, trace, meanwhile)
        if alarm is not None and alarm.cancel():
            raise DialError("answer-timeout", hop=str(address), seconds=limit.seconds)
        return connection
    except BaseException:
        if alarm is not None:
            alarm.cancel()
        sock.close()
        raise


def _tls_context(settings: TLSSettings) -> ssl.SSLContext:
    # Imported where TLS is used only, as `ssl` costs 10 ms.
    from tunnel.client.tls import tls_context

    return tls_context(settings)


def _tls_error(exc: OSError, address: Address) -> DialError | None:
    if not address.secure:
        return None
    from tunnel.client.tls import tls_error

    return tls_error(exc, address)


# ---- the proxy


def _pass_proxy(sock: socket.socket, proxy: Proxy, address: Address, settings: Settings, limit: Limit) -> None:
    def send(data: bytes) -> None:
        limit.send(sock, data)

    def receive(n: int) -> bytes:
        return limit.apply(sock).recv(n)

    host = address.plain_host
    if not proxy.resolves:
        host = str(resolve_name(host, address.port, settings.family, limit)[0][1][0])
    try:
        if proxy.scheme == "http":
            early = connect_http(proxy, host, address.port, send, receive, refused=lambda: limit.shorten(BODY_WAIT))
            if early:
                raise DialError("proxy-protocol", proxy=proxy, scheme="HTTP", reason="it sent data before we did")
        else:
            connect_socks(proxy, host, address.port, send, receive)
    except TimeoutError as exc:
        raise DialError("answer-timeout", hop=f"proxy {proxy}", seconds=limit.seconds) from exc
    except OSError as exc:
        raise DialError("hung-up", hop=f"proxy {proxy}") from exc


# ---- the upgrade


def _upgrade(
    sock: socket.socket,
    address: Address,
    subprotocols: Sequence[str],
    headers: Sequence[tuple[str, str]],
    limit: Limit,
    trace: Trace,
    meanwhile: Callable[[], None],
) -> Connection:
    key, url = new_key(), str(address)
    parser = ResponseParser()
    try:
        try:
            limit.send(sock, upgrade_request(address.resource, address.host_field, key, subprotocols, headers))
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server that refuses early has said why, which can still be read
        meanwhile()
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
            if limit.over:  # the alarm has ended the connection
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
    # A refusal that did not come in time, or was cut off, is still a refusal.
    subprotocol = check_upgrade(parser.head, url=url, key=key, subprotocols=subprotocols)
    trace.step("upgrade", f"{url} opened a WebSocket" + (f", subprotocol {subprotocol}" if subprotocol else ""))
    if address.secure:
        import ssl

        from tunnel.net.tls import TLSChannel

        if isinstance(sock, ssl.SSLSocket):
            return Connection(TLSChannel(sock, parser.rest), subprotocol, parser.head.headers)
    return Connection(Channel(sock, parser.rest), subprotocol, parser.head.headers)
