"""The sandbox that a host's name stands for: its provider is asked for access before dialling.

The access is kept (`tunnel.provider.cache`) for later programs, as long as the sandbox lives. If the edge refuses it,
the provider is asked once more. If the provider cannot be reached, the sandbox is dialled anyway, but not if the
provider refuses.
"""

from __future__ import annotations

import re
import socket
import time

from tunnel.client.address import USUAL_DOMAIN, Address, bracketed, check_host, parse_url, split_authority
from tunnel.errors import ConnectionLost, ProviderError, UpgradeRefused, UsageError, keep_secret
from tunnel.provider.answers import Access, is_domain
from tunnel.provider.api import Api
from tunnel.provider.cache import Cache, cache_folder
from tunnel.provider.keepalive import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tunnel.client.dial import Connection
    from tunnel.client.layers import Layers
    from tunnel.client.settings import Settings
    from tunnel.client.trace import Trace
    from tunnel.provider.answers import Details
    from tunnel.provider.sleep import Sleep

    Fields = Sequence[tuple[str, str]]

TRAFFIC_TOKEN = "e2b-traffic-access-token"  # noqa: S105  # the name of a header, not a secret
# Statuses of an edge for a sandbox that it does not know, that has other tokens, or that is gone.
STALE = (401, 403, 404, 409, 410, 502, 503)
ASK_LIMIT = 5.0  # seconds to ask for the state of a sandbox whose connection was lost
_PORTS = {"http": 80, "https": 443}


class ApiTLS:
    """How the API's certificate is checked, whatever the settings for the sandbox's edge are."""

    client_cert = client_key = None
    insecure = False

    def __init__(self, ca_file: str | None) -> None:
        self.ca_file = ca_file


