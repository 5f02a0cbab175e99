"""Dialling: DNS, TCP, the proxy, TLS and the upgrade, one after the other, within one time limit.

Every failure is a `DialError` that names the hop. Nothing is retried here; only `tcp` tries each address of a host.
"""

from __future__ import annotations

import os

from tunnel.client.tcp import Limit, connect_tcp, resolve_name, standard_socket
from tunnel.errors import DialError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import socket
    import ssl
    from collections.abc import Callable, Sequence

    from tunnel.client.address import Address
    from tunnel.client.proxy import Proxy
    from tunnel.client.settings import Settings, TLSSettings
    from tunnel.client.tls import Alarm
    from tunnel.client.trace import Trace
    from tunnel.net.channel import Channel


class Connection:
    """An open WebSocket connection: its channel, the subprotocol that the server selected, and the answer's headers.

    ``received`` is how many bytes of a resumed session the bridge has received; 0 for any other connection.
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

    ``extra_headers`` are added to the request unchanged; ``meanwhile`` is called while waiting for the answer. Raises
    DialError, and UsageError for files and proxies that cannot be used.
    """

    def attempt(access: Sequence[tuple[str, str]] = ()) -> Connection:
        return _dial(settings, trace, subprotocols, [*access, *extra_headers], meanwhile)

    try:
        return attempt() if settings.sandbox is None else settings.sandbox.dial(settings, trace, attempt)
    except (OSError, RuntimeError) as exc:  # not caused by a hop: no descriptor, thread or memory is left
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
    context: ssl.SSLContext | None = None

    def prepare() -> None:
        """Import what an open connection needs; for TLS that is a lot."""
        nonlocal context
        import tunnel.client.handshake  # noqa: F401

        if address.secure and context is None:
            context = _tls_context(settings)

    # Before any packet is sent, as the user's files and settings may be wrong.
    try:
        if settings.ca_file or settings.client_cert:
            prepare()
        proxy = _proxy(settings, address)
    except UsageError as exc:
        exc.name_origin(settings.origins)
        raise
    hop = proxy or address
    try:
        sock = connect_tcp(hop.host, hop.port, settings.family, limit, trace, meanwhile=prepare)
    except DialError as exc:
        if proxy is None:
            raise
        # The error names the proxy, as the user may not recognize its address.
        refused = exc.code == "tcp-refused" or exc.fields.get("refused")
        raise DialError("proxy-unreachable", proxy=proxy, reason=exc, refused=refused) from exc
    alarm: Alarm | None = None
    try:
        if proxy:
            pass_proxy(sock, proxy, address, settings.family, limit)
            trace.step("proxy", f"{proxy} connected to {address.authority}")
        if context:
            from tunnel.client import tls

            alarm = tls.Alarm()
            sock = standard_socket(sock)
            sock = tls.start_tls(sock, context, address, limit, trace, alarm)
        from tunnel.client.handshake import upgrade

        headers = [*settings.headers, *extra_headers]
        subprotocol, answered, rest = upgrade(sock, address, subprotocols, headers, limit, meanwhile)
        selected = f", subprotocol {subprotocol}" if subprotocol else ""
        trace.step("upgrade", f"{address} opened a WebSocket{selected}")
        sock = standard_socket(sock)
        connection = Connection(_channel(sock, rest, secure=address.secure), subprotocol, answered)
        if alarm is not None and alarm.cancel():
            raise DialError("answer-timeout", hop=str(address), seconds=limit.seconds)
        return connection
    except BaseException:
        if alarm is not None:
            alarm.cancel()
        sock.close()
        raise


def _tls_context(settings: TLSSettings) -> ssl.SSLContext:
    # Imported only if TLS is used, as `ssl` costs 10 ms.
    from tunnel.client.tls import tls_context

    return tls_context(settings)


def _channel(sock: socket.socket, received: bytes, *, secure: bool) -> Channel:
    """Return the channel for an open WebSocket connection; ``received`` are the bytes that were read already."""
    if secure:
        import ssl

        from tunnel.net.tls import TLSChannel

        if isinstance(sock, ssl.SSLSocket):
            return TLSChannel(sock, received)
    from tunnel.net.channel import Channel

    return Channel(sock, received)


# ---- the proxy


def _proxy(settings: Settings, address: Address) -> Proxy | None:
    """Return the proxy that the settings or the environment name. Raises UsageError."""
    if settings.proxy is None and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None  # the usual case, without the import
    from tunnel.client.proxy import choose_proxy

    return choose_proxy(settings.proxy, address)


def pass_proxy(sock: _socket.socket, proxy: Proxy, address: Address, family: int, limit: Limit) -> None:
    """Ask ``proxy``, to which ``sock`` is connected, for a connection to ``address``. Raises DialError."""
    from tunnel.client.handshake import BODY_WAIT
    from tunnel.client.proxy import connect_http, connect_socks

    def send(data: bytes) -> None:
        limit.send(sock, data)

    def receive(n: int) -> bytes:
        return limit.apply(sock).recv(n)

    host = address.plain_host
    if not proxy.resolves:
        host = str(resolve_name(host, address.port, family, limit)[0][1][0])
    try:
        if proxy.scheme == "http":
            early = connect_http(proxy, host, address.port, send, receive, refused=lambda: limit.shorten(BODY_WAIT))
            if early:
                raise DialError("proxy-protocol", proxy=proxy, scheme="HTTP", reason="it sent data too early")
        else:
            connect_socks(proxy, host, address.port, send, receive)
    except TimeoutError as exc:
        raise DialError("answer-timeout", hop=f"proxy {proxy}", seconds=limit.seconds) from exc
    except OSError as exc:
        raise DialError("hung-up", hop=f"proxy {proxy}") from exc
