"""Connections through a proxy: the choice of the proxy (option, environment, NO_PROXY), HTTP CONNECT and SOCKS5.

CONNECT is RFC 9110 section 9.3.6; SOCKS5 is RFC 1928, with the passwords of RFC 1929.
"""

from __future__ import annotations

import binascii
import os

from tunnel.client.address import bracketed, split_authority
from tunnel.errors import DialError, UsageError
from tunnel.protocol.upgrade import NoFinalResponse, ResponseError, ResponseParser, message_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnel.client.address import Address

    Receive = Callable[[int], bytes]
    Send = Callable[[bytes], None]

_DEFAULT_PORTS = {"http": 80, "socks5": 1080, "socks5h": 1080}
# GNOME writes the SOCKS proxy of its settings this way; GLib then tries SOCKS5 with host names first.
_ALIASES = {"socks": "socks5h"}
_SOCKS_ERRORS = {
    1: "general failure",
    2: "its rules do not allow this connection",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}

_SOCKS_TRIED = (1, 3, 4, 5, 6)  # the proxy tried to connect, and failed


class Proxy:
    """A proxy's address and credentials; ``str()`` leaves out the credentials.

    ``variable`` is the environment variable that names it, if that is one of the usual ones (https_proxy …).
    """

    __slots__ = ("host", "password", "port", "scheme", "user", "variable")

    def __init__(self, scheme: str, host: str, port: int, user: str | None, password: str) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.user = user
        self.password = password
        self.variable: str | None = None

    @property
    def resolves(self) -> bool:
        """Whether the proxy resolves host names; socks5:// (without the h) is sent an address, as by curl."""
        return self.scheme != "socks5"

    def __str__(self) -> str:
        return f"{self.scheme}://{bracketed(self.host)}:{self.port}"


