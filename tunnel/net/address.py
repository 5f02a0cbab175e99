"""Addresses as people write them (``HOST:PORT``, ``[IPv6]:PORT``, ``unix:PATH``) and as sockets tell them.

Listeners and targets share these forms; what an empty host means is for each of them to say.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from tunnel.errors import UsageError
from tunnel.net.home import expand_home
from tunnel.net.names import is_zone, split_zone, to_ascii, zone_of


@dataclass(frozen=True, slots=True)
class TCPAddress:
    """A host (a name in ASCII or an IP address without brackets; may be empty) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return join(self.host, self.port)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TCPAddress | UnixAddress


def parse_address(text: str, option: str) -> Address:
    """Parse ``text``, the value of ``option``; raises UsageError when it has none of the forms."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise UsageError(f"{option}: {text!r} names no path")
        return UnixAddress(expand_home(path, option))
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise UsageError(f"{option}: {text!r} is not HOST:PORT or unix:PATH")
    if host.startswith("[") and host.endswith("]"):
        host, zone = split_zone(host[1:-1])
        if not _is_ipv6(host):
            raise UsageError(f"{option}: {text!r}: {host!r} is no IPv6 address")
        if "%" in text:
            if not is_zone(zone):
                raise UsageError(f"{option}: {text!r}: {zone!r} is no network interface")
            host = f"{host}%{zone}"
    elif ":" in host:
        raise UsageError(f"{option}: {text!r}: an IPv6 address stands in brackets, as in [::1]:{port}")
    elif any(c.isspace() or c in "/@[]" for c in host):
        raise UsageError(f"{option}: {text!r} is not HOST:PORT or unix:PATH")
    try:
        return TCPAddress(to_ascii(host), int(port))
    except ValueError as exc:
        raise UsageError(f"{option}: {text!r}: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Client:
    """Who connects: ``address`` for people, ``source`` for limits (None: cannot be told apart from others)."""

    address: str
    source: str | None


def client_of(sockaddr: object) -> Client:
    """Return the client behind the address that ``accept`` returned.

    The source of an IPv6 client is its network (/64), within which addresses cost nothing.
    """
    if not isinstance(sockaddr, tuple):
        return Client("unix", None)
    host, port = sockaddr[0], sockaddr[1]
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return Client(join(host, port), str(ipaddress.IPv6Network((ip, 64), strict=False)))
        ip = ip.ipv4_mapped
    return Client(join(str(ip), port), str(ip))


def address_of(sock: socket.socket) -> Address:
    """Return where ``sock`` is bound."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        return TCPAddress(name[0] + zone_of(name), name[1])
    return UnixAddress(name.decode(errors="backslashreplace") if isinstance(name, bytes) else name)


def is_loopback(address: Address) -> bool:
    """Return whether only this machine can reach ``address``, which is a bound one."""
    if isinstance(address, UnixAddress):
        return True
    return ipaddress.ip_address(address.host.partition("%")[0]).is_loopback


def join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
