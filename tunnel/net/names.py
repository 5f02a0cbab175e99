"""Names and addresses of hosts as different parts of the network want them.

    what is written         dialled             Host, CONNECT    certificate, SNI
    box.example.            box.example.        box.example.     box.example
    [fe80::1%25eth0]        fe80::1%eth0        [fe80::1]        fe80::1
    faß.example             xn--fa-hia.example, everywhere

That is what curl does, too: a final dot is the name server's business, and a zone (RFC 4007 section 11) is this
machine's alone.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What IDNA 2003, the only one that Python has, maps to something else, though IDNA 2008 has names with it
# (UTS 46 section 6): another name, which may be somebody else's.
_DEVIATIONS = "ßς\u200c\u200d"
_ADVICE = "write it as it stands in the name server, with xn--"


def to_ascii(host: str) -> str:
    """Return ``host`` in ASCII by IDNA 2008 as UTS 46 maps it, non-transitional. Raises ValueError: the fault.

    Without the package ``idna``, which only comes with other packages, by Python's IDNA 2003, unless those differ.
    """
    if host.isascii():
        return host
    try:
        import idna
    except ImportError:
        from unicodedata import ucd_3_2_0 as known_then

        # What came to Unicode later, IDNA 2003 does not even put in lower case.
        if any(c in _DEVIATIONS or known_then.category(c) == "Cn" for c in host):
            raise ValueError(f"the host has letters that need the package idna: install that, or {_ADVICE}") from None
        try:
            return host.encode("idna").decode()
        except UnicodeError as exc:
            raise ValueError(f"the host cannot be written in IDNA ({exc}): {_ADVICE}") from exc
    try:
        labels = idna.uts46_remap(host, std3_rules=False, transitional=False).split(".")
        # Label by label, as those in ASCII may have what IDNA has not, such as _.
        return ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels)
    except UnicodeError as exc:
        raise ValueError(f"the host cannot be written in IDNA ({exc}): {_ADVICE}") from exc


def split_zone(address: str) -> tuple[str, str]:
    """Return an IPv6 address without its zone, and the zone (nothing if there is none).

    In URLs the zone stands behind ``%25`` (RFC 6874), elsewhere behind ``%``; both are taken in both.
    """
    plain, _, zone = address.partition("%")
    if zone.startswith("25") and len(zone) > len("25"):
        zone = zone.removeprefix("25")
        if "%" in zone:
            from urllib.parse import unquote

            zone = unquote(zone)
    return plain, zone


def is_zone(zone: str) -> bool:
    """Return whether a zone may be the name of a network interface, or its number."""
    return bool(zone) and zone.isascii() and all("!" <= c <= "~" and c not in "/%[]" for c in zone)


def zone_of(place: Sequence[object]) -> str:
    """Return ``%zone`` for a socket's IPv6 address (host, port, flow, scope) that has one; else nothing."""
    if len(place) < 4 or not isinstance(place[3], int) or not place[3]:
        return ""
    import socket

    try:
        return "%" + socket.if_indextoname(place[3])
    except OSError:
        return f"%{place[3]}"  # the interface is gone meanwhile
