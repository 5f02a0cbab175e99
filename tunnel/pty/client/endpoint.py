"""The URL of a terminal service, and the headers of every request: its token and added ones.

A service is given by its http:// or https:// URL, a host name, or the ID of a sandbox, which is put into E2B's URL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunnel.client.address import Address, check_host, fill, refuse_userinfo, split_authority
from tunnel.client.credentials import keep_header
from tunnel.errors import UsageError
from tunnel.protocol.upgrade import check_header

PORT = 49983  # of E2B's daemon in a sandbox
TEMPLATE = "https://{port}-{host}.e2b.app"
LOCAL = f"http://127.0.0.1:{PORT}"
TOKEN_FIELD = "X-Access-Token"  # noqa: S105  # the name of a header, not a secret
_TWINS = {"http": "ws", "https": "wss"}
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Endpoint:
    """A terminal service: ``url`` without a slash at its end, and the ``headers`` of every request (never print them).

    ``str()`` is the URL. ``address`` is the same as a WebSocket address, for choosing a proxy.
    """

    __slots__ = ("address", "headers", "url")

    def __init__(self, url: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.url, self.address = _parse(url)
        self.headers = tuple(headers)
        for name, value in self.headers:
            keep_header(name, value, self.url)

    def __str__(self) -> str:
        return self.url


def locate(host_or_url: str, *, token: str | None = None, headers: Mapping[str, str] | None = None) -> Endpoint:
    """Return the service at a URL, on a host (``49983-id.e2b.app``) or in the E2B sandbox with that ID.

    Raises UsageError for anything else, and for headers that cannot be sent.
    """
    fields = list((headers or {}).items())
    if token is not None:
        fields.append((TOKEN_FIELD, token))
    for name, value in fields:
        check_header(name, value)
    if "://" in host_or_url:
        return Endpoint(host_or_url, fields)
    if "." in host_or_url:
        check_host(host_or_url.removesuffix("."), "http:// or https://")
        return Endpoint(f"https://{host_or_url}", fields)
    return Endpoint(fill(TEMPLATE, host_or_url, PORT), fields)


def _parse(url: str) -> tuple[str, Address]:
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    authority, slash, path = rest.partition("/")
    refuse_userinfo(authority)
    try:
        if not separator or scheme not in _TWINS:
            raise ValueError("a terminal service's URL must begin with http:// or https://")
        if not all("!" <= c <= "~" and c not in "?#" for c in path):
            raise ValueError("the path has characters that must be percent-encoded")
        host, port = split_authority(authority)
    except ValueError as exc:
        raise UsageError(str(exc), code="url", url=url.partition("?")[0]) from exc
    address = Address(_TWINS[scheme], host, port or _DEFAULT_PORTS[scheme], "/")
    # In ASCII, as `split_authority` made it.
    shown = address.authority if port else address.host_field
    if "%" in host:
        # httpx passes the host on unchanged, so the zone must not be escaped here.
        shown = shown.replace("]", host[host.index("%") :] + "]")
    return f"{scheme}://{shown}{slash}{path}".rstrip("/"), address
