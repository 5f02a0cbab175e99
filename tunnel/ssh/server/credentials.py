"""Keys and certificates that clients log in with, and what they permit.

A certificate has two sets of restrictions: those of the line in authorized_keys that trusts its CA, and its own
(OpenSSH's PROTOCOL.certkeys). Both apply. A restriction that this server cannot enforce or parse refuses the login.
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

_CERTIFICATE = b"-cert-v01@openssh.com"  # the end of every OpenSSH certificate type


class NotAdmitted(Exception):
    """A credential may not log in. The text is the reason, for the log; it is empty for an unknown key."""


@dataclass(frozen=True)
class Grant:
    """What the holder of a credential may do.

    ``key_options`` are the options of the line in authorized_keys, ``certificate_options`` the critical options and
    extensions of a certificate, None for a plain key.
    """

    fingerprint: str
    key_options: Mapping[str, Any] = field(default_factory=dict)
    certificate_options: Mapping[str, Any] | None = None
    authority: str = ""  # the fingerprint of the key that signed the certificate

    @property
    def forced_command(self) -> str | None:
        """The only command that may run, which may be empty; None for any."""
        certified = (self.certificate_options or {}).get("force-command")
        command = self.key_options.get("command") if certified is None else certified
        return None if command is None else str(command)

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables that the line in authorized_keys sets."""
        found: Mapping[str, str] = self.key_options.get("environment", {})
        return found


def judge(keys: asyncssh.SSHAuthorizedKeys, shown: bytes, user: str, host: str | None) -> Grant:
    """Return what the credential ``shown`` (RFC 4253 section 6.6) permits; the caller must check the signature.

    ``user`` is the user name that the client gives, ``host`` its IP address, None if it is unknown. Raises NotAdmitted.
    """
    if _is_certificate(shown):
        try:
            certificate = decode_ssh_certificate(shown)
        except ValueError as exc:
            reason = exc.__context__ or exc  # asyncssh wraps the actual reason
            raise NotAdmitted(f"the certificate cannot be used: {reason}") from exc
        if not isinstance(certificate, SSHOpenSSHCertificate):
            raise NotAdmitted("the certificate is not an OpenSSH certificate")
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
        raise NotAdmitted(f"the certificate is not valid: {exc}") from exc
    if "source-address" in options:
        _check_source(options["source-address"], host)
    forced, certified = trusted.get("command"), options.get("force-command")
    if forced is not None and certified is not None and forced != certified:
        raise NotAdmitted("the certificate and its CA's line in authorized_keys force different commands")
    return Grant(certificate.key.get_fingerprint(), trusted, options, certificate.signing_key.get_fingerprint())


def _check_source(networks: Any, host: str | None) -> None:
    """Raise NotAdmitted unless ``host`` is in one of ``networks``, the certificate's source-address."""
    if host is None:
        raise NotAdmitted("the certificate is limited to certain addresses, but the client's address is unknown")
    address = ipaddress.ip_address(host)
    if not any(address in network for network in networks):
        raise NotAdmitted(f"the certificate is not valid for clients at {host}")


def _is_certificate(shown: bytes) -> bool:
    """Return whether the first string, which is the type of a key or certificate, is that of a certificate."""
    if len(shown) < 4:
        return False
    (length,) = struct.unpack_from(">I", shown)
    return shown[4 : 4 + length].endswith(_CERTIFICATE)
