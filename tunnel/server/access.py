"""Access control: bearer tokens, and origins of browsers.

This module checks one request at a time, without sockets; `tunnel.server.handshake` answers a refused one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from http import HTTPStatus

from tunnel.errors import UsageError, spelled
from tunnel.net.names import to_ascii
from tunnel.pki.tokens import read_tokens
from tunnel.server.http import Refusal

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")  # scheme://host[:port], RFC 6454 section 7


class Tokens:
    """The bearer tokens in the files at ``paths``. Any of them admits a client; several allow rotation.

    `tunnel.pki.tokens` describes the files. Without files every client is admitted.
    """

    def __init__(self, paths: Sequence[str], setting: str = "token_file") -> None:
        """Read the files. Raises UsageError if one cannot be read, has no token or an invalid line."""
        self._paths = paths
        self._setting = setting
        self._digests: list[bytes] = []
        self.reload()

    def __bool__(self) -> bool:
        """Whether a token is required."""
        return bool(self._paths)

    def reload(self) -> None:
        """Read the files again; on UsageError (see the constructor) the tokens stay as they were."""
        self._digests = [_digest(token) for path in self._paths for token in read_tokens(path, self._setting)]

    def admit(self, authorization: Sequence[str]) -> None:
        """Check the values of a request's ``Authorization`` fields; raises Refusal (401, RFC 6750 section 3)."""
        if not self._paths:
            return
        scheme, _, token = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            raise _unauthorized("a token is required: Authorization: Bearer TOKEN", "Bearer")
        if not self.accepts(token.strip()):
            raise _unauthorized("this token is not valid", 'Bearer error="invalid_token"')

    def accepts(self, token: str) -> bool:
        """Return whether ``token`` is one of them."""
        digest = _digest(token)
        # All tokens are compared, and as digests, so that the time reveals neither similarity nor length.
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


class Origins:
    """The web pages that may open tunnels; none by default, as pages would act without their user's knowledge.

    Programs other than browsers send no ``Origin``. ``*`` admits every page.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        """Raises UsageError for an invalid origin."""
        self._allowed = frozenset(map(_as_browsers_send_it, allowed))
        for origin in self._allowed - {"*", "null"}:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError(f"{origin!r} is not an origin such as https://example.org", setting="allow_origin")

    def admit(self, origin: str | None) -> None:
        """Check a request's ``Origin`` (None: it has none); raises Refusal (403, RFC 6455 section 10.2)."""
        if origin is None or "*" in self._allowed or origin.lower() in self._allowed:
            return
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            "origin",
            f"web pages of this origin may not open tunnels ({spelled('allow_origin')})",
        )


def _unauthorized(message: str, challenge: str) -> Refusal:
    return Refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", message, {"WWW-Authenticate": challenge}, slowly=True)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _as_browsers_send_it(origin: str) -> str:
    """Return an origin with its host in ASCII. Raises UsageError."""
    scheme, separator, place = origin.partition("://")
    host, colon, port = place.partition(":")
    try:
        return f"{scheme}{separator}{to_ascii(host)}{colon}{port}".lower()
    except ValueError as exc:
        raise UsageError(f"{origin!r}: {exc}", setting="allow_origin") from exc
