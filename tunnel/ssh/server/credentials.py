"""What a client shows to log in, a key or a certificate, and what whoever holds it may do.

A certificate is restricted twice: by the line of authorized_keys that trusts its authority, and by what is written in
it (PROTOCOL.certkeys of OpenSSH). Both count. What this server cannot enforce, or cannot make sense of, admits nobody.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncssh
from asyncssh.public_key import (
    CERT_TYPE_USER,
    SSHOpenSSHCertificate,
    decode_ssh_certificate,
    decode_ssh_public_key,
)

_CERTIFICATE = b"-cert-v01@openssh.com"  # ends the type of every OpenSSH certificate


class NotAdmitted(Exception):
    """A credential may not log in; the text says why, and is for the log. Empty: it is nobody's that is known here."""


@dataclass(frozen=True)
class Grant:
    """What the holder of a credential may do, and who that is.

    ``key_options`` are those of the line in authorized_keys, ``certificate_options`` the critical options and
    extensions of a certificate, None for a plain key.
    """

    fingerprint: str
    key_options: Mapping[str, Any] = field(default_factory=dict)
    certificate_options: Mapping[str, Any] | None = None
    authority: str = ""  # the fingerprint of the key that signed the certificate

    @property
    def forced_command(self) -> str | None:
        """The only command that may run; an empty one is one, too."""
        certified = (self.certificate_options or {}).get("force-command")
        command = self.key_options.get("command") if certified is None else certified
        return None if command is None else str(command)

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment that the line in authorized_keys sets."""
        found: Mapping[str, str] = self.key_options.get("environment", {})
        return found


def judge(keys: asyncssh.SSHAuthorizedKeys, shown: bytes, user: str, host: str | None) -> Grant:
    """Return what the credential ``shown`` (RFC 4253 section 6.6) allows; whether the client holds it is to be proven.

    ``user`` is whom the client wants to log in as, ``host`` its IP address, None when that is not known.
    Raises NotAdmitted.
    """
    if _is_certificate(shown):
        try:
            certificate = decode_ssh_certificate(shown)
        except ValueError as exc:
            reason = exc.__context__ or exc  # asyncssh hides the reason behind a general one
            raise NotAdmitted(f"its certificate cannot be used: {reason}") from exc
        if not isinstance(certificate, SSHOpenSSHCertificate):
            raise NotAdmitted("its certificate is of another kind")
        return _judge_certificate(keys, certificate, user, host)
    try:
        key = decode_ssh_public_key(shown)
    except ValueError as exc:
        raise NotAdmitted from exc
    options = keys.validate(key, "", "")
    if options is None:
        raise NotAdmitted
    return Grant(key.get_fingerprint(), options)


def _judge_certificate(
    keys: asyncssh.SSHAuthorizedKeys,
    certificate: SSHOpenSSHCertificate,
    user: str,
    host: str | None,
) -> Grant:
    trusted = keys.validate(certificate.signing_key, "", "", certificate.principals, ca=True)
    if trusted is None:
        raise NotAdmitted
    options = certificate.options
    try:
        certificate.validate(CERT_TYPE_USER, None if trusted.get("principals") else user)
    except ValueError as exc:
        raise NotAdmitted(f"its certificate is not valid: {exc}") from exc
    if "source-address" in options:
        _check_source(options["source-address"], host)
    forced, certified = trusted.get("command"), options.get("force-command")
    if forced is not None and certified is not None and forced != certified:
        raise NotAdmitted("the line in authorized_keys and the certificate force two different commands")
    return Grant(certificate.key.get_fingerprint(), trusted, options, certificate.signing_key.get_fingerprint())


def _check_source(networks: Any, host: str | None) -> None:
    """Raise NotAdmitted unless ``host`` is in one of ``networks``, the certificate's source-address."""
    if host is None:
        raise NotAdmitted("its certificate is bound to addresses, and the client's is not known here")
    address = ipaddress.ip_address(host)
    if not any(address in network for network in networks):
        raise NotAdmitted(f"its certificate is not for clients at {host}")


def _is_certificate(shown: bytes) -> bool:
    """Return whether the type, the first string of a public key or a certificate, is that of a certificate."""
    if len(shown) < 4:
        return False
    (length,) = struct.unpack_from(">I", shown)
    return shown[4 : 4 + length].endswith(_CERTIFICATE)
