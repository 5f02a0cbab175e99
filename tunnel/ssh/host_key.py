"""Keys of SSH servers: ed25519, in OpenSSH's format, for sshd, the embedded server and ssh-keygen.

Fingerprints are shown in the format of ``ssh-keygen -l``.
"""

from __future__ import annotations

import asyncssh

from tunnel.errors import printable
from tunnel.pki import storage
from tunnel.ssh.server.keys import ALGORITHM, new_host_key

COMMENT = "wstunnel-py host key"
_KINDS = {
    ALGORITHM: "ED25519",
    "sk-ssh-ed25519@openssh.com": "ED25519-SK",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ECDSA-SK",
}


def make_host_key(path: str, *, comment: str = COMMENT, force: bool = False) -> str:
    """Write a new key to ``path`` (mode 0600) and its public half to ``path``.pub; return its fingerprint's line.

    Raises UsageError if a file cannot be written, or exists already, unless ``force``.
    """
    key, files = new_host_key(path, printable(comment))
    storage.write(files, force=force)
    return fingerprint_of(key)


def describe_key(path: str) -> list[str]:
    """Return the line of the fingerprint of a private or public key, and warnings. Raises UsageError."""
    data = storage.read(path)
    if data.startswith(b"-----BEGIN CERTIFICATE"):
        raise storage.unusable(path, "it is a certificate, not an SSH key: see wstunnel-py certs show")
    private = data.startswith(b"-----BEGIN ") and b"PRIVATE KEY-----" in data
    lines = [fingerprint_of(_read_private(path, data) if private else _read_public(path, data))]
    return [*lines, *(f"  warning: {warning}" for warning in (storage.exposure(path) if private else ()))]


def fingerprint_of(key: asyncssh.SSHKey) -> str:
    """Return bits, fingerprint, comment and kind, as ``ssh-keygen -l`` does."""
    comment = printable(key.get_comment() or "no comment")
    kind, bits = _kind(key)
    return f"{bits} {key.get_fingerprint()} {comment} ({kind})"


def _kind(key: asyncssh.SSHKey) -> tuple[str, int]:
    algorithm = key.get_algorithm()
    if algorithm.startswith("ecdsa-sha2-nistp"):
        return "ECDSA", int(algorithm.removeprefix("ecdsa-sha2-nistp"))
    if algorithm in _KINDS:
        return _KINDS[algorithm], 256
    if algorithm == "ssh-rsa":
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_ssh_public_key

        public = load_ssh_public_key(key.export_public_key("openssh"))
        return "RSA", public.key_size if isinstance(public, RSAPublicKey) else 0
    return algorithm, 0


def _read_private(path: str, data: bytes) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(data)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as exc:
        if "assphrase" in str(exc):
            raise storage.unusable(path, f"it is encrypted; use its public key instead: {path}.pub") from exc
        raise storage.unusable(path, f"it is not an SSH key ({printable(str(exc))})") from exc


def _read_public(path: str, data: bytes) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_public_key(data)
    except asyncssh.KeyImportError as exc:
        raise storage.unusable(path, f"it is not an SSH key ({printable(str(exc))})") from exc
