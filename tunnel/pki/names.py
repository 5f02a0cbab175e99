"""The names that a server's certificate is for, as certificates hold them: DNS names, wildcards, IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from cryptography import x509

from tunnel.errors import UsageError, printable
from tunnel.net.names import to_ascii

NAMES_LIMIT = 100
_LENGTH_LIMIT = 253  # characters, RFC 1035 section 2.3.4 without the length bytes
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_COMMON_NAME_LIMIT = 64  # ub-common-name, RFC 5280 appendix A.1


def server_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """Return the names for a subjectAltName, each once. Raises UsageError for an invalid name."""
    if not 0 < len(names) <= NAMES_LIMIT:
        raise UsageError(f"{len(names)} names; 1 to {NAMES_LIMIT} are allowed")
    return list(dict.fromkeys(map(_server_name, names)))


def client_name(name: str) -> str:
    """Return the name of a client's certificate. Raises UsageError unless it is printable and short enough."""
    if not name.strip() or printable(name) != name:
        raise UsageError(f"{name!r} is not a valid name: use printable characters, with single spaces between words")
    if len(name) > _COMMON_NAME_LIMIT:
        raise UsageError(f"the name has {len(name)} characters; at most {_COMMON_NAME_LIMIT} are allowed")
    return name


def subject_of(name: str) -> x509.Name:
    """Return a subject with ``name`` as its common name; an empty subject if the name is too long."""
    if len(name) > _COMMON_NAME_LIMIT:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def text_of(name: x509.GeneralName) -> str:
    """Return a name of a certificate as text."""
    return printable(str(name.value))


def file_name(name: str) -> str:
    """Return a file name for ``name`` on every system: ``_wildcard.example.com`` for ``*.example.com``."""
    safe = re.sub(r"[^\w.@+-]", "_", name.replace("*", "_wildcard")).lstrip(".-")
    return safe[:100] or "_"


def _server_name(name: str) -> x509.GeneralName:
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return x509.DNSName(_dns_name(name))
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        raise UsageError(f"{name!r}: a certificate cannot have a zone (%{address.scope_id})")
    return x509.IPAddress(address)


def _dns_name(name: str) -> str:
    ascii_name = name.lower()
    if not name.isascii():
        try:
            ascii_name = to_ascii(name).lower()
        except ValueError as exc:
            raise UsageError(f"{name!r}: {exc}") from exc
    host = ascii_name.removeprefix("*.")
    labels = host.split(".")
    if len(ascii_name) > _LENGTH_LIMIT or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise UsageError(f"{name!r} is not a host name, a wildcard (*.example.com) or an IP address")
    if host != ascii_name and len(labels) < 2:
        # Clients refuse such a wildcard, as it could match all names of a registry.
        raise UsageError(f"{name!r}: a wildcard needs two labels after it, as in *.example.com")
    return ascii_name
