"""Access to the terminal service of a sandbox whose provider can be asked: its URL and tokens.

The provider's answer takes precedence over the settings. The token of E2B's daemon is sent only to the daemon's own
port, and not if the user has set a token. The provider is asked again after a refusal.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from tunnel.client.config import Config
from tunnel.client.layers import KEY_VARIABLE, Layers, read_environment, used_aliases
from tunnel.client.options import PTY, PTY_OPTIONS, parse_value
from tunnel.client.sandbox import TRAFFIC_TOKEN, ProvidedSandbox, find_sandbox, is_stale
from tunnel.errors import ProviderError
from tunnel.protocol.upgrade import Response
from tunnel.provider.answers import Access
from tunnel.provider.sleep import ALWAYS
from tunnel.pty.client import calls
from tunnel.pty.client.calls import Call
from tunnel.pty.client.endpoint import PORT, TOKEN_FIELD, Endpoint, locate

AGAIN = 5.0  # seconds during which the provider is not asked again


class ServiceAccess:
    """Access to the terminal service of ``sandbox``; ``place`` is from the settings. Any thread may use it.

    ``step`` is called as `Trace.step`.
    """

    def __init__(
        self, sandbox: ProvidedSandbox, place: Endpoint, step: Callable[..., object] = lambda *_, **__: None
    ) -> None:
        self.sandbox = sandbox
        self.step = step
        self._place = place
        self._lock = threading.Lock()
        self._endpoint: Endpoint | None = None
        self._asked_at = float("-inf")

    def first(self) -> Endpoint:
        """Ask the provider, and return the service's endpoint. Raises TunnelError."""
        with self._lock:
            if self._endpoint is None:
                access, is_fresh = self.sandbox.access(self.step)
                self._asked_at = time.monotonic() if is_fresh else float("-inf")
                self._endpoint = self._with(access)
            return self._endpoint

    def after(self, answer: Response, call: Call, used: Endpoint) -> Endpoint | None:
        """Return another endpoint to try after ``answer`` to ``call``, which was sent to ``used``; None without one.

        Raises TunnelError if the sandbox is paused and must not be woken, or if it is gone.
        """
        if not is_stale(answer.status, ()) or (answer.status != 401 and calls.is_of_service(answer)):
            return None
        with self._lock:
            if self._endpoint is not None and self._endpoint is not used:
                return self._endpoint  # another call has asked already
            try:
                is_new = time.monotonic() - self._asked_at < AGAIN
                if is_new or not call.wakes:
                    details = self.sandbox.api.details(self.sandbox.id)
                    if not call.wakes and self.sandbox.wake != ALWAYS:
                        self.sandbox.check_awake(details)
                    if is_new and details.state != "paused":
                        return None
                access = self.sandbox.renew(self.step)
            except ProviderError as exc:
                if exc.code != "api-failed":
                    raise
                return None  # the edge's answer is final
            self._asked_at = time.monotonic()
            self._endpoint = self._with(access)
            return self._endpoint

    def _with(self, access: Access | None) -> Endpoint:
        place, sandbox = self._place, self.sandbox
        if access is None:
            return place
        url = place.url
        if sandbox.uses_domain and access.domain:
            url = f"https://{sandbox.place(access.domain)}"
        headers = list(place.headers)
        given = {name.lower() for name, _ in headers}
        tokens = [(TRAFFIC_TOKEN, access.traffic_token)]
        if sandbox.port == PORT:
            tokens.append((TOKEN_FIELD, access.envd_token))
        headers += [(name, token) for name, token in tokens if token is not None and name.lower() not in given]
        return Endpoint(url, headers)


def locate_sandbox(
    host_or_url: str,
    *,
    token: str | None,
    headers: Mapping[str, str] | None,
    provider: str | None,
    ca_file: str | None,
    proxy: str | None,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Endpoint, ServiceAccess | None]:
    """Return the service as `locate` does, and access to it if it is in a sandbox whose provider can be asked.

    That is a sandbox named by its ID, if ``provider`` or the environment says so. Raises UsageError.
    """
    place = locate(host_or_url, token=token, headers=headers)
    given = {}
    for name, value in (("provider", provider), ("ca-file", ca_file), ("proxy", proxy)):
        if value is not None:
            given[name] = parse_value(_OPTIONS[name], value, name.replace("-", "_"))
    named: Sequence[str] = [name for name in _ENVIRONMENT if name not in given]
    environment = read_environment(environ, [_OPTIONS[name] for name in named])
    layers = Layers(Config("", {}, {}), given, {}, environment, PTY_OPTIONS, host=host_or_url, prefix=PTY)
    layers.key = environ.get(KEY_VARIABLE) or None
    layers.aliases = used_aliases(environ, PTY_OPTIONS)
    is_id = "://" not in host_or_url and "." not in host_or_url
    layers.is_literal = not is_id
    if layers.provider(by_default=is_id) is None:
        return place, None
    sandbox = find_sandbox(layers, host_or_url, None)
    if sandbox is None:
        return place, None
    return Endpoint(f"https://{sandbox.place()}", place.headers), ServiceAccess(sandbox, place)


_OPTIONS = {option.name: option for option in PTY_OPTIONS}
_ENVIRONMENT = ("provider", "api-key-file", "api-domain", "api-url", "sandbox-timeout", "wake")
