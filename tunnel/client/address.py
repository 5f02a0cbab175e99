"""WebSocket URLs, and URL templates (RFC 6455 section 3).

This does not use ``urllib.parse``, which would double the ProxyCommand's imports. It also accepts less: no userinfo, no
fragment, only printable ASCII.
"""

from __future__ import annotations

from tunnel.errors import UsageError, spelled

USUAL_DOMAIN = "e2b.app"
DEFAULT_TEMPLATE = f"wss://{{port}}-{{host}}.{USUAL_DOMAIN}"
DEFAULT_PORTS = {"ws": 80, "wss": 443}
_ALNUM = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NAME = _ALNUM | frozenset("-._")
_IPV6 = frozenset("0123456789abcdefABCDEF:.")


class Address:
    """A parsed ws:// or wss:// URL. ``str()`` shows it without its query, which may hold a secret.

    ``host`` is the name or address to connect to, in ASCII. It keeps the zone of an IPv6 address (``fe80::1%eth0``) and
    a final dot.
    """

    __slots__ = ("host", "port", "resource", "scheme")

    def __init__(self, scheme: str, host: str, port: int, resource: str) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.resource = resource

    @property
    def secure(self) -> bool:
        """Whether the connection is made with TLS."""
        return self.scheme == "wss"

    @property
    def host_field(self) -> str:
        """The value of the Host header; it has the port only if that is not the scheme's default."""
        return bracketed(self.plain_host) if self.port == DEFAULT_PORTS[self.scheme] else self.authority

    @property
    def plain_host(self) -> str:
        """The host without a zone (RFC 4007 section 11), which has a meaning on this machine only."""
        return self.host.partition("%")[0]

    @property
    def certificate_name(self) -> str:
        """The server's name for TLS and its certificate: without a zone and a final dot."""
        return self.plain_host.removesuffix(".")

    @property
    def authority(self) -> str:
        """Host and port, as for CONNECT and for messages."""
        return f"{bracketed(self.plain_host)}:{self.port}"

    @property
    def shown_resource(self) -> str:
        """The path, and "?…" if there is a query."""
        path, mark, _ = self.resource.partition("?")
        return path + ("?…" if mark else "")

    def __str__(self) -> str:
        place = self.host_field
        if "%" in self.host:
            place = place.replace("]", f"{self.host[self.host.index('%') :].replace('%', '%25')}]")
        return f"{self.scheme}://{place}{self.shown_resource if self.resource != '/' else ''}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return (self.scheme, self.host.lower(), self.port, self.resource) == (
            other.scheme,
            other.host.lower(),
            other.port,
            other.resource,
        )

    __hash__ = None  # type: ignore[assignment]


def bracketed(host: str) -> str:
    """Return ``host`` as it is written before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def split_authority(authority: str) -> tuple[str, int | None]:
    """Return the host (in ASCII) and the port, if any, of ``host:port`` or ``[IPv6]:port``. Raises ValueError.

    Before the zone of an IPv6 address both %25 and % are accepted; % is returned.
    """
    if authority.startswith("["):
        from tunnel.net.names import is_zone, split_zone

        written, bracket, port = authority[1:].partition("]")
        address, zone = split_zone(written)
        if not bracket or (port and not port.startswith(":")) or ":" not in address or not _IPV6.issuperset(address):
            raise ValueError("the IPv6 address is malformed")
        if "%" in written and not is_zone(zone):
            raise ValueError("the zone of the IPv6 address is malformed")
        host = f"{address}%{zone}" if zone else address
        colon, port = port[:1], port[1:]
    else:
        host, colon, port = authority.partition(":")
        if not host.isascii():
            from tunnel.net.names import to_ascii

            host = to_ascii(host)
        if not host:
            raise ValueError("the host is missing")
        if not _NAME.issuperset(host):
            raise ValueError("the host has characters that a host name cannot have")
        if "" in host.removesuffix(".").split("."):
            raise ValueError("the host has nothing between two dots")
    if not colon:
        return host, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError("the port is not a number from 1 to 65535")
    return host, int(port)


def parse_url(url: str) -> Address:
    """Return the parts of a ws:// or wss:// URL. Raises UsageError."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    authority, resource = rest[:end], rest[end:]
    refuse_userinfo(authority if separator else url)
    try:
        if scheme in ("http", "https"):
            wanted = "wss" if scheme == "https" else "ws"
            raise ValueError(f"a tunnel's URL must begin with {wanted}://, not {scheme}://")
        if not separator or scheme not in DEFAULT_PORTS:
            raise ValueError("a tunnel's URL must begin with ws:// or wss://")
        if "#" in resource:
            raise ValueError("a WebSocket URL cannot have a #fragment")
        if not all("!" <= c <= "~" for c in resource):
            raise ValueError("the path has characters that must be percent-encoded")
        host, port = split_authority(authority)
    except ValueError as exc:
        shown = url.partition("?")[0]
        raise UsageError(str(exc), code="url", url=shown) from exc
    if not resource.startswith("/"):
        resource = "/" + resource
    return Address(scheme, host, port or DEFAULT_PORTS[scheme], resource)


