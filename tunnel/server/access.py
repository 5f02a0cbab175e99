"""Who may come in: bearer tokens, origins of browsers, and how many tunnels at once.

Decides about one request at a time and knows no sockets; `tunnel.server.handshake` turns a no into an answer.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus

from tunnel.pki.tokens import read_tokens
from tunnel.protocol.errors import UsageError
from tunnel.server.exchange import Refusal

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")  # scheme://host[:port], RFC 6454 section 7
RETRY_AFTER = 5  # seconds that a client is asked to wait when there is no room


class Tokens:
    """The bearer tokens of ``--token-file``, of which any one admits; several let people rotate them.

    What a file may hold is told by `tunnel.pki.tokens`. Without files everybody is admitted.
    """

    def __init__(self, paths: Sequence[str], option: str = "--token-file") -> None:
        """Read the files. Raises UsageError when one cannot be read, has no token, or a line that can be none."""
        self._paths = paths
        self._option = option
        self._digests: list[bytes] = []
        self.reload()

    def __bool__(self) -> bool:
        """Whether a token is needed."""
        return bool(self._paths)

    def reload(self) -> None:
        """Read the files again; on UsageError (see the constructor) the tokens stay as they were."""
        self._digests = [_digest(token) for path in self._paths for token in read_tokens(path, self._option)]

    def admit(self, authorization: Sequence[str]) -> None:
        """Check the values of a request's ``Authorization`` fields; raises Refusal (401, RFC 6750 section 3)."""
        if not self._paths:
            return
        scheme, _, token = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            raise _unauthorized("a token is needed: Authorization: Bearer TOKEN", "Bearer")
        if not self.know(token.strip()):
            raise _unauthorized("this token is not known here", 'Bearer error="invalid_token"')

    def know(self, token: str) -> bool:
        """Return whether ``token`` is one of them."""
        digest = _digest(token)
        # All of them, and digests, so that the time tells neither which token was near nor how long one is.
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


class Origins:
    """The web pages that may open tunnels; none by default, as a browser's user did not ask for them.

    Programs send no ``Origin`` and are not concerned. ``*`` admits every page.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        """Raises UsageError for what can be no origin."""
        self._allowed = frozenset(origin.lower() for origin in allowed)
        for origin in self._allowed - {"*", "null"}:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError(f"--allow-origin: {origin!r} is no origin such as https://example.org")

    def admit(self, origin: str | None) -> None:
        """Check a request's ``Origin`` (None: it has none); raises Refusal (403, RFC 6455 section 10.2)."""
        if origin is None or "*" in self._allowed or origin.lower() in self._allowed:
            return
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            "origin",
            f"pages of {origin[:200]} may not open tunnels here (--allow-origin)",
        )


class Seats:
    """How many tunnels there may be: at most ``total``, and ``per_source`` for one address (0: no such limit)."""

    def __init__(self, total: int, per_source: int) -> None:
        self._total = total
        self._per_source = per_source
        self._by_source: Counter[str] = Counter()
        self.taken = 0

    def take(self, source: str | None, instead_of: Seat | None = None) -> Seat:
        """Take a seat for a client from ``source`` (None: not known); raises Refusal (503) when there is none.

        ``instead_of`` is a seat that becomes free by this, or stays as it is when there is no new one.
        """
        mine = int(instead_of is not None and not instead_of.is_free)
        if self.taken - mine >= self._total:
            raise _full(f"{self._total} tunnels are open, which is the limit (--max-tunnels)")
        mine = mine if instead_of is not None and instead_of.source == source else 0
        if source is not None and 0 < self._per_source <= self._by_source[source] - mine:
            raise _full(f"{self._per_source} tunnels from one address is the limit (--max-tunnels-per-address)")
        if instead_of is not None:
            instead_of.free()
        self.taken += 1
        if source is not None:
            self._by_source[source] += 1
        return Seat(self, source)

    def _free(self, source: str | None) -> None:
        self.taken -= 1
        if source is not None:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]


class Seat:
    """The right to one tunnel, until it is given back with `free`, which may be called again."""

    __slots__ = ("_seats", "is_free", "source")

    def __init__(self, seats: Seats, source: str | None) -> None:
        self._seats = seats
        self.source = source
        self.is_free = False

    def free(self) -> None:
        if not self.is_free:
            self.is_free = True
            self._seats._free(self.source)


def _unauthorized(message: str, challenge: str) -> Refusal:
    return Refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", message, {"WWW-Authenticate": challenge})


def _full(message: str) -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "full", message, {"Retry-After": str(RETRY_AFTER)})


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
