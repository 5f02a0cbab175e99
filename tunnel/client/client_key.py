"""The file with the client certificate's key: the one that is named, the certificate's own file, or NAME.key beside it.

`wstunnel-py certs client` writes NAME.pem and NAME.key, and so do other programs.
"""

from __future__ import annotations

import os

from tunnel.net.files import read_regular

PEM_LIMIT = 1 << 20  # bytes of a file of certificates or keys
CERTIFICATE, KEY = b"CERTIFICATE-----", b"PRIVATE KEY-----"


def key_path(certificate: str, key: str | None) -> str | None:
    """Return the file with the key of ``certificate``: ``key`` if it is given, else the first that has one.

    None if neither the certificate's file nor the one beside it has a key. Raises OSError if the certificate cannot be
    read.
    """
    if key is not None:
        return key
    if holds(certificate, KEY):
        return certificate
    beside = key_beside(certificate)
    return beside if os.path.exists(beside) else None


def key_beside(certificate: str) -> str:
    """Return the name of the key's file beside the certificate's: NAME.key for NAME.pem."""
    return f"{os.path.splitext(certificate)[0]}.key"


def holds(path: str, mark: bytes) -> bool:
    """Return whether the file at ``path`` contains ``mark``. Raises OSError."""
    data, _ = read_regular(path, PEM_LIMIT)
    return mark in data
