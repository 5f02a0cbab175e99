"""The secret parts of a request, which must not be shown even if a server sends them back.

`tunnel.errors` keeps the list, and removes them from every text. This module is imported only if there is a secret.
"""

from __future__ import annotations

import binascii

from tunnel.errors import keep_secret

SHORTEST_UNNAMED = 8  # characters of a value whose name does not mark it as a secret
SHORTEST_WORD = 12  # characters of a value of letters only: a shorter one may be a word of any message
_TELLING = ("auth", "token", "secret", "key", "cookie", "password", "passwd", "session", "credential", "signature")
_PUBLIC = frozenset(("origin", "user-agent", "accept", "accept-language", "referer", "content-type"))
_DELIMITERS = str.maketrans(dict.fromkeys(',;="', " "))
_UNRESERVED = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~")


def keep_header(name: str, value: str, url: str = "") -> None:
    """Keep the secrets of a header that is sent: its value, and the secret parts of that.

    Text that is also in the ``url`` is not a secret, unless the header's name marks it as one.
    """
    name = name.lower()
    if name in _PUBLIC:
        return
    named = any(word in name for word in _TELLING)
    if not named and value in url:
        return
    parts = [value]
    if name.endswith("authorization"):
        scheme, _, credentials = value.partition(" ")
        parts = [credentials.strip() or value]
        if scheme.lower() == "basic":
            parts += _of_basic(credentials)
    elif name == "cookie":
        parts += [part.partition("=")[2] for part in value.split(";")]
    _keep(parts, named=named)
    # A server may also quote just one part of the value, as of "Token token=…".
    _keep([word for word in value.translate(_DELIMITERS).split() if word not in url], named=False)


def keep_query(resource: str) -> None:
    """Keep the values in the query of a path: any of them may be a secret."""
    query = resource.partition("?")[2]
    for part in query.split("&"):
        name, _, value = part.partition("=")
        _keep([value], named=any(word in name.lower() for word in _TELLING))


def keep_login(user: str, password: str) -> None:
    """Keep the password of a proxy, and the encoded form in which it is sent."""
    encoded = binascii.b2a_base64(f"{user}:{password}".encode(), newline=False).decode()
    _keep([password, encoded], named=True)
    keep_secret(password)


def _keep(parts: list[str], *, named: bool) -> None:
    for part in map(str.strip, parts):
        if len(part) >= (SHORTEST_WORD if part.isalpha() else 0 if named else SHORTEST_UNNAMED):
            keep_secret(part)
            keep_secret(_in_url(part))


def _in_url(text: str) -> str:
    return "".join(c if c in _UNRESERVED else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)


def _of_basic(credentials: str) -> list[str]:
    try:
        login = binascii.a2b_base64(credentials).decode("utf-8", "replace")
    except ValueError:
        return []
    return [login, login.partition(":")[2]]
