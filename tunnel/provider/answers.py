"""Parses the API's answers: access to a sandbox, its state, a page of a list. Sans-I/O.

Answers are not trusted: values for headers and URLs are checked. Anything invalid is a `ProviderError`
(``api-failed``).
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tunnel.errors import ProviderError, keep_secret, printable
from tunnel.protocol.upgrade import Response, message_of

TOKEN_LIMIT = 8192  # characters, well below what servers take as a header
_DOMAIN_LIMIT = 253  # characters, as in DNS
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::([0-9]{{1,5}}))?")
# Status → code of the error. Other statuses are not about the sandbox, the key or the call.
_CODES = {
    400: "api-usage", 401: "api-key", 403: "api-key", 404: "sandbox-unknown", 409: "sandbox-busy", 429: "api-quota",
}  # fmt: skip


class Access:
    """Access to a sandbox: the ``domain`` of its names, the tokens for E2B's daemon and for the edge, or None.

    It lives at least ``until`` that time (seconds since the epoch); ``asked`` is when the API was called.
    """

    __slots__ = ("asked", "domain", "envd_token", "traffic_token", "until")

    def __init__(
        self, domain: str | None, envd_token: str | None, traffic_token: str | None, asked: float, until: float
    ) -> None:
        self.domain = domain
        self.envd_token = envd_token
        self.traffic_token = traffic_token
        self.asked = asked
        self.until = until
        for token in (envd_token, traffic_token):
            if token is not None:
                keep_secret(token)


class Details:
    """One sandbox: ``state`` is ``running`` or ``paused``, ``left`` the seconds until its time is over.

    ``name`` is the name of its template.
    """

    __slots__ = ("id", "left", "name", "state")

    def __init__(self, id: str, name: str, state: str, left: float) -> None:
        self.id = id
        self.name = name
        self.state = state
        self.left = left


def check_status(response: Response, *, api: object, sandbox: str, key_origin: str) -> None:
    """Raise ProviderError unless the answer is a success."""
    status = response.status
    if 200 <= status < 300:
        return
    message = message_of(response)
    location = response.get("location")
    if 300 <= status < 400:
        # Following it could send the key anywhere.
        where = f" and points to {printable(location.partition('?')[0])}" if location else ""
        raise _failed(api, f"it answered {status}{where}; redirects are not followed", response)
    code = _CODES.get(status)
    if code is None or (code == "sandbox-unknown" and not sandbox):
        raise _failed(api, f"it answered {status}: {message}", response)
    raise ProviderError(
        code, status=status, headers=response.headers, api=api, sandbox=sandbox, message=message, origin=key_origin
    )


def access_of(response: Response, *, api: object, asked: float, until: float) -> Access:
    """Return the access in an answer to ``connect``. Raises ProviderError."""
    found = _json_of(response, api)
    if not isinstance(found, dict):
        raise _failed(api, "its answer is not a JSON object", response)
    domain, envd, traffic = (_text(found, name, api) for name in ("domain", "envdAccessToken", "trafficAccessToken"))
    if domain is not None and not is_domain(domain):
        raise _failed(api, "its answer has an invalid domain", response)
    for token in (envd, traffic):
        if token is not None and not is_token(token):
            raise _failed(api, "its answer has an invalid token", response)
    return Access(domain, envd, traffic, asked, until)


def details_of(response: Response, *, api: object, now: float) -> Details:
    """Return the sandbox that an answer describes. Raises ProviderError. ``now`` are seconds since the epoch."""
    return _details(_json_of(response, api), _clock(response, now), api)


def page_of(response: Response, *, api: object, now: float) -> tuple[list[Details], str | None]:
    """Return the sandboxes of one page of a list, and the token of the next page, if there is one."""
    found = _json_of(response, api)
    if not isinstance(found, list):
        raise _failed(api, "its answer is not a JSON array", response)
    clock = _clock(response, now)
    return [_details(each, clock, api) for each in found], response.get("x-next-token") or None


def is_domain(text: str) -> bool:
    """Return whether names below ``text`` can be part of a URL: it is a domain, which may have a port."""
    found = _DOMAIN.fullmatch(text)
    return found is not None and len(text) <= _DOMAIN_LIMIT and (found[1] is None or 0 < int(found[1]) < 65536)


def is_token(text: str) -> bool:
    """Return whether a text can be a key or token: one line of printable ASCII without spaces."""
    return 0 < len(text) <= TOKEN_LIMIT and all("!" <= c <= "~" for c in text)


def _details(found: object, clock: float, api: object) -> Details:
    if not isinstance(found, dict):
        raise _failed(api, "its answer is not a JSON object")
    id, state = _text(found, "sandboxID", api), _text(found, "state", api)
    name = _text(found, "alias", api) or _text(found, "templateID", api) or ""
    ends = _text(found, "endAt", api)
    if id is None or state is None or ends is None:
        raise _failed(api, "its answer lacks the sandbox's id, state or end")
    try:
        end = datetime.fromisoformat(ends)
    except ValueError as exc:
        raise _failed(api, "its answer has an invalid time") from exc
    end = end if end.tzinfo else end.replace(tzinfo=UTC)
    return Details(printable(id), printable(name), printable(state), end.timestamp() - clock)


def _clock(response: Response, now: float) -> float:
    """Return the API's time, as this machine's clock may be wrong; ``now`` without a Date header.

    Dates in HTTP have whole seconds. The end of the second counts, so that a sandbox never has less time than shown.
    """
    try:
        return parsedate_to_datetime(response.get("date") or "").timestamp() + 1
    except (ValueError, OverflowError):
        return now


def _json_of(response: Response, api: object) -> object:
    try:
        found: object = json.loads(response.body)
    except (ValueError, RecursionError) as exc:
        raise _failed(api, "its answer is not JSON", response) from exc
    return found


def _text(found: dict[str, object], name: str, api: object) -> str | None:
    """Return the string ``name``; None if it is missing, null or empty."""
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise _failed(api, f"{name} in its answer is not a string")
    return value or None


def _failed(api: object, problem: str, response: Response | None = None) -> ProviderError:
    status, headers = (response.status, response.headers) if response is not None else (0, ())
    return ProviderError("api-failed", status=status, headers=headers, api=api, problem=problem)