class ProvidedSandbox:
    """A sandbox with its ``id`` and settings; its bridge or terminal service listens on ``port``.

    ``uses_domain``: the URL is made from the provider's domain, not from the user's template. ``notice`` gets lines for
    the user.
    """

    def __init__(
        self, id: str, port: int, api: Api, cache: Cache, *, domain: str, uses_domain: bool, timeout: int,
        keep_alive: str, wake: str,
    ) -> None:  # fmt: skip
        self.id = id
        self.port = port
        self.api = api
        self.cache = cache
        self.domain = domain
        self.uses_domain = uses_domain
        self.timeout = timeout
        self.keep_alive = keep_alive
        self.wake = wake
        self.notice: Callable[[str], object] = lambda _: None
        self._has_warned = False
        self.sleep: Sleep | None = None  # set during an outage of a tunnel to it

    def place(self, domain: str | None = None) -> str:
        """Return the host name for the port, below ``domain`` (None: that of the settings)."""
        return f"{self.port}-{self.id}.{domain or self.domain}"

    # ---- access

    def access(self, step: Callable[..., object]) -> tuple[Access | None, bool]:
        """Return access, and whether it is fresh from the provider; None if the provider cannot be reached.

        ``step`` is called as `Trace.step`. Raises ProviderError.
        """
        cached = self.cache.load(self.id)
        # Not in an outage: asking would extend the time of a sandbox that may not be in use.
        if cached is not None and (self.sleep is not None or cached.until - time.time() >= self.timeout / 2):
            step("sandbox", f"{self.id}: the access that {self.api.name} gave before is still valid")
            return cached, False
        try:
            return self.renew(step), True
        except ProviderError as exc:
            if exc.code != "api-failed":
                raise
            step("sandbox", f"{exc}; connecting anyway", code=exc.code)
            self._warn(f"{exc}; connecting anyway")
            return cached, True

    def _warn(self, text: str) -> None:
        """Warn that the provider cannot be reached: once, as many attempts may follow, and an outage has own words."""
        if not self._has_warned and self.sleep is None:
            self._has_warned = True
            self.notice(f"warning: {text}")

    def renew(self, step: Callable[..., object]) -> Access:
        """Ask the provider for access, which also wakes the sandbox and extends its time.

        Raises ProviderError; ``sandbox-paused`` if it is paused and must not be woken now.
        """
        if self.wake == NEVER or (self.sleep is not None and not self.sleep.may_wake):
            self.check_awake(self.api.details(self.id))
        try:
            access = self.api.connect(self.id, self.timeout, slow=self._tell_slow)
        except ProviderError as exc:
            if exc.code in ("sandbox-unknown", "api-key"):
                self.cache.forget(self.id)
            raise
        self.cache.store(self.id, access)
        step("sandbox", f"{self.id}: {self.api.name} gives access for {self.timeout} s")
        return access

    def check_awake(self, details: Details) -> None:
        """Raise ProviderError if the sandbox is paused."""
        if details.state == "paused":
            raise ProviderError("sandbox-paused", api=self.api.name, sandbox=self.id)

    def _tell_slow(self) -> None:
        self.notice(f"waiting for sandbox {self.id} to wake up")

    # ---- dialling its bridge

    def dial(self, settings: Settings, trace: Trace, attempt: Callable[[Fields], Connection]) -> Connection:
        """Call ``attempt`` with the headers for access, and return its connection; set the address in ``settings``.

        Raises ProviderError, and the errors of ``attempt``.
        """
        sleep = self.sleep
        if sleep is None:
            return self._dial(settings, trace, attempt)
        if sleep.asks:
            self.check_sleep(sleep, trace.step)
        # After a network failure, asking the provider would not help.
        sleep.asks = False
        try:
            connection = self._dial(settings, trace, attempt)
        except ProviderError as exc:
            sleep.asks = True
            if exc.code == "sandbox-unknown":
                raise ConnectionLost("session-gone", reason=exc) from exc
            raise
        except UpgradeRefused:
            sleep.asks = True
            raise
        sleep.asks = True
        return connection

    def check_sleep(self, sleep: Sleep, step: Callable[..., object]) -> None:
        """If the sandbox is paused, wake it if there is a reason to, else raise ProviderError.

        Raises ConnectionLost if the sandbox is gone. Does nothing if the provider cannot be reached.
        """
        try:
            details = self.api.details(self.id, limit=ASK_LIMIT)
        except ProviderError as exc:
            if exc.code == "sandbox-unknown":
                raise ConnectionLost("session-gone", reason=exc) from exc
            step("sandbox", str(exc))
            return
        step("sandbox", f"{self.id} is {details.state}")
        if not sleep.may_wake:
            self.check_awake(details)
        elif details.state == "paused":
            self.renew(step)

    def _dial(self, settings: Settings, trace: Trace, attempt: Callable[[Fields], Connection]) -> Connection:
        access, is_fresh = self.access(trace.step)
        try:
            return attempt(self._apply(access, settings))
        except UpgradeRefused as exc:
            if is_fresh or not is_stale(exc.status, exc.headers):
                raise
            trace.step("sandbox", f"{self.id}: {exc}; asking {self.api.name} again")
            try:
                access = self.renew(trace.step)
            except ProviderError as error:
                if error.code != "api-failed" or self.sleep is not None:
                    raise
                trace.step("sandbox", str(error), code=error.code)
                self._warn(str(error))
                raise exc from error  # the edge's answer is final, unless one waits for the sandbox
        return attempt(self._apply(access, settings))

    def _apply(self, access: Access | None, settings: Settings) -> list[tuple[str, str]]:
        if access is None:
            return []
        if self.uses_domain and access.domain:
            settings.address = parse_url(f"wss://{self.place(access.domain)}")
        if access.traffic_token is None or any(name.lower() == TRAFFIC_TOKEN for name, _ in settings.headers):
            return []
        return [(TRAFFIC_TOKEN, access.traffic_token)]


def is_stale(status: int, headers: Fields) -> bool:
    """Return whether an edge refused outdated access; a refusal by a bridge has its own header."""
    return status in STALE and not any(name.lower() == "wstunnel-error" for name, _ in headers)


# ---- from the settings


