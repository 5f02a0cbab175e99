"""Who may use the service: hosts that it is called by, pages of browsers, and the access token.

A page that a user visits can make the browser send requests to loopback. Its ``Origin`` tells on it; and when its name
is made to resolve to loopback (DNS rebinding), so that it is its own origin, its name in ``Host`` does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from tunnel.protocol.errors import UsageError
from tunnel.pty.framing import ConnectError
from tunnel.pty.wire import ACCESS_TOKEN
from tunnel.server.access import Tokens

_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?")


class Guard:
    """Checks a request before anything else looks at it.

    ``hosts`` are names such as ``box.example.org`` or ``*.example.org`` (``*``: any) that the service is called by
    beside ``localhost`` and IP addresses; with ``same_origin`` its own pages may call it. Raises UsageError.
    """

    def __init__(self, tokens: Tokens, hosts: Sequence[str], *, same_origin: bool) -> None:
        self._tokens = tokens
        self._same_origin = same_origin
        self._hosts = [host.lower().rstrip(".") for host in hosts]
        for host in self._hosts:
            if host != "*" and not _NAME.fullmatch(host):
                raise UsageError(f"--pty-host: {host!r} is no host name such as box.example.org or *.example.org")

    def check_source(self, host: str | None, origin: str | None) -> None:
        """Check the request's Host and Origin; raises ConnectError (``permission_denied``)."""
        if host is None or not self._is_ours(host):
            raise ConnectError("permission_denied", f"the service is not called {(host or '')[:200]!r}: see --pty-host")
        if origin is not None and not (self._same_origin and _place(origin) == host.lower()):
            raise ConnectError("permission_denied", f"pages of {origin[:200]} may not use this service")

    def check_token(self, token: str | None) -> None:
        """Check the request's access token; raises ConnectError (``unauthenticated``)."""
        if not self._tokens:
            return
        if token is None:
            raise ConnectError("unauthenticated", f"a token is needed: {ACCESS_TOKEN}")
        if not self._tokens.know(token):
            raise ConnectError("unauthenticated", "this token is not known here")

    def _is_ours(self, host: str) -> bool:
        name = re.sub(r":\d*$", "", host.lower()).rstrip(".")
        if name == "localhost" or "*" in self._hosts:
            return True
        try:
            ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
        except ValueError:
            pass
        else:
            return True  # an address needs no name that could be rebound
        return any(name.endswith(known[1:]) if known.startswith("*.") else name == known for known in self._hosts)


def _place(origin: str) -> str:
    """Return host and port of an origin as a Host header has them."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
