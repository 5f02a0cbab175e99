"""Whether something on this machine listens at an address, according to the kernel's tables of sockets.

This avoids a connection: sshd would log one that ends at once, and a server that accepts a single connection would be
used up.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path

from tunnel.net.address import Address, TCPAddress, UnixAddress

_TABLE_LIMIT = 1 << 20  # bytes of a table; listening sockets come first
_LISTENING = "0A"  # TCP_LISTEN
_ACCEPTS = 1 << 16  # SO_ACCEPTCON among the flags of a Unix socket


def is_listed(address: Address) -> bool:
    """Return whether the kernel's tables show a socket that listens at ``address``; False without such tables."""
    if isinstance(address, UnixAddress):
        return any(_is_unix_listener(line, address.path) for line in _lines("unix"))
    wanted = set(_entries(address))
    return bool(wanted) and any(
        words[1] in wanted and words[3] == _LISTENING
        for table in ("tcp", "tcp6")
        for line in _lines(table)
        if len(words := line.split()) > 3
    )


def _lines(table: str) -> Iterator[str]:
    """Yield the lines of a table below /proc/net, without its heading."""
    try:
        with Path("/proc/net", table).open("rb") as file:
            text = file.read(_TABLE_LIMIT).decode(errors="surrogateescape")
    except OSError:
        return
    yield from text.split("\n")[1:]


def _is_unix_listener(line: str, path: str) -> bool:
    words = line.split(maxsplit=7)  # Num RefCount Protocol Flags Type St Inode Path
    return len(words) == 8 and words[7] == path and bool(int(words[3], 16) & _ACCEPTS)


def _entries(address: TCPAddress) -> Iterator[str]:
    """Yield the forms in which the tables show a socket that listens at ``address``, if that is a loopback address."""
    for host in ("127.0.0.1", "::1") if address.host == "localhost" else (address.host,):
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            continue
        if ip.is_loopback:
            for each in (ip, ipaddress.IPv4Address(0), ipaddress.IPv6Address(0)):
                # Words of 32 bits, each in the machine's byte order.
                count = len(each.packed) // 4
                words = struct.unpack(f"={count}I", each.packed)
                yield "".join(f"{word:08X}" for word in words) + f":{address.port:04X}"