def find_sandbox(layers: Layers, host: str, template: str | None) -> ProvidedSandbox | None:
    """Return the sandbox that ``host`` names; ``template`` is its URL template (None: the default). Raises UsageError.

    None for a URL without {host}, as its sandbox is not known; a UsageError if a provider is set explicitly.
    """
    if layers.is_literal or "://" in host or (template is not None and "{host}" not in template):
        if layers.is_given("provider"):
            problem = "a URL does not name the sandbox that the provider is asked about: give its ID as HOST"
            raise UsageError(problem, setting="provider")
        return None
    check_host(layers.host, "ws:// or wss://" if not layers.prefix else "http:// or https://")
    api, domain = find_api(layers)
    layers.asks_provider = True
    return ProvidedSandbox(
        layers.host,
        int(layers.number(f"{layers.prefix}port")),
        api,
        Cache(cache_folder(), api.name, api.key),
        domain=domain,
        uses_domain=template is None,
        timeout=int(layers.number("sandbox-timeout")),
        keep_alive=layers.text("keep-alive") or NEVER,
        wake=layers.text("wake") or NEVER,
    )


def find_api(layers: Layers) -> tuple[Api, str]:
    """Return the provider's API according to the settings, and its domain. Raises UsageError."""
    domain = layers.text("api-domain") or USUAL_DOMAIN
    if not is_domain(domain):
        problem = f"{domain!r} is not a domain such as {USUAL_DOMAIN}"
        raise UsageError(problem, setting="api_domain", origin=layers.origin("api-domain"))
    url = layers.text("api-url") or f"https://api.{domain}"
    key, key_origin = layers.api_key()
    keep_secret(key)
    try:
        address, path = _parse(url)
    except ValueError as exc:
        name = "api-domain" if layers.text("api-url") is None else "api-url"
        raise UsageError(str(exc), setting=name.replace("-", "_"), origin=layers.origin(name)) from exc
    if not address.secure and not re.fullmatch(r"localhost|.*\.localhost|127\.[\d.]+|::1", address.host):
        layers.warnings.append(f"the API key from {key_origin} is sent unencrypted: {url}")
    opening = _Opening(
        address, layers.text("ca-file"), layers.text("proxy"), layers.number("connect-timeout"), layers.origins
    )
    scheme, standard = ("https", 443) if address.secure else ("http", 80)
    host = bracketed(address.plain_host) if address.port == standard else address.authority
    return Api(f"{scheme}://{host}{path}", host, path, key, key_origin, opening.open), domain


def _parse(url: str) -> tuple[Address, str]:
    """Return the address of an API, and the prefix of its paths. Raises ValueError."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        raise ValueError("the URL of an API must begin with https:// or http://")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise ValueError("the URL of an API must not hold a user name or password")
    if not all("!" <= c <= "~" and c not in "?#" for c in authority + path):
        raise ValueError("the URL of an API cannot have a query, a fragment or spaces")
    host, port = split_authority(authority)
    # As a WebSocket URL, by which the proxy is chosen.
    address = Address("wss" if scheme == "https" else "ws", host, port or _PORTS[scheme], "/")
    return address, (slash + path).rstrip("/")


class _Opening:
    """Opens connections to an API, with the same proxy and CAs as for tunnels."""

    def __init__(
        self, address: Address, ca_file: str | None, proxy: str | None, seconds: float, origins: dict[str, str]
    ) -> None:
        self._address = address
        self._tls = ApiTLS(ca_file)
        self._proxy = proxy
        self._seconds = seconds
        self._origins = origins

    def open(self) -> socket.socket:
        """Return a connection within the time limit for one. Raises DialError and UsageError."""
        from tunnel.client.dial import pass_proxy
        from tunnel.client.proxy import choose_proxy
        from tunnel.client.tcp import Limit, connect_tcp, standard_socket
        from tunnel.client.trace import Trace

        limit, trace, address = Limit(self._seconds), Trace(), self._address
        proxy = choose_proxy(self._proxy, address)
        hop = proxy or address
        plain = connect_tcp(hop.host, hop.port, 0, limit, trace)
        sock: socket.socket = standard_socket(plain)
        try:
            if proxy is not None:
                pass_proxy(sock, proxy, address, 0, limit)
            if address.secure:
                from tunnel.client import tls

                alarm = tls.Alarm()
                try:
                    sock = tls.start_tls(sock, tls.tls_context(self._tls), address, limit, trace, alarm)
                finally:
                    alarm.cancel()
            sock.settimeout(None)  # the caller has a limit for the whole exchange, and closes the socket then
        except BaseException:
            sock.close()
            raise
        return sock
