"""A certificate authority in a folder (``ca.pem``, ``ca.key``), and the certificates that it issues.

Keys are ECDSA on P-256, which every TLS library accepts. Certificates follow RFC 5280 as strictly as OpenSSL's
``-x509_strict`` requires. Each is for servers or for clients, never for both, so that a client cannot pose as the
bridge with its certificate.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tunnel.errors import UsageError
from tunnel.pki import storage
from tunnel.pki.expiry import current_time, expiry
from tunnel.pki.inspection import AUTHORITY, SigningKey, fits, holds_key, kind_of, read_certificates, read_key
from tunnel.pki.names import client_name, server_names, subject_of, text_of

CERTIFICATE, KEY = "ca.pem", "ca.key"
AUTHORITY_DAYS, LEAF_DAYS = 3650, 365  # default validity of certificates
BACKDATED = timedelta(hours=1)  # tolerance for machines whose clock is slow, such as a sandbox that was paused
_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in PEM, followed by the intermediate ones, and its key, which is empty if the key does not change.

    ``end`` is when it expires; ``cut`` is True if that is sooner than requested, because the CA expires then.
    """

    chain: bytes
    key: bytes
    end: datetime
    cut: bool


class Authority:
    """A certificate authority that can issue: its certificate and key.

    ``warnings`` are lines for the user. ``now`` is the current time for all dates.
    """

    def __init__(self, folder: str, now: datetime | None = None) -> None:
        """Read the CA in ``folder``. Raises UsageError if it cannot be used."""
        self.certificate_file, self.key_file = os.path.join(folder, CERTIFICATE), os.path.join(folder, KEY)
        self._now = now or current_time()
        if not os.path.isdir(folder):
            raise UsageError(f"there is no folder {folder}; create a CA with: wstunnel-py certs ca {folder}")
        certificates = read_certificates(self.certificate_file)
        self._certificate = certificates[0]
        self._intermediate = [each for each in certificates if each.issuer != each.subject]
        self._key = read_key(self.key_file)
        if kind_of(self._certificate) != AUTHORITY:
            raise storage.unusable(self.certificate_file, "it is not a CA certificate")
        if not fits(self._key, self._certificate):
            raise storage.unusable(self.key_file, f"it is not the key of {self.certificate_file}")
        self.warnings = storage.exposure(self.key_file)

    @classmethod
    def make(
        cls, folder: str, name: str | None = None, days: float = AUTHORITY_DAYS, now: datetime | None = None
    ) -> Authority:
        """Make a CA called ``name`` in ``folder``, which may be new. Raises UsageError."""
        now = now or current_time()
        subject = subject_of(client_name(name or f"wstunnel-py CA {secrets.token_hex(4)}"))
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, key.public_key(), now - BACKDATED, now + timedelta(days=days))
        builder = builder.issuer_name(subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(authority=True), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        storage.make_folder(folder)
        paths = os.path.join(folder, CERTIFICATE), os.path.join(folder, KEY)
        for path in paths:
            if os.path.lexists(path):
                raise UsageError(f"{path} already exists: choose another folder, or renew it with certs renew")
        storage.write(
            [
                storage.NewFile(paths[1], _key_pem(key), storage.SECRET),
                storage.NewFile(paths[0], _pem(certificate), storage.PUBLIC),
            ]
        )
        return cls(folder, now)

    @property
    def end(self) -> datetime:
        """When the CA's certificate expires."""
        return self._certificate.not_valid_after_utc

    def issue_for_server(self, names: Sequence[str], days: float = LEAF_DAYS) -> Issued:
        """Issue a certificate for a server with these ``names``. Raises UsageError."""
        general = server_names(names)
        subject = subject_of(text_of(general[0]))
        # RFC 5280 section 4.2.1.6: without a subject the names are critical.
        extension = x509.Extension(
            x509.SubjectAlternativeName.oid, not list(subject), x509.SubjectAlternativeName(general)
        )
        return self._issue_leaf(subject, "server", days, [extension])

    def issue_for_client(self, name: str, days: float = LEAF_DAYS) -> Issued:
        """Issue a certificate for the client ``name``. Raises UsageError."""
        return self._issue_leaf(subject_of(client_name(name)), "client", days, [])

    def renew_file(self, path: str, days: float | None = None) -> Issued:
        """Renew the first certificate in a file, for ``days`` or as long as it was valid before, and replace the file.

        Key and names stay. The certificate must be issued by this CA, or be its own. Raises UsageError.
        """
        certificate = read_certificates(path)[0]
        if holds_key(path):
            raise storage.unusable(path, "it also holds a key; only files with certificates alone can be renewed")
        own = fits(self._key, certificate)
        if own and self._intermediate:
            raise storage.unusable(path, "it is the certificate of another CA")
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature) as exc:
            reason = "it was not issued by this CA"
            raise storage.unusable(path, reason) from exc
        if days is None:
            span = certificate.not_valid_after_utc - certificate.not_valid_before_utc
            days = max(1, round(span / timedelta(days=1)))
        asked = timedelta(days=days)
        begin, end = self._validity(asked, own=own)
        builder = _builder(certificate.subject, certificate.public_key(), begin, end, identified=False)
        for extension in certificate.extensions:
            if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
                builder = builder.add_extension(extension.value, extension.critical)
        issued = self._sign(builder, None, asked, end, own=own)
        storage.replace(path, issued.chain)
        return issued

    def _issue_leaf(
        self, subject: x509.Name, kind: str, days: float, more: Sequence[x509.Extension[x509.ExtensionType]]
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        asked = timedelta(days=days)
        begin, end = self._validity(asked)
        builder = _builder(subject, key.public_key(), begin, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([_USAGES[kind]]), critical=False)
        for extension in more:
            builder = builder.add_extension(extension.value, extension.critical)
        return self._sign(builder, key, asked, end)

    def _validity(self, asked: timedelta, *, own: bool = False) -> tuple[datetime, datetime]:
        begin, end = self._now - BACKDATED, self._now + asked
        if own:
            return begin, end
        if self.end <= self._now:
            reason = f"the CA {expiry(self.end, self._now)}; renew it with wstunnel-py certs renew"
            raise storage.unusable(self.certificate_file, reason)
        if self._certificate.not_valid_before_utc > self._now:
            raise storage.unusable(self.certificate_file, "it is not valid yet: is the clock of this machine right?")
        return max(begin, self._certificate.not_valid_before_utc), min(end, self.end)

    def _sign(
        self,
        builder: x509.CertificateBuilder,
        key: ec.EllipticCurvePrivateKey | None,
        asked: timedelta,
        end: datetime,
        *,
        own: bool = False,
    ) -> Issued:
        builder = builder.issuer_name(self._certificate.subject)
        if not own:
            builder = builder.add_extension(self._identifier(), critical=False)
        own_digest = isinstance(self._key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
        certificate = builder.sign(self._key, None if own_digest else hashes.SHA256())
        chain = _pem(certificate) + b"".join(map(_pem, self._intermediate))
        return Issued(chain, _key_pem(key) if key else b"", end, end < self._now + asked)

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            subject = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject)


def issue_files(issued: Issued, stem: str, *, force: bool = False) -> tuple[str, str]:
    """Write a new certificate and its key to ``stem``.pem and ``stem``.key; return these paths. Raises UsageError."""
    certificate, key = f"{stem}.pem", f"{stem}.key"
    storage.write(
        [
            storage.NewFile(key, issued.key, storage.SECRET),
            storage.NewFile(certificate, issued.chain, storage.PUBLIC),
        ],
        force=force,
    )
    return certificate, key


def _builder(
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    begin: datetime,
    end: datetime,
    *,
    identified: bool = True,
) -> x509.CertificateBuilder:
    """Return a builder with the common fields; renewed certificates keep their key identifier, so need no new one."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    if identified:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: SigningKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
