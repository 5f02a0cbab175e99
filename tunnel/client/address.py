"""WebSocket URLs and the templates that host names go into (RFC 6455, section 3).

By hand rather than by ``urllib.parse``, which would double what the ProxyCommand imports; what is accepted is
narrower: no userinfo, no fragment, nothing but printable ASCII.
"""

from __future__ import annotations

from tunnel.protocol.errors import UsageError

DEFAULT_TEMPLATE = "wss://{port}-{host}.e2b.app"
DEFAULT_PORTS = {"ws": 80, "wss": 443}
_ALNUM = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Address:
    """A ws:// or wss:// URL, taken apart; ``str()`` gives it back in normal form."""

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
        """The value of the Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_field}{self.resource if self.resource != '/' else ''}"


def parse_url(url: str) -> Address:
    """Return the parts of a ws:// or wss:// URL. Raises UsageError, which names what is wrong."""

    def wrong(problem: str) -> UsageError:
        return UsageError(problem, cause="url", url=url)

    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme in ("http", "https"):
        raise wrong(f"a tunnel's URL begins with {'wss' if scheme == 'https' else 'ws'}://, not {scheme}://")
    if not separator or scheme not in DEFAULT_PORTS:
        raise wrong("a tunnel's URL begins with ws:// or wss://")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    authority, resource = rest[:end], rest[end:]
    if "#" in resource:
        raise wrong("a WebSocket URL has no #fragment")
    if not all("!" <= c <= "~" for c in resource):
        raise wrong("the path has characters that must be percent-encoded")
    if "@" in authority:
        # The URL itself is kept out of the message: it holds a password.
        raise UsageError("a URL must not hold a user name or password; use --token-file or a header")
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        if not bracket or (port and not port.startswith(":")) or ":" not in host:
            raise wrong("the IPv6 address is malformed")
        port = port[1:]
    else:
        host, colon, port = authority.partition(":")
        if colon and not port:
            raise wrong("the port is missing")
    if not host:
        raise wrong("the host is missing")
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError as exc:
            raise wrong(f"the host cannot be written in IDNA ({exc})") from exc
    if not all(c in _ALNUM or c in "-._:%" for c in host):
        raise wrong("the host has characters that no host name has")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise wrong("the port is not a number from 1 to 65535")
    if not resource.startswith("/"):
        resource = "/" + resource
    return Address(scheme, host, int(port) if port else DEFAULT_PORTS[scheme], resource)


def fill_template(template: str, host: str, port: int) -> Address:
    """Return the URL that ``template`` gives for ``host``, which replaces {host}, and the bridge's ``port``.

    Raises UsageError when the host could change more of the URL than its place in it, or the template has another {…}.
    """
    rest = template.replace("{host}", "").replace("{port}", "")
    if "{" in rest or "}" in rest:
        raise UsageError("a URL template knows {host} and {port}, nothing else", cause="url", url=template)
    if "{host}" in template:
        check_host(host)
    return parse_url(template.replace("{port}", str(port)).replace("{host}", host))


def check_host(host: str) -> None:
    """Raise UsageError unless ``host`` is letters and digits, with dots, hyphens and underscores only between them."""
    inner_ok = all(c in _ALNUM or c in "._-" for c in host)
    if not (host and inner_ok and host[0] in _ALNUM and host[-1] in _ALNUM):
        problem = "letters and digits, with . _ - between them, are allowed"
        raise UsageError(problem, cause="host", host=host)
