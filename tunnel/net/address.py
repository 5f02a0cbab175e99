"""Addresses as text (``HOST:PORT``, ``[IPv6]:PORT``, ``unix:PATH``) and of sockets.

Listeners and targets use these forms; each decides what an empty host means.
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


def parse_address(text: str, setting: str) -> Address:
    """Parse ``text``, the value of ``setting``. Raises UsageError."""
    try:
        return _parse(text, setting)
    except ValueError as exc:
        raise UsageError(f"{text!r} {exc}", setting=setting) from exc


def _parse(text: str, setting: str) -> Address:
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError("has no path")
        return UnixAddress(expand_home(path, setting=setting))
    scheme, separator, _ = text.partition("://")
    if separator:
        raise ValueError(f"is a URL: write HOST:PORT, without {scheme}://")
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError("is not HOST:PORT or unix:PATH")
    if host.startswith("[") and host.endswith("]"):
        host, zone = split_zone(host[1:-1])
        if not _is_ipv6(host):
            raise ValueError(f"is malformed: {host!r} is not an IPv6 address")
        if "%" in text:
            if not is_zone(zone):
                raise ValueError(f"is malformed: {zone!r} cannot name a network interface")
            host = f"{host}%{zone}"
    elif ":" in host:
        raise ValueError(f"is malformed: write an IPv6 address in brackets, as in [::1]:{port}")
    elif any(c.isspace() or c in "/@[]" for c in host):
        raise ValueError("is not HOST:PORT or unix:PATH")
    try:
        return TCPAddress(to_ascii(host), int(port))
    except ValueError as exc:
        raise ValueError(f"is malformed: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Client:
    """A client: ``address`` for messages, ``source`` for limits (None: not distinguishable from others)."""

    address: str
    source: str | None


def client_of(sockaddr: object) -> Client:
    """Return the client for the address that ``accept`` returned.

    The source of an IPv6 client is its network (/64), as a client may use any address in that.
    """
    if not isinstance(sockaddr, tuple):
        return Client("unix", None)
    host, port = sockaddr[0], sockaddr[1]
    if ":" not in host:  # IPv4, which the kernel has written in the only usual form
        return Client(join(host, port), host)
    ip = ipaddress.IPv6Address(host.partition("%")[0])
    if ip.ipv4_mapped is not None:
        return Client(join(str(ip.ipv4_mapped), port), str(ip.ipv4_mapped))
    return Client(join(host, port), str(ipaddress.IPv6Network((ip, 64), strict=False)))


def address_of(sock: socket.socket) -> Address:
    """Return the address that ``sock`` is bound to."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        return TCPAddress(name[0] + zone_of(name), name[1])
    return UnixAddress(name.decode(errors="backslashreplace") if isinstance(name, bytes) else name)


def is_loopback(address: Address) -> bool:
    """Return whether only this machine can reach ``address``, the address of a listening socket."""
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
