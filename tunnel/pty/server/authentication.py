"""Who may use the service: hosts that it is called by, pages of browsers, and the access token.

A page that a user visits can make the browser send requests to loopback. Its ``Origin`` tells on it; and when its name
is made to resolve to loopback (DNS rebinding), so that it is its own origin, its name in ``Host`` does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from multidict import CIMultiDictProxy

from tunnel.errors import UsageError
from tunnel.net.names import to_ascii
from tunnel.pty.protocol.framing import ConnectError
from tunnel.pty.protocol.messages import ACCESS_TOKEN
from tunnel.server.access import Tokens

Headers = CIMultiDictProxy[str]

_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?")


class Guard:
    """Checks a request before anything else looks at it.

    ``hosts`` are names such as ``box.example.org`` or ``*.example.org`` (``*``: any) that the service is called by
    beside ``localhost`` and IP addresses; with ``same_origin`` its own pages may call it. Raises UsageError.
    """

    def __init__(self, tokens: Tokens, hosts: Sequence[str], *, same_origin: bool) -> None:
        self._tokens = tokens
        self._same_origin = same_origin
        self._hosts = list(map(_known_name, hosts))
        for host in self._hosts:
            if host != "*" and not _NAME.fullmatch(host):
                raise UsageError(f"--pty-host: {host!r} is no host name such as box.example.org or *.example.org")

    @property
    def needs_token(self) -> bool:
        return bool(self._tokens)

    def check_source(self, target: str, headers: Headers) -> None:
        """Check by what name and from what page a request comes; raises ConnectError (``permission_denied``).

        ``target`` is as in the request's first line; it counts like Host if it is a whole URL (RFC 9112 section 3.2.2).
        """
        names = [headers.get("Host", "")]
        if not target.startswith(("/", "*")):
            names.append(_place(target))
        if not all(map(self._is_ours, names)):
            raise ConnectError("permission_denied", "the service is not called by this name: see --pty-host")
        for origin in headers.getall("Origin", ()):
            if not (self._same_origin and _place(origin) == names[0].lower()):
                raise ConnectError("permission_denied", "pages of this origin may not use this service")

    def check_token(self, headers: Headers) -> None:
        """Check the request's access token; raises ConnectError (``unauthenticated``)."""
        if not self._tokens:
            return
        given = headers.getall(ACCESS_TOKEN, ())
        if not given:
            raise ConnectError("unauthenticated", f"a token is needed: {ACCESS_TOKEN}")
        if len(given) > 1 or not self._tokens.know(given[0]):
            raise ConnectError("unauthenticated", "this token is not known here")

    def _is_ours(self, host: str) -> bool:
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
            return True  # an address needs no name that could be rebound
        return any(name.endswith(known[1:]) if known.startswith("*.") else name == known for known in self._hosts)


def _known_name(host: str) -> str:
    """Return a name or a pattern as clients have it in their Host headers, but for a final dot. Raises UsageError."""
    wildcard = "*." if host.startswith("*.") else ""
    try:
        return wildcard + to_ascii(host.removeprefix(wildcard)).lower().rstrip(".")
    except ValueError as exc:
        raise UsageError(f"--pty-host: {host!r}: {exc}") from exc


def _place(origin: str) -> str:
    """Return host and port of a URL or an origin as a Host header has them."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
