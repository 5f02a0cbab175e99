"""What of a request is secret, and so must never be shown, should a server send it back in its answer.

`tunnel.errors` keeps the list, and takes what is on it out of every text. This is imported only where there is
a secret.
"""

from __future__ import annotations

import binascii

from tunnel.errors import keep_secret

SHORTEST_UNNAMED = 8  # characters of a value whose name does not tell that it is a secret
SHORTEST_WORD = 12  # characters of one that is letters only: as a word it may stand in any message
_TELLING = ("auth", "token", "secret", "key", "cookie", "password", "passwd", "session", "credential", "signature")
_PUBLIC = frozenset(("origin", "user-agent", "accept", "accept-language", "referer", "content-type"))
_DELIMITERS = str.maketrans(dict.fromkeys(',;="', " "))
_UNRESERVED = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~")


def keep_header(name: str, value: str, url: str = "") -> None:
    """Keep what is secret in a header that is sent: its value, and the parts of it that are secrets themselves.

    What the ``url`` has, too, is none, unless the header's name tells that it is one.
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
    # A server may also tell what it thinks of the one word that matters to it: "Token token=…", a value in quotes.
    _keep([word for word in value.translate(_DELIMITERS).split() if word not in url], named=False)


def keep_query(resource: str) -> None:
    """Keep what is secret in the query of a path: any value may be."""
    query = resource.partition("?")[2]
    for part in query.split("&"):
        name, _, value = part.partition("=")
        _keep([value], named=any(word in name.lower() for word in _TELLING))


def keep_login(user: str, password: str) -> None:
    """Keep the password of a proxy, and what is sent of it."""
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