def refuse_userinfo(authority: str) -> None:
    """Raise UsageError, without showing it, if a URL's authority has a user or a password."""
    if "@" in authority:
        raise UsageError("a URL must not hold a user name or password; use a token file or a header")


def host_of(url: str) -> str:
    """Return the host of a URL of any scheme, in ASCII; "" for a malformed URL."""
    _, separator, rest = url.partition("://")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    try:
        return split_authority(rest[:end])[0] if separator else ""
    except ValueError:
        return ""  # the error is reported where the URL is used


def fill_template(template: str, host: str, port: int) -> Address:
    """Return the ws(s):// URL of ``template`` for ``host`` and the bridge's ``port``, as `fill` does."""
    return parse_url(fill(template, host, port))


def fill(template: str, host: str, port: int) -> str:
    """Return ``template`` with ``host`` for {host} and ``port`` for {port}.

    Raises UsageError if the template has another {…}, or if the host could change other parts of the URL.
    """
    rest = template.replace("{host}", "").replace("{port}", "")
    if "{" in rest or "}" in rest:
        problem = "a URL template may contain {host} and {port}, but no other braces"
        raise UsageError(problem, code="url", url=shown_template(template))
    if "{host}" in template:
        check_host(host, "http:// or https://" if template.lower().startswith("http") else "ws:// or wss://")
    return template.replace("{port}", str(port)).replace("{host}", host)


def shown_template(template: str) -> str:
    """Return a template without its query, user and password, for messages."""
    scheme, separator, rest = template.partition("?")[0].partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def check_host(host: str, schemes: str) -> None:
    """Raise UsageError unless ``host`` is letters, digits, dots, hyphens and underscores, alphanumeric at both ends.

    ``schemes`` names the schemes of the URLs that could be given instead.
    """
    if _is_host(host):
        return
    problem = "only letters and digits, and . _ - between them, are allowed"
    user, _, rest = host.rpartition("@")
    name, _, port = host.rpartition(":")
    if user and _is_host(rest):
        problem = f"leave out the user: {rest}"
    elif _is_host(name) and port.isdigit():
        problem = f"for an address with a port, put {schemes} in front"
    elif host.lower().startswith(("ws:", "ws/", "wss:", "wss/", "http:", "http/", "https:", "https/")):
        problem = f"a URL begins with {schemes}"
    elif host.startswith(("/", ".", "~")) and "/" in host:
        problem = f"it looks like a file; a token's file is given with {spelled('token_file')}"
    raise UsageError(problem, code="host", host=host)


def _is_host(text: str) -> bool:
    return bool(text) and _NAME.issuperset(text) and text[0] in _ALNUM and text[-1] in _ALNUM
