"""Who may use the service: checks of the Host header, the Origin header and the access token.

A web page can make its visitor's browser send requests to loopback. ``Origin`` gives such a request away. If the page's
own name resolves to loopback (DNS rebinding), so that the origin is its own, ``Host`` gives it away.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from multidict import CIMultiDictProxy

from tunnel.errors import UsageError, spelled
from tunnel.net.names import to_ascii
from tunnel.pty.protocol.framing import ConnectError
from tunnel.pty.protocol.messages import ACCESS_TOKEN
from tunnel.server.access import Tokens

Headers = CIMultiDictProxy[str]

_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?")


class Guard:
    """Checks every request first of all.

    Requests may name the service as ``localhost``, by an IP address, or by one of ``hosts``: ``box.example.org``,
    ``*.example.org``, or ``*`` for any. With ``same_origin`` its own pages may call it. Raises UsageError.
    """

    def __init__(self, tokens: Tokens, hosts: Sequence[str], *, same_origin: bool) -> None:
        self._tokens = tokens
        self._same_origin = same_origin
        self._known: str | None = None  # the last Host that was ours: most requests bring the same
        self._hosts = list(map(_known_name, hosts))
        for host in self._hosts:
            if host != "*" and not _NAME.fullmatch(host):
                raise UsageError(
                    f"{host!r} is not a host name; examples are box.example.org and *.example.org", setting="pty_host"
                )

    @property
    def needs_token(self) -> bool:
        """Whether requests need an access token."""
        return bool(self._tokens)

    def check_source(self, target: str, headers: Headers) -> None:
        """Check the host that a request names and the page that sent it; raises ConnectError (``permission_denied``).

        ``target`` is the request target; a whole URL there counts like Host (RFC 9112 section 3.2.2).
        """
        names = [headers.get("Host", "")]
        if not target.startswith(("/", "*")):
            names.append(_host_and_port(target))
        if not all(map(self._is_ours, names)):
            remedy = f"start the service with {spelled('pty_host')} NAME, or use its IP address"
            raise ConnectError("permission_denied", f"unknown host name: {remedy}")
        for origin in headers.getall("Origin", ()):
            if not (self._same_origin and _host_and_port(origin) == names[0].lower()):
                raise ConnectError("permission_denied", "web pages of this origin may not use the service")

    def check_token(self, headers: Headers) -> None:
        """Check the request's access token; raises ConnectError (``unauthenticated``)."""
        if not self._tokens:
            return
        given = headers.getall(ACCESS_TOKEN, ())
        if not given:
            raise ConnectError("unauthenticated", f"an access token is required in the header {ACCESS_TOKEN}")
        if len(given) > 1 or not self._tokens.accepts(given[0]):
            raise ConnectError("unauthenticated", "invalid access token")

    def _is_ours(self, host: str) -> bool:
        if host != self._known:
            if not self._names_us(host):
                return False
            self._known = host
        return True

    def _names_us(self, host: str) -> bool:
        if "*" in self._hosts:
            return True
        if not host.isascii():
            return False
        name = re.sub(r":[0-9]*\Z", "", host.lower()).rstrip(".")
        if name == "localhost":
            return True
        try:
            ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
        except ValueError:
            pass
        else:
            return True  # an address cannot be rebound
        return any(name.endswith(known[1:]) if known.startswith("*.") else name == known for known in self._hosts)


def _known_name(host: str) -> str:
    """Return a name or pattern as clients write it in a Host header, without a final dot. Raises UsageError."""
    wildcard = "*." if host.startswith("*.") else ""
    try:
        return wildcard + to_ascii(host.removeprefix(wildcard)).lower().rstrip(".")
    except ValueError as exc:
        raise UsageError(f"{host!r}: {exc}", setting="pty_host") from exc


def _host_and_port(origin: str) -> str:
    """Return the host and port of a URL or an origin, as in a Host header."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
