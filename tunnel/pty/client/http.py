"""What the sync and the async face have in common about httpx: how clients are made, and what their errors mean.

httpx is the one HTTP library with both faces, and its connections are what E2B's edge sees from its own SDK. It comes
with the extra ``[pty]``; its absence is one clear line.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunnel.client.proxy import choose_proxy
from tunnel.client.tls import tls_context
from tunnel.errors import ConnectionLost, DialError, TunnelError, optional_packages, require_package
from tunnel.protocol.upgrade import Response
from tunnel.pty.client.calls import Call
from tunnel.pty.client.endpoint import Endpoint
from tunnel.pty.protocol import framing, messages

with optional_packages():
    import httpx

BODY_LIMIT = 16 << 20  # bytes of a unary answer
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a service is reached. Times are in seconds; ``request_timeout`` is the limit of a unary call's answer."""

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    insecure: bool = False
    proxy: str | None = None
    connect_timeout: float = 15.0
    request_timeout: float = 30.0


class Broken(Exception):
    """A request failed below HTTP: ``error`` is for the user, ``arrived`` tells whether the service may have got it."""

    def __init__(self, error: TunnelError, *, arrived: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.arrived = arrived


def client_options(endpoint: Endpoint, way: Way) -> dict[str, Any]:
    """Return the arguments for ``httpx.Client`` and ``httpx.AsyncClient``. Raises UsageError."""
    proxy = choose_proxy(way.proxy, endpoint.address)
    if proxy is not None and proxy.scheme != "http":
        require_package("socksio")
    return {
        "headers": {
            "Host": endpoint.address.host_field,  # httpx would have a zone in it
            "User-Agent": "wstunnel-py",
            "Accept-Encoding": "identity",
            **dict(endpoint.headers),
        },
        "proxy": proxy and httpx.Proxy(str(proxy), auth=None if proxy.user is None else (proxy.user, proxy.password)),
        "verify": tls_context(way) if endpoint.address.secure else False,
        # The proxy was chosen above, by the rules that the ProxyCommand has.
        "trust_env": False,
        "follow_redirects": False,
        # Each open terminal holds a connection: the service limits those, not we.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=20.0),
        "timeout": httpx.Timeout(way.request_timeout, connect=way.connect_timeout),
    }


def request_options(call: Call, endpoint: Endpoint, *, stream: bool) -> dict[str, Any]:
    """Return the arguments for ``build_request``."""
    data = framing.encode(call.message)
    kind = framing.STREAM_TYPE if stream else framing.UNARY_TYPE
    fields = {"Content-Type": kind, "Connect-Protocol-Version": framing.PROTOCOL_VERSION, **call.fields}
    url = endpoint.url + messages.PREFIX + call.method
    return {
        "method": "POST",
        "url": url,
        "content": framing.envelope(data) if stream else data,
        "headers": fields,
        # For httpx the host of the URL is the name in TLS, too.
        "extensions": {"sni_hostname": endpoint.address.certificate_name},
    }


def head_of(response: httpx.Response) -> Response:
    """Return the head of an answer as the Sans-I/O parts read it."""
    fields = tuple((name.lower(), value) for name, value in response.headers.multi_items())
    return Response(response.status_code, response.reason_phrase, fields)


def broken(exc: httpx.HTTPError | httpx.StreamError, endpoint: Endpoint, way: Way) -> Broken:
    """Return what an error of httpx means."""
    return Broken(_error(exc, endpoint, way), arrived=not isinstance(exc, _NOT_SENT))


def too_late(endpoint: Endpoint, way: Way) -> Broken:
    """Return what it means that a whole exchange took longer than `exchange_limit`."""
    return Broken(DialError("answer-timeout", hop=endpoint, seconds=exchange_limit(way)), arrived=True)


def exchange_limit(way: Way) -> float:
    """Return how many seconds a unary call may take from its first byte to its last, or a stream until it begins."""
    return way.connect_timeout + way.request_timeout


def shut_down(response: httpx.Response) -> None:
    """Wake up whoever reads this stream in another thread: closing a socket does not, shutting it down does."""
    sock = response.extensions["network_stream"].get_extra_info("socket")
    if sock is not None:
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not that of TLS, which is not made for two threads
        except OSError:
            pass  # closed or broken already


def stream_ended() -> Broken:
    """Return what the end of a stream means that did not say so."""
    return Broken(ConnectionLost("lost", reason="the service hung up"), arrived=True)


def _error(exc: httpx.HTTPError | httpx.StreamError, endpoint: Endpoint, way: Way) -> TunnelError:
    place = endpoint.address.authority
    if isinstance(exc, httpx.ConnectTimeout | httpx.PoolTimeout):
        return DialError("tcp-timeout", address=place, seconds=way.connect_timeout)
    if isinstance(exc, httpx.TimeoutException):
        seconds = exc.request.extensions.get("timeout", {}).get("read") or way.request_timeout
        return DialError("answer-timeout", hop=endpoint, seconds=seconds)
    if isinstance(exc, httpx.ProxyError):
        refused_us = str(exc)[:3] in ("401", "407")  # as `tunnel.client.proxy` has it
        verdict = "proxy-auth" if refused_us else "proxy-refused"
        return DialError(verdict, proxy="on the way", target=place, reason=exc)
    if not isinstance(exc, httpx.ConnectError):
        return ConnectionLost("lost", reason=_reason(exc))
    for cause in _causes(exc):
        if isinstance(cause, socket.gaierror):
            return DialError("dns", host=endpoint.address.host, reason=cause.strerror)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return DialError("tls-untrusted", host=endpoint.address.host, reason=cause.verify_message or cause.reason)
        if isinstance(cause, ssl.SSLError):
            reason = (cause.reason or str(cause)).replace("_", " ").lower()
            return DialError("tls", host=endpoint.address.host, reason=reason)
        if isinstance(cause, ConnectionRefusedError):
            return DialError("tcp-refused", address=place)
    return DialError("tcp", address=place, reason=_reason(exc))


def _reason(exc: BaseException) -> str:
    words = [cause.strerror for cause in _causes(exc) if isinstance(cause, OSError) and cause.strerror]
    return words[-1] if words else str(exc) or type(exc).__name__


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield ``exc`` and what led to it, outermost first; of a group, as asyncio's happy eyeballs make one, each."""
    waiting, seen = [exc], 0
    while waiting and seen < 50:
        current = waiting.pop(0)
        seen += 1
        yield current
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
        if found := current.__cause__ or current.__context__:
            waiting.append(found)
