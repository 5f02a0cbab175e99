"""The client's address behind trusted proxies, from ``X-Forwarded-For``."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from tunnel.errors import UsageError
from tunnel.net.address import Client, client_of

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_UNIX = "unix"  # any client of a Unix socket


class TrustedProxies:
    """The proxies of ``trusted_proxy``: networks such as ``10.0.0.0/8``, addresses, or ``unix``.

    Raises UsageError for anything else.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._unix = _UNIX in texts
        try:
            self._networks = [ipaddress.ip_network(text) for text in texts if text != _UNIX]
        except ValueError as exc:
            raise UsageError(f"{exc}: give a network such as 10.0.0.0/8, or unix", setting="trusted_proxy") from exc

    def client(self, peer: Client, fields: Sequence[str]) -> Client:
        """Return the client behind ``peer``, whose request has the ``X-Forwarded-For`` fields ``fields``.

        Each proxy appends the address of its client. So the client is the last address that does not belong to a
        trusted proxy; the client may have made up those before it.
        """
        if not self._networks and not self._unix:
            return peer
        found = peer
        trusted = self._unix if peer.source is None else self._trusts(_host(peer.address))
        for entry in reversed(",".join(fields).split(",")):
            host = _entry_host(entry.strip())
            if not trusted or host is None:
                break
            found = client_of((str(host), 0))
            trusted = self._trusts(host)
        return found

    def _trusts(self, host: _IP | None) -> bool:
        return any(host in network for network in self._networks) if host is not None else False


def _host(address: str) -> _IP | None:
    """Return the host of a client's address in the form of `client_of`."""
    return _parse(address.rpartition(":")[0].strip("[]"))


def _entry_host(entry: str) -> _IP | None:
    """Return the host of an entry, which may have a port: ``192.0.2.1:5000``, ``[2001:db8::1]:5000``.

    An entry with a zone (``%eth0``) is refused: it would be the proxy's, and could be very long.
    """
    if "%" in entry:
        return None
    if entry.startswith("["):
        return _parse(entry[1:].partition("]")[0])
    return _parse(entry) or _parse(entry.rpartition(":")[0])


def _parse(text: str) -> _IP | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip
