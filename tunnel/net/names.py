"""Names and addresses of hosts, in the forms for different parts of the network.

    as written              dialled             Host, CONNECT    certificate, SNI
    box.example.            box.example.        box.example.     box.example
    [fe80::1%25eth0]        fe80::1%eth0        [fe80::1]        fe80::1
    faß.example             xn--fa-hia.example, everywhere

curl does the same: a final dot is for name servers only, and a zone (RFC 4007 section 11) for this machine only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Characters that IDNA 2003, the only version in Python, maps to others, although IDNA 2008 allows them in names (UTS 46
# section 6). The mapped name may belong to somebody else.
_DEVIATIONS = "ßς\u200c\u200d"
_ADVICE = "write its ASCII form (xn--…)"


def to_ascii(host: str) -> str:
    """Return ``host`` in ASCII, by IDNA 2008 with the mapping of UTS 46 (non-transitional). Raises ValueError.

    Without the package ``idna``, which is installed only with some other packages, Python's IDNA 2003 is used if the
    result is the same.
    """
    if host.isascii():
        return host
    try:
        import idna
    except ImportError:
        from unicodedata import ucd_3_2_0 as known_then

        # IDNA 2003 does not even lower the case of newer characters of Unicode.
        if any(c in _DEVIATIONS or known_then.category(c) == "Cn" for c in host):
            raise ValueError(f"the host has letters that need the package idna: install that, or {_ADVICE}") from None
        try:
            return host.encode("idna").decode()
        except UnicodeError as exc:
            raise ValueError(f"the host cannot be written in IDNA ({exc}): {_ADVICE}") from exc
    try:
        labels = idna.uts46_remap(host, std3_rules=False, transitional=False).split(".")
        # Label by label, as labels in ASCII may have characters that IDNA forbids, such as _.
        return ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels)
    except UnicodeError as exc:
        raise ValueError(f"the host cannot be written in IDNA ({exc}): {_ADVICE}") from exc


def split_zone(address: str) -> tuple[str, str]:
    """Return an IPv6 address without its zone, and the zone ("" if there is none).

    In URLs ``%25`` stands before the zone (RFC 6874), elsewhere ``%``; both are accepted everywhere.
    """
    plain, _, zone = address.partition("%")
    if zone.startswith("25") and len(zone) > len("25"):
        zone = zone.removeprefix("25")
        if "%" in zone:
            from urllib.parse import unquote

            zone = unquote(zone)
    return plain, zone


def is_zone(zone: str) -> bool:
    """Return whether a zone can be the name or the number of a network interface."""
    return bool(zone) and zone.isascii() and all("!" <= c <= "~" and c not in "/%[]" for c in zone)


def zone_of(place: Sequence[object]) -> str:
    """Return ``%zone`` for a socket's IPv6 address (host, port, flow, scope) with a zone; else ""."""
    if len(place) < 4 or not isinstance(place[3], int) or not place[3]:
        return ""
    import socket

    try:
        return "%" + socket.if_indextoname(place[3])
    except OSError:
        return f"%{place[3]}"  # the interface no longer exists
