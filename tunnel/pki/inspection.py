"""Reading certificates and keys: their use, their end, and whether they belong together.

The files may come from anyone, so their texts are made printable here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from tunnel.errors import UsageError, printable, spelled
from tunnel.pki import storage
from tunnel.pki.expiry import SOON, current_time, ends_soon, expiry, moment
from tunnel.pki.names import text_of

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
AUTHORITY, SERVER, CLIENT, BOTH, ANY = "CA", "server", "client", "server and client", "any use"
_KEY_MARK = b"PRIVATE KEY-----"


def read_certificates(path: str) -> list[x509.Certificate]:
    """Return the certificates in a PEM file, at least one. Raises UsageError."""
    data = storage.read(path)
    try:
        certificates = x509.load_pem_x509_certificates(data)
        for each in certificates:  # faults show only when an attribute is read
            _ = each.extensions, each.subject, each.issuer, each.public_key()
        return certificates
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        damaged = b"-----BEGIN CERTIFICATE-----" in data
        raise storage.unusable(path, "it is damaged" if damaged else "it contains no PEM certificate") from exc


def read_key(path: str) -> SigningKey:
    """Return the private key in a PEM file. Raises UsageError, also for an encrypted key."""
    data = storage.read(path)
    try:
        key = load_pem_private_key(data, None)
    except TypeError as exc:  # raised if a password is needed
        reason = f"the key is encrypted; decrypt it with: openssl pkey -in {path} -out FILE"
        raise storage.unusable(path, reason) from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        damaged = _KEY_MARK in data
        raise storage.unusable(path, "the key is damaged" if damaged else "it contains no PEM key") from exc
    if not isinstance(key, SigningKey):
        raise storage.unusable(path, "a key of this kind cannot sign")
    return key


def holds_key(path: str) -> bool:
    """Whether there is a private key in a file. Raises UsageError."""
    return _KEY_MARK in storage.read(path)


def kind_of(certificate: x509.Certificate) -> str:
    """Return what a certificate is for."""
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return AUTHORITY
    except x509.ExtensionNotFound:
        pass
    try:
        usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return ANY
    server, client = ExtendedKeyUsageOID.SERVER_AUTH in usages, ExtendedKeyUsageOID.CLIENT_AUTH in usages
    if server and client:
        return BOTH
    return SERVER if server else CLIENT if client else "other uses"


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the names in a certificate: those of its subjectAltName, else of its subject."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [_name_text(certificate.subject)]
    return list(map(text_of, names))


def fits(key: SigningKey, certificate: x509.Certificate) -> bool:
    """Whether the private key is that of the certificate."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)


@dataclass(frozen=True, slots=True)
class Report:
    """The lines of ``certs show`` for a certificate; ``usable`` is False if no program would accept it."""

    lines: list[str]
    usable: bool
    ends_soon: bool


def reports(path: str, within: float | None = None) -> Iterator[Report]:
    """Yield a report for each certificate in a file, including the key beside it. Raises UsageError.

    A certificate ends soon if it expires within ``within`` days.
    """
    now = current_time()
    certificates = read_certificates(path)
    for number, each in enumerate(certificates):
        title = path if len(certificates) == 1 else f"{path} ({number + 1} of {len(certificates)})"
        key_text, key_fits = _key(path, each) if number == 0 else ("", True)
        end = each.not_valid_after_utc
        early = each.not_valid_before_utc > now
        soon = ends_soon(end, now, SOON if within is None else timedelta(days=within))
        if early:
            validity = f"NOT YET VALID: begins {moment(each.not_valid_before_utc)}"
        elif end <= now:
            validity = expiry(end, now).replace("expired", "EXPIRED", 1)
        else:
            validity = f"{expiry(end, now)}{', SOON' if soon else ''}; began {moment(each.not_valid_before_utc)}"
        rows = [
            ("for", kind_of(each)),
            ("names", ", ".join(names_of(each))),
            ("issuer", "itself" if each.issuer == each.subject else _name_text(each.issuer)),
            ("validity", validity),
            ("SHA-256", each.fingerprint(hashes.SHA256()).hex(":")),
            ("key", key_text),
        ]
        lines = [title, *(f"  {name:9} {text}" for name, text in rows if text)]
        yield Report(lines, key_fits and not early and end > now, soon)


def key_file_of(path: str) -> str:
    """Return the path of the key for the certificate file ``path``: the same name with ``.key``."""
    return f"{os.path.splitext(path)[0]}.key"


def is_due(path: str, within: float) -> bool:
    """Whether the first certificate in a file has expired, or expires ``within`` days. Raises UsageError."""
    return ends_soon(read_certificates(path)[0].not_valid_after_utc, current_time(), timedelta(days=within))


def soon_ending(path: str, setting: str) -> list[str]:
    """Return a line for each certificate in a file that has expired or soon will; ``setting`` names the file.

    A file that cannot be read is ignored here.
    """
    now, file = current_time(), f"{spelled(setting)} {path}"
    try:
        certificates = read_certificates(path)
        return [
            f"{file}: the certificate of {names_of(each)[0]} {expiry(each.not_valid_after_utc, now)}; "
            "renew it: wstunnel-py certs renew"
            for each in certificates
            if ends_soon(each.not_valid_after_utc, now)
        ]
    except (UsageError, ValueError):
        return []


def _key(path: str, certificate: x509.Certificate) -> tuple[str, bool]:
    """Return a text about the key of a certificate, and whether it fits as far as is known."""
    place = path if holds_key(path) else key_file_of(path)
    shown = "in the same file" if place == path else place
    if not os.path.exists(place):
        return "", True
    try:
        key = read_key(place)
    except UsageError as exc:
        return str(exc), True
    if not fits(key, certificate):
        return f"{shown}: belongs to ANOTHER certificate", False
    return f"{shown}: fits" + "".join(f"; warning: {warning}" for warning in storage.exposure(place)), True


def _name_text(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return printable(str(common[0].value) if len(common) == 1 == len(list(name)) else name.rfc4514_string())
