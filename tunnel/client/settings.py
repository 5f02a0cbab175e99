"""The settings of one run of the client, resolved from the layers of `tunnel.client.layers`."""

from __future__ import annotations

import _socket  # not `socket`, for the reason that `tunnel.client.tcp` gives
import os

from tunnel.client.address import DEFAULT_TEMPLATE, fill_template, parse_url
from tunnel.client.layers import bearer_field, layers_for
from tunnel.client.options import OPTIONS
from tunnel.errors import UsageError, spelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from tunnel.client.address import Address
    from tunnel.client.config import Values
    from tunnel.client.layers import Layers
    from tunnel.client.sandbox import ProvidedSandbox

    class TLSSettings(Protocol):
        """The settings for TLS: paths of PEM files, and whether to skip the check of the certificate."""

        @property
        def ca_file(self) -> str | None: ...
        @property
        def client_cert(self) -> str | None: ...
        @property
        def client_key(self) -> str | None: ...
        @property
        def insecure(self) -> bool: ...


class Settings:
    """The settings of one connection; times are in seconds, ``None`` means not given.

    ``headers`` holds everything that is added to the upgrade request, the bearer token included: never print it.
    ``warnings`` are lines for the user, ``notes`` lines for ``-v``. ``family`` is 0, or the required socket family.
    ``sandbox`` is None if there is no provider to ask. ``origins`` has where settings come from, except those from the
    command line; ``layers`` are their layers.
    """

    __slots__ = (
        "address", "ca_file", "client_cert", "client_key", "connect_timeout", "family", "headers", "insecure",
        "layers", "log_file", "max_message", "notes", "origins", "ping_interval", "ping_timeout", "proxy", "quiet",
        "reconnect_for", "resume", "sandbox", "stdio_threads", "verbose", "wait", "warnings",
    )  # fmt: skip

    def __init__(
        self,
        address: Address,
        headers: list[tuple[str, str]],
        layers: Layers,
        sandbox: ProvidedSandbox | None = None,
    ) -> None:
        self.address = address
        self.headers = headers
        self.layers = layers
        self.sandbox = sandbox
        self.warnings = layers.warnings
        self.notes = layers.notes
        self.origins = layers.origins
        self.ca_file = layers.text("ca-file")
        self.client_cert = layers.text("client-cert")
        self.client_key = layers.text("client-key")
        self.proxy = layers.text("proxy")
        self.log_file = layers.text("log-file")
        self.verbose = layers.flag("verbose")
        self.quiet = layers.flag("quiet")
        self.insecure = layers.flag("insecure")
        self.resume = not layers.flag("no-resume")
        self.reconnect_for = layers.number("reconnect-for")
        self.wait = layers.number("wait")
        self.max_message = int(layers.number("max-message"))
        self.stdio_threads = layers.flag("stdio-threads")
        self.connect_timeout = layers.number("connect-timeout")
        self.ping_interval = layers.number("ping-interval")
        self.ping_timeout = layers.number("ping-timeout")
        only4, only6 = layers.flag("ipv4"), layers.flag("ipv6")
        if only4 and only6:
            raise UsageError(f"{spelled('ipv4')} and {spelled('ipv6')} cannot be used together")
        self.family = _socket.AF_INET if only4 else _socket.AF_INET6 if only6 else 0
        check_client_key(self)


def check_client_key(settings: TLSSettings) -> None:
    """Raise UsageError for a client key without a certificate."""
    if settings.client_key and not settings.client_cert:
        raise UsageError(f"{spelled('client_key')} needs {spelled('client_cert')}")


def resolve(host: str, given: Values, environ: Mapping[str, str] = os.environ, *, has_token: bool = False) -> Settings:
    """Return the settings for ``host``: a ws(s):// URL, a name from the config file, or the text for {host}.

    ``given`` are the options of the command line; ``has_token``: a header among them carries the token. Raises
    UsageError.
    """
    layers = layers_for(host, given, environ, OPTIONS)
    if has_token:
        layers.drop_token()
    template = layers.text("url")
    sandbox = None
    if layers.provider(by_default=layers.is_sandbox(host)):
        from tunnel.client.sandbox import find_sandbox

        sandbox = find_sandbox(layers, host, template)
    if "://" in host and not layers.is_given("url"):
        address = parse_url(host)
    else:
        if template is None and sandbox is not None:
            template = f"wss://{sandbox.place()}"
        try:
            address = fill_template(template or DEFAULT_TEMPLATE, layers.host, int(layers.number("port")))
        except UsageError as exc:
            if exc.code != "host":
                exc.origin = layers.origin("url")
            raise
    headers = layers.headers()
    token = layers.bearer()
    if token is not None:
        if any(field.lower() == "authorization" for field, _ in headers):
            raise UsageError("give either a token or an Authorization header, not both")
        headers.append(bearer_field(token))
    if headers or "?" in address.resource:
        from tunnel.client.credentials import keep_header, keep_query

        keep_query(address.resource)
        for field, value in headers:
            keep_header(field, value, str(address))
    layers.warn_of_tls()
    return Settings(address, headers, layers, sandbox)
