"""httpx for both clients: the arguments to make them with, and what their errors mean.

httpx has a synchronous and an asynchronous client, and E2B's own SDK uses it. It is installed with the extra ``[pty]``.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunnel.client.address import bracketed
from tunnel.client.proxy import choose_proxy
from tunnel.client.tls import tls_context, tls_error, untrusted
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
class HttpOptions:
    """How to reach a service. Times are in seconds; ``request_timeout`` limits the answer to a unary call."""

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    insecure: bool = False
    proxy: str | None = None
    connect_timeout: float = 15.0
    request_timeout: float = 30.0


class Broken(Exception):
    """A request failed below HTTP. ``error`` is for the user; ``arrived``: the service may have received it."""

    def __init__(self, error: TunnelError, *, arrived: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.arrived = arrived


def transport_options(endpoint: Endpoint, options: HttpOptions) -> dict[str, Any]:
    """Return the arguments for ``httpx.HTTPTransport`` and ``httpx.AsyncHTTPTransport``. Raises UsageError."""
    proxy = choose_proxy(options.proxy, endpoint.address)
    if proxy is not None and proxy.scheme != "http":
        require_package("socksio")
    return {
        "proxy": proxy and httpx.Proxy(str(proxy), auth=None if proxy.user is None else (proxy.user, proxy.password)),
        "verify": tls_context(options) if endpoint.address.secure else False,
        # The proxy is chosen above, by the same rules as for the ProxyCommand.
        "trust_env": False,
        # Each open terminal holds a connection; the service limits their number.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=20.0),
    }


class Requests:
    """Makes requests to ``endpoint``.

    They go straight to a transport of httpx. Its clients would add what is not wanted here (cookies, redirects,
    authentication), and take longer than all the rest.
    """

    def __init__(self, endpoint: Endpoint, options: HttpOptions) -> None:
        self._endpoint = endpoint
        self._options = options
        self._base = _base_url(endpoint, options)
        self._urls: dict[str, httpx.URL] = {}  # by method: parsing one takes long
        self._headers = {
            "Host": endpoint.address.host_field,  # httpx would include an IPv6 zone
            "Accept": "*/*",
            "User-Agent": "wstunnel-py",
            "Accept-Encoding": "identity",
            **dict(endpoint.headers),
            "Connect-Protocol-Version": framing.PROTOCOL_VERSION,
        }

    def unary(self, call: Call) -> httpx.Request:
        """Return the request of a unary call."""
        data = framing.encode(call.message)
        return self._request(call, framing.UNARY_TYPE, data, self._options.request_timeout)

    def stream(self, call: Call, read_timeout: float) -> httpx.Request:
        """Return the request that opens a stream, whose next bytes may take ``read_timeout`` seconds."""
        data = framing.envelope(framing.encode(call.message))
        return self._request(call, framing.STREAM_TYPE, data, read_timeout)

    def _request(self, call: Call, kind: str, data: bytes, timeout: float) -> httpx.Request:
        url = self._urls.get(call.method)
        if url is None:
            url = self._urls[call.method] = httpx.URL(self._base + messages.PREFIX + call.method)
        extensions = {
            "timeout": httpx.Timeout(timeout, connect=self._options.connect_timeout).as_dict(),
            # Otherwise httpx would take the URL's host as the TLS server name.
            "sni_hostname": self._endpoint.address.certificate_name,
        }
        fields = {**self._headers, "Content-Type": kind, **call.fields}
        return httpx.Request("POST", url, headers=fields, content=data, extensions=extensions)


def _base_url(endpoint: Endpoint, options: HttpOptions) -> str:
    """Return the URL that httpx is given: names below localhost are loopback (RFC 6761 section 6.3), as for tunnels."""
    address = endpoint.address
    is_local = address.host.lower().removesuffix(".").endswith(".localhost")
    if not is_local or choose_proxy(options.proxy, address) is not None:
        return endpoint.url
    scheme, _, rest = endpoint.url.partition("://")
    _, slash, path = rest.partition("/")
    return f"{scheme}://localhost:{address.port}{slash}{path}"


def head_of(response: httpx.Response) -> Response:
    """Return the head of an answer as the Sans-I/O modules read it."""
    fields = tuple((name.lower(), value) for name, value in response.headers.multi_items())
    return Response(response.status_code, response.reason_phrase, fields)


def broken(exc: httpx.HTTPError | httpx.StreamError, endpoint: Endpoint, options: HttpOptions) -> Broken:
    """Return the error for an exception of httpx."""
    return Broken(_error(exc, endpoint, options), arrived=not isinstance(exc, _NOT_SENT))


def exchange_timed_out(endpoint: Endpoint, options: HttpOptions) -> Broken:
    """Return the error for an exchange that took longer than `exchange_limit`."""
    return Broken(DialError("answer-timeout", hop=endpoint, seconds=exchange_limit(options)), arrived=True)


def exchange_limit(options: HttpOptions) -> float:
    """Return how many seconds a unary call may take as a whole, or a stream until it begins."""
    return options.connect_timeout + options.request_timeout


def shut_down(response: httpx.Response) -> None:
    """Wake up a thread that reads this stream; closing the socket would not."""
    sock = response.extensions["network_stream"].get_extra_info("socket")
    if sock is not None:
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # SSLSocket.shutdown is not thread-safe
        except OSError:
            pass  # closed or broken already


def stream_ended() -> Broken:
    """Return the error for a stream that ended without its last message."""
    return Broken(ConnectionLost("lost", reason="the service closed the connection"), arrived=True)


def _error(exc: httpx.HTTPError | httpx.StreamError, endpoint: Endpoint, options: HttpOptions) -> TunnelError:
    address = endpoint.address
    proxy = choose_proxy(options.proxy, address)
    place = address.authority
    if isinstance(exc, httpx.ProxyError):
        status = str(exc)[:3]
        verdict = "proxy-target" if status.startswith("5") else "proxy-refused"
        if status in ("401", "407"):  # as in `tunnel.client.proxy`
            verdict = "proxy-auth"
        return DialError(verdict, proxy=proxy, target=place, reason=exc)
    if proxy is None:
        return _hop_error(exc, endpoint, options, address.host, place)
    error = _hop_error(exc, endpoint, options, proxy.host, f"{bracketed(proxy.host)}:{proxy.port}")
    if error.code in ("dns", "tcp", "tcp-refused", "tcp-timeout"):
        return DialError("proxy-unreachable", proxy=proxy, reason=error)
    return error


def _hop_error(
    exc: httpx.HTTPError | httpx.StreamError, endpoint: Endpoint, options: HttpOptions, host: str, place: str
) -> TunnelError:
    """Return the error for an exception; ``host``, at ``place``, is what was to be connected to by TCP."""
    if isinstance(exc, httpx.ConnectTimeout | httpx.PoolTimeout):
        return DialError("tcp-timeout", address=place, seconds=options.connect_timeout)
    if isinstance(exc, httpx.TimeoutException):
        seconds = exc.request.extensions.get("timeout", {}).get("read") or options.request_timeout
        return DialError("answer-timeout", hop=endpoint, seconds=seconds)
    if not isinstance(exc, httpx.ConnectError):
        return ConnectionLost("lost", reason=_reason(exc))
    for cause in _causes(exc):
        if isinstance(cause, socket.gaierror):
            return DialError("dns", host=host, reason=cause.strerror)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return untrusted(cause, endpoint.address.host)
        if isinstance(cause, ssl.SSLError):
            return tls_error(cause, endpoint.address, "http") or DialError("hung-up", hop=endpoint)
        if isinstance(cause, ConnectionRefusedError):
            return DialError("tcp-refused", address=place)
    return DialError("tcp", address=place, reason=_reason(exc))


def _reason(exc: BaseException) -> str:
    words = [cause.strerror for cause in _causes(exc) if isinstance(cause, OSError) and cause.strerror]
    return words[-1] if words else str(exc) or type(exc).__name__


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield ``exc`` and its causes, outermost first, and members of groups, which asyncio's happy eyeballs raise."""
    waiting, seen = [exc], 0
    while waiting and seen < 50:
        current = waiting.pop(0)
        seen += 1
        yield current
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
        if found := current.__cause__ or current.__context__:
            waiting.append(found)
