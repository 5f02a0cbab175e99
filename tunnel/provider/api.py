"""The calls of E2B's API that a client of sandboxes needs.

    POST /sandboxes/{id}/connect   access; wakes a paused sandbox, and extends its time, which is never made shorter
    GET /sandboxes/{id}            its state, and when its time is over
    GET /v2/sandboxes              the account's sandboxes, page by page

The key is sent in the header X-API-Key, to the API only: redirects are not followed.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from socket import socket
from urllib.parse import quote, urlencode

from tunnel._version import __version__
from tunnel.errors import ProviderError, TunnelError
from tunnel.protocol.upgrade import Response
from tunnel.provider.answers import Access, Details, access_of, check_status, details_of, page_of
from tunnel.provider.exchange import Exchange

ANSWER_LIMIT = 60.0  # seconds for a call that may wake a sandbox, as in E2B's SDKs
STATE_LIMIT = 10.0  # seconds for any other call
LIST_LIMIT = 60.0  # seconds for all pages of a list
PAGE = 100  # sandboxes
MAX_PAGES = 100
STATES = ("running", "paused")


class Api:
    """One API; errors call it ``name``. ``host`` is its Host field, ``path`` the prefix of all paths.

    ``open_socket`` opens a connection to it. ``key_origin`` says where ``key`` comes from, for errors.
    """

    def __init__(
        self, name: str, host: str, path: str, key: str, key_origin: str, open_socket: Callable[[], socket]
    ) -> None:
        self.name = name
        self.key = key
        self._host = host
        self._path = path
        self._key_origin = key_origin
        self._open_socket = open_socket

    def connect(
        self,
        sandbox: str,
        timeout: int,
        *,
        limit: float = ANSWER_LIMIT,
        slow: Callable[[], object] | None = None,
    ) -> Access:
        """Wake a sandbox if it is paused, let it live for at least ``timeout`` seconds, and return access to it.

        ``slow`` is called if that takes long. Raises ProviderError.
        """
        asked = time.time()
        body = json.dumps({"timeout": timeout}).encode()
        answer = self._call("POST", f"/sandboxes/{quote(sandbox, safe='')}/connect", sandbox, body, limit, slow)
        return access_of(answer, api=self.name, asked=asked, until=asked + timeout)

    def details(self, sandbox: str, *, limit: float = STATE_LIMIT) -> Details:
        """Return a sandbox's state. Raises ProviderError."""
        answer = self._call("GET", f"/sandboxes/{quote(sandbox, safe='')}", sandbox, limit=limit)
        return details_of(answer, api=self.name, now=time.time())

    def list(self, states: Sequence[str] = STATES, *, limit: float = LIST_LIMIT) -> list[Details]:
        """Return the sandboxes in one of these states, the youngest first, within ``limit`` seconds.

        Raises ProviderError.
        """
        end = time.monotonic() + limit
        # By ID, as pages overlap if a sandbox is created meanwhile.
        found: dict[str, Details] = {}
        token: str | None = None
        for _ in range(MAX_PAGES):
            query = {"state": ",".join(states), "limit": str(PAGE)} | ({"nextToken": token} if token else {})
            left = end - time.monotonic()
            if left <= 0.0:
                raise self._unreachable(f"it did not send the whole list within {limit:g} s")
            answer = self._call("GET", f"/v2/sandboxes?{urlencode(query, safe=',')}", limit=min(STATE_LIMIT, left))
            page, token = page_of(answer, api=self.name, now=time.time())
            has_news = any(each.id not in found for each in page)
            found |= {each.id: each for each in page}
            if token is None or (page and not has_news):
                break
        return [*found.values()]

    def _call(
        self,
        method: str,
        path: str,
        sandbox: str = "",
        body: bytes | None = None,
        limit: float = STATE_LIMIT,
        slow: Callable[[], object] | None = None,
    ) -> Response:
        headers = {
            "Host": self._host,
            "X-API-Key": self.key,
            "Accept": "application/json",
            "User-Agent": f"wstunnel-py/{__version__}",
            "Connection": "close",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        exchange = Exchange(self._open_socket, method, self._path + path, headers, body)
        try:
            answer = exchange.run(limit, slow)
        except TimeoutError as exc:
            raise self._unreachable(f"it did not answer within {limit:.2g} s") from exc
        except TunnelError as exc:
            raise self._unreachable(str(exc)) from exc
        except http.client.HTTPException as exc:
            raise self._unreachable(f"it did not answer in HTTP: {str(exc) or type(exc).__name__}") from exc
        except (OSError, RuntimeError) as exc:  # RuntimeError: no thread can be started
            raise self._unreachable(getattr(exc, "strerror", None) or str(exc) or type(exc).__name__) from exc
        check_status(answer, api=self.name, sandbox=sandbox, key_origin=self._key_origin)
        return answer

    def _unreachable(self, problem: str) -> ProviderError:
        return ProviderError("api-failed", api=self.name, problem=problem)