def parse_proxy(text: str, *, setting: str | None = None, origin: str | None = None) -> Proxy:
    """Return the proxy that ``text`` names. Raises UsageError with ``setting`` and ``origin``."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    scheme = scheme.lower()
    scheme = _ALIASES.get(scheme, scheme)
    if scheme == "https":
        raise _unusable("TLS to the proxy itself (https://) is not supported", setting, origin)
    if scheme not in _DEFAULT_PORTS:
        raise _unusable("a proxy's URL must begin with http://, socks5:// or socks5h://", setting, origin)
    authority = rest.split("/")[0]
    userinfo, _, place = authority.rpartition("@")
    user, _, password = userinfo.partition(":")
    try:
        host, port = split_authority(place)
    except ValueError as exc:
        raise _unusable(f"in the proxy's URL, {exc}", setting, origin) from exc
    known = _unquote(user) if userinfo else None
    password = _unquote(password)
    if password:
        from tunnel.client.credentials import keep_login

        keep_login(known or "", password)
    return Proxy(scheme, host, port or _DEFAULT_PORTS[scheme], known, password)


def _unusable(problem: str, setting: str | None, origin: str | None) -> UsageError:
    return UsageError(problem, setting=setting, origin=origin)


def _unquote(text: str) -> str:
    """Undo percent-encoding, as in the password of a URL."""
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)


def choose_proxy(option: str | None, address: Address) -> Proxy | None:
    """Return the proxy for ``address``: that of ``option`` (``none``: no proxy), else that of the environment.

    The variables are wss_proxy, https_proxy and all_proxy for wss://, and ws_proxy, http_proxy and all_proxy for ws://,
    each also in capitals. Under CGI, HTTP_PROXY is ignored, as a request's header could set it. NO_PROXY names the
    hosts that are dialled directly. Raises UsageError.
    """
    if option is not None:
        return None if option.lower() in ("none", "") else parse_proxy(option, setting="proxy")
    own = ("wss_proxy", "https_proxy") if address.secure else ("ws_proxy", "http_proxy")
    for name in (*own, "all_proxy"):
        for variable in (name, name.upper()):
            if variable == "HTTP_PROXY" and "REQUEST_METHOD" in os.environ:
                continue
            if text := os.environ.get(variable):
                if _is_exempt(address):
                    return None
                proxy = parse_proxy(text, origin=variable)
                proxy.variable = variable
                return proxy
    return None


def _is_exempt(address: Address) -> bool:
    """Return whether NO_PROXY names the host: by name, domain, address, network, with or without a port, or ``*``."""
    entries = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").replace(",", " ").lower().split()
    if not entries:
        return False
    from tunnel.net.names import split_zone

    host, _, zone = address.host.lower().removesuffix(".").partition("%")
    for entry in entries:
        name, port = entry, ""
        if entry.startswith("["):
            name, _, port = entry[1:].partition("]")
            port = port.removeprefix(":")
        elif entry.count(":") == 1:
            name, _, port = entry.partition(":")
        if port and port != str(address.port):
            continue
        if ":" in name:
            # An entry with a zone matches that zone only. Case is ignored, although it counts for zones.
            name, wanted = split_zone(name)
            if wanted and wanted != zone:
                continue
        name = _in_ascii(name.removeprefix("*").lstrip(".").removesuffix(".") if name != "*" else name)
        if name in ("*", host) or host.endswith("." + name) or _in_network(host, name):
            return True
    return False


def _in_ascii(name: str) -> str:
    from tunnel.net.names import to_ascii

    try:
        return to_ascii(name)
    except ValueError:
        return name  # it could not be dialled either


def _in_network(host: str, network: str) -> bool:
    if not (("/" in network and host[0].isdigit()) or (":" in network and ":" in host)):
        return False
    import ipaddress

    try:
        # A single address is a network of one; this also compares different spellings of an IPv6 address.
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False  # not an address: a name that begins with a digit, or an entry for other programs


def connect_http(
    proxy: Proxy, host: str, port: int, send: Send, receive: Receive, refused: Callable[[], None] = lambda: None
) -> bytes:
    """Ask an HTTP proxy to connect to ``host``:``port``; return what the target sent right after the answer.

    ``refused`` is called when the head of a refusal is there: reading its body may then be cut short, as the status is
    reported in any case.
    """
    target = f"{bracketed(host)}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.user is not None:
        credentials = binascii.b2a_base64(f"{proxy.user}:{proxy.password}".encode(), newline=False).decode()
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    parser = ResponseParser(connect=True)
    try:
        try:
            send(("\r\n".join(lines) + "\r\n\r\n").encode())
        except (BrokenPipeError, ConnectionResetError):
            pass  # a proxy that refuses early may have sent an answer, which can still be read
        while not parser.done:
            if data := receive(65536):
                parser.feed(data)
            else:
                parser.end()
            if parser.head is not None and not parser.done:
                refused()
    except NoFinalResponse as exc:
        raise DialError("no-answer", hop=f"proxy {proxy}") from exc
    except OSError:
        # A refusal whose body is late or cut off is still a refusal.
        if not parser.salvage():
            raise
    except ResponseError as exc:
        if not parser.salvage():
            reason = str(exc) or "it closed the connection without answering"
            raise DialError("proxy-protocol", proxy=proxy, scheme="HTTP", reason=reason) from exc
    answer = parser.head
    if answer is None or not 200 <= answer.status < 300:
        status = answer.status if answer else 0
        reason = f"it answered {status}: {message_of(answer)}" if answer else "it did not answer"
        # tinyproxy answers wrong credentials with 401. A 5xx means that the proxy has tried to connect.
        cause = "proxy-auth" if status in (401, 407) else "proxy-target" if status >= 500 else "proxy-refused"
        raise DialError(cause, proxy=proxy, target=target, reason=reason)
    return parser.rest


def connect_socks(proxy: Proxy, host: str, port: int, send: Send, receive: Receive) -> None:
    """Ask a SOCKS5 proxy to connect to ``host``:``port``; it resolves a ``host`` that is not an address."""

    def exactly(n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = receive(n - len(data))
            if not more:
                raise DialError("proxy-protocol", proxy=proxy, scheme="SOCKS5", reason="it closed the connection")
            data += more
        return data

    send(b"\x05\x01\x00" if proxy.user is None else b"\x05\x02\x00\x02")
    version, method = exactly(2)
    if version != 5:
        raise DialError("proxy-protocol", proxy=proxy, scheme="SOCKS5", reason="it answered in another protocol")
    if method == 2 and proxy.user is not None:
        user, password = proxy.user.encode(), proxy.password.encode()
        if not user or len(user) > 255 or len(password) > 255:
            raise DialError("proxy-auth", proxy=proxy, reason="a SOCKS5 user name or password must have 1 to 255 bytes")
        send(b"\x01" + bytes((len(user),)) + user + bytes((len(password),)) + password)
        if exactly(2)[1] != 0:
            raise DialError("proxy-auth", proxy=proxy, reason="it refused the user name or the password")
    elif method != 0:
        raise DialError("proxy-auth", proxy=proxy, reason="it accepts no login method that this client has")
    send(b"\x05\x01\x00" + _socks_address(proxy, host) + port.to_bytes(2, "big"))
    # The first two bytes show a refusal; some proxies send no more, or close the connection at once.
    version, code = exactly(2)
    if version == 5 and code != 0:
        reason = _SOCKS_ERRORS.get(code, f"error {code}")
        cause = "proxy-target" if code in _SOCKS_TRIED else "proxy-refused"
        raise DialError(cause, proxy=proxy, target=f"{bracketed(host)}:{port}", reason=reason)
    _, kind = exactly(2) if version == 5 else (0, 0)
    sizes = {1: 4, 4: 16}
    if version != 5 or kind not in (1, 3, 4):
        raise DialError("proxy-protocol", proxy=proxy, scheme="SOCKS5", reason="its answer is malformed")
    exactly((exactly(1)[0] if kind == 3 else sizes[kind]) + 2)


def _socks_address(proxy: Proxy, host: str) -> bytes:
    import socket

    for kind, family in ((1, socket.AF_INET), (4, socket.AF_INET6)):
        try:
            return bytes((kind,)) + socket.inet_pton(family, host)
        except OSError:
            continue
    name = host.encode()
    if len(name) > 255:
        raise DialError("proxy-refused", proxy=proxy, target=host, reason="the name is longer than SOCKS5 allows")
    return b"\x03" + bytes((len(name),)) + name
