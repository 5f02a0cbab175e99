"""What the command line adds to the library's errors: what a user can do about each, in terms of options.

An error says what happened; programs read its ``code``. `told` makes its line on the command line, `advice` the text
that the doctor shows below a finding. Both begin with what follows from the settings, such as where the refused
credentials come from. The tables hold what applies in general.
"""

from __future__ import annotations

import errno
import os
import re
import shlex

from tunnel.client.address import DEFAULT_TEMPLATE, USUAL_DOMAIN
from tunnel.errors import (
    DialError,
    ProviderError,
    TerminalError,
    TunnelError,
    UpgradeRefused,
    UsageError,
    spelled,
)
from tunnel.net.error_texts import error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.layers import Layers

# Code of an error → what is appended to its text. A setting in braces becomes its name in the command that runs.
HINTS = {
    "exists": "--force replaces it",
    "sandbox-unknown": "wstunnel-py sandboxes lists yours",
    "sandbox-busy": "try again in a while",
    "sandbox-paused": "{wake} on-input wakes it",
    "api-quota": "wstunnel-py sandboxes lists those that run",
    "api-usage": "if the time is the problem, see {sandbox_timeout}",
    "given-up": "connect again for a new one; {reconnect_for} sets how long the client tries",
    "going-away": "connect again for a new one once the bridge is back",
    "late-session": "{no_resume} avoids this",
    "no-keys": "put your public key into it, a line such as 'ssh-ed25519 AAAAC3Nz… you@laptop'; "
    "on your machine it is in ~/.ssh/id_ed25519.pub",
    "not-ready": "it may still be starting: try again in a while",
    "pty-gone": "open a new one",
    "pty-refused": "with valid credentials {pty_attach} can still join it",
    "pty-unauthenticated": "the service requires a token: {pty_token_file} FILE",
    "pty-lost": "once it can be reached again, pty ps lists what still runs, and {pty_attach} joins it",
    "session-error": "connect again for a new one",
    "session-expired": "connect again for a new one; serve --resume-for sets how long the bridge keeps one",
    "session-gone": "connect again for a new one",
    "session-refused": "connect again with valid credentials for a new one",
    "time-limit": "connect again for a new one",
    "tls-client-cert": "see {client_cert}",
    "tls-handshake": "see {client_cert}",
    "too-big": "set a smaller {max_message}",
}

# Code of an error, or of another finding of the doctor → what to do about it.
ADVICE = {
    "dns": "Is the name right? The name of a sandbox that has ended no longer resolves. Is this machine online?",
    "tcp-refused": "Is the bridge running there (wstunnel-py serve), and is the port right?",
    "tcp": "Can this machine reach that address? It may need a proxy: --proxy.",
    "tcp-timeout": "A firewall may drop the packets. This machine may need a proxy: --proxy.",
    "proxy-unreachable": "The bridge was not tried. Is the proxy running, and are its name and port right?",
    "proxy-auth": "Put user and password into the proxy's URL, in the environment or the config file.",
    "proxy-refused": "The proxy works, but does not allow this name or port; ask whoever runs it.",
    "proxy-target": "The proxy works, but cannot reach that name or port. Are they right? Is the bridge running there?",
    "proxy-protocol": "Is that address a proxy of this kind? http://, socks5:// and socks5h:// are supported.",
    "sandbox-unknown": "It may have ended, or be another account's. wstunnel-py sandboxes lists yours.",
    "sandbox-paused": "Connecting wakes it, unless --wake is never.",
    "sandbox-busy": "Try again in a while; connect --wait does so by itself.",
    "api-key": "Create a key in the provider's dashboard, under API keys.",
    "api-quota": "Too many sandboxes run, or too many calls were made. wstunnel-py sandboxes lists those that run.",
    "tls-untrusted": "If your own CA has issued it: --ca-file. A proxy that inspects TLS has its own CA.",
    "tls-wrong-name": "Use a name that the certificate has, or ask whoever runs the server to get one for this name. "
    "Do not switch the check off: somebody else may be answering.",
    "tls-expired": "The certificate must be renewed at the edge or the bridge, unless this machine's clock is wrong.",
    "tls-refused": "Show a client certificate that the server's CA has issued: --client-cert, --client-key. "
    "wstunnel-py certs show describes yours.",
    "tls-handshake": "Does the server require a client certificate? --client-cert, --client-key.",
    "tls": "Does that port speak TLS? A URL without TLS begins with ws://.",
    "not-http": "Something other than a web server is listening there. Is the port right?",
    "not-websocket": "A web server answers, but it is not a bridge. Are the port and the path right?",
    "redirect": "Redirects are not followed. If you trust that address, use it in the URL.",
    "not-found": "Are the host and the path right? The sandbox may have ended.",
    "bad-gateway": "The edge works, but nothing answers behind it: is the sandbox running, and the bridge in it?",
    "overloaded": "Try again in a while.",
    "not-ready": "It may still be starting. Try again in a while; connect --wait does so by itself.",
    "no-answer": "The server did not complete its answer. Try again, or ask whoever runs it.",
    "answer-timeout": "The hop accepted the connection, but sent nothing. Try again, perhaps with a longer "
    "--connect-timeout.",
    "no-speed-test": "Only wstunnel-py serve has one. With another bridge, measure with scp.",
    "hung-up": "If that port speaks TLS, the URL must begin with wss://.",
    # Findings that are not errors.
    "api-failed": "Without its answer, a paused sandbox is not woken, and a private one gets the last token that is "
    "known, if any.",
    "expires": "Renew its certificate at the edge or the bridge before it expires; after that nobody can connect.",
    "insecure": "Anyone on the network path can pose as the server, and read and change what is not encrypted inside.",
    "plain": "It ends when its connection is lost. With wstunnel-py serve as the bridge it would survive that, unless "
    "--resume-for is 0 there or --resume-memory is used up.",
    "no-banner": "The tunnel opens, but no SSH server answers behind it: is sshd running, and is the bridge's --target "
    "right?",
    "buffers": "Switch buffering off there (in nginx: proxy_buffering), or let the edge pass WebSockets on unchanged. "
    "SSH waits for small messages, so it cannot work through a buffer. sshd is not the cause.",
}
ADVICE["tls-client-cert"] = ADVICE["tls-refused"]

# Errors that a name from the default template may explain.
_OF_NAMES = ("dns", "tcp", "tcp-refused", "tcp-timeout", "not-found", "bad-gateway", "not-websocket", "redirect")
# Errors of a plain URL that a missing port may explain.
_PORTS_OF_PLAIN = ("tcp-refused", "tcp-timeout", "not-websocket")
_OF_PROXIES = ("proxy-unreachable", "proxy-auth", "proxy-refused", "proxy-target", "proxy-protocol")
_TRAFFIC_TOKEN = "e2b-traffic-access-token"  # noqa: S105  # the name of a header, not a secret
_OF_TARGETS = ("target-unreachable", "target-timeout")  # what a bridge says
_OF_CERTIFICATES = ("tls-client-cert", "tls-refused", "tls-handshake")


class _Names(dict[str, str]):
    """The names of settings in the command that runs."""

    def __missing__(self, setting: str) -> str:
        return spelled(setting)


def told(error: TunnelError, layers: Layers | None = None, host: str = "", *, has_options: bool = False) -> str:
    """Return the line for an error on the command line, with the next step.

    ``layers`` are those of the settings. ``host`` is the host that doctor can check; it needs the same options if the
    command line ``has_options``.
    """
    steps = _own_steps(error, layers)
    if error.code == "listen":
        steps += _of_listening(error)
    if error.code in ("not-ready", "sandbox-busy") and layers is not None and not layers.prefix:
        what = "it may still be starting: " if error.code == "not-ready" else ""
        steps.append(f"{what}see {spelled('wait')}")
    if error.code in HINTS and (not steps or error.code.endswith("-refused")) and not _is_of_permission(error):
        steps.append(HINTS[error.code].format_map(_Names()))
    is_of_way = isinstance(error, DialError) and not isinstance(error, ProviderError)
    if host and is_of_way and (not steps or (error.code in _OF_NAMES and _verdict(error) not in _OF_TARGETS)):
        options = ", with the same options" if has_options else ""
        steps.append(f"for details: wstunnel-py doctor {shlex.quote(host)}{options}")
    return "; ".join([str(error), *steps])


def advice(code: str, error: TunnelError | None, layers: Layers | None) -> str:
    """Return the doctor's advice for a finding, "" if there is none."""
    steps = _own_steps(error, layers) if error is not None else []
    if error is not None and str(error.fields.get("hop", "")).startswith("proxy "):
        code = "proxy-unreachable"
    if _verdict(error) in _OF_TARGETS:
        code = ""  # the general advice is for an edge's answer
    if code in _OF_CERTIFICATES and layers is not None and layers.text("client-cert") is None:
        steps = []  # the advice names the option already
    sentences = [f"{step[0].upper()}{step[1:].removesuffix('?')}{'?' if step.endswith('?') else '.'}" for step in steps]
    return " ".join([*([ADVICE[code]] if code in ADVICE else []), *sentences])


def _own_steps(error: TunnelError, layers: Layers | None) -> list[str]:
    """Return what a user with these settings can do about an error."""
    if error.code in ("session-refused", "pty-refused") and isinstance(error.__cause__, TunnelError):
        error = error.__cause__
    if layers is None or isinstance(error, UsageError):
        return []
    verdict = _verdict(error)
    if not layers.prefix and isinstance(error, UpgradeRefused) and "wstunnel-service" in dict(error.headers):
        return ["that is a terminal service; a bridge usually has port 8081"]
    if isinstance(error, UpgradeRefused) and error.status in (401, 403):
        return _of_credentials(layers, error.status, verdict)
    if _is_of_permission(error):
        return []
    if error.code == "pty-unauthenticated":
        return _of_credentials(layers, 401, "unauthorized")
    if error.code in _OF_PROXIES:
        return _of_proxy(error, layers)
    if error.code in _OF_CERTIFICATES:
        return _of_certificate(layers)
    if layers.prefix and verdict:
        return [f"that is a bridge; a terminal service usually has port 49983: serve {spelled('pty')}"]
    if verdict in _OF_TARGETS:
        return [f"start the SSH server there, or give the bridge another target: serve {spelled('target')}"]
    steps = []
    if layers.prefix and error.code == "tcp-refused":
        steps.append(f"start the terminal service there: wstunnel-py serve {spelled('pty')} {error.fields['address']}")
    if error.code in (*_OF_NAMES, "sandbox-unknown"):
        steps += _of_missing_port(error, layers)
        steps += _of_misspelt_host(layers)
        if layers.is_default_url and error.code in _OF_NAMES:
            steps.append(_of_default_url(layers))
    return steps


def _verdict(error: TunnelError | None) -> str | None:
    """Return the bridge's ``Wstunnel-Error``; None if it is not a bridge that has refused."""
    return dict(error.headers).get("wstunnel-error") if isinstance(error, UpgradeRefused) else None


def _is_of_permission(error: TunnelError) -> bool:
    """Return whether a terminal service refuses the request, such as its Host header, not the credentials."""
    return isinstance(error, TerminalError) and error.connect_code == "permission_denied"


def _of_listening(error: TunnelError) -> list[str]:
    """Return the step for an address that cannot be listened on."""
    setting, reason = str(error.fields.get("setting", "")), error.fields["reason"]
    if reason == error_text(errno.EADDRINUSE):
        if setting == "listen":
            return [
                f"is a bridge running already? Stop it, or choose another address, or none ({spelled(setting)} none)"
            ]
        what = spelled(setting) if setting in ("pty", "LISTEN") else "address"
        return [f"another program listens there: stop it, or choose another {what}"]
    if reason == error_text(errno.EACCES) and not str(error.fields["place"]).startswith("unix:"):
        if os.name != "posix":
            return ["Windows or another program has reserved this port: choose another one"]
        return ["ports below 1024 are for root: choose a higher one"]
    return []


def _of_missing_port(error: TunnelError, layers: Layers) -> list[str]:
    """Return the step for a URL without a port, whose default port is rarely the one of ``serve``."""
    url = layers.host if "://" in layers.host else layers.text(f"{layers.prefix}url") or ""
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    tried = {"ws": 80, "http": 80, "wss": 443, "https": 443}.get(scheme.lower())
    is_plain = tried == 80
    if tried is None or error.code not in (_PORTS_OF_PLAIN if is_plain else ("tcp-refused",)):
        return []
    if re.search(r":[^\]:]*$", authority):
        return []
    usual = f"serve {spelled('pty')} usually listens on 49983" if layers.prefix else "serve listens on 8081 by default"
    return [f"the URL has no port, so {tried} was tried; {usual}"]


def _of_misspelt_host(layers: Layers) -> list[str]:
    """Return the step for a host that is not in the config file, but is almost the name of one that is."""
    if not layers.host or not layers.other_hosts:
        return []
    from tunnel.cli.misspelt import nearest

    near = nearest(layers.host.lower(), layers.other_hosts)
    return [f"did you mean {near}, a host of {layers.config_path}?"] if near else []


def _of_credentials(layers: Layers, status: int, verdict: str | None) -> list[str]:
    """Return the steps for a 401 or 403; ``verdict`` is the bridge's ``Wstunnel-Error``, None if an edge answered."""
    if verdict == "origin":
        return ["send no Origin header, or allow it at the bridge: serve --allow-origin"]
    from tunnel.client.layers import token_variable

    steps = []
    token_option = f"{layers.prefix.replace('-', '_')}token_file"
    sent = layers.credentials()
    if sent:
        steps.append(f"it received {' and '.join(sent.values())}")
    withheld = layers.withheld if not sent else []
    wants_token = not withheld and not {"token", "authorization"} & sent.keys()
    if withheld:
        names = dict.fromkeys(token_option if name == "token" else name.replace("-", "_") for name in withheld)
        steps.append(
            f"credentials from the environment or the config file's top level ({', '.join(withheld)}) are not sent to "
            f"a literal URL; give them with {' and '.join(map(spelled, names))}, or in this host's table in "
            f"{layers.config_path}"
        )
    if not verdict and not withheld and _TRAFFIC_TOKEN not in sent:
        table = "this host's table in " if layers.is_literal else ""
        ways = [*_of_provider(layers), f"-H '{_TRAFFIC_TOKEN}: …'", f"headers in {table}{layers.config_path}"]
        steps.append(f"a private sandbox requires its traffic token: {', or '.join(ways)}")
    if wants_token and (verdict or status == 401):
        who = "the service" if layers.prefix else "the bridge" if verdict else "a bridge"
        # The variable is not sent to a literal URL.
        way = "FILE" if layers.is_literal else f"or {token_variable(layers.prefix)}"
        steps.append(f"{who} requires a token: {spelled(token_option)} {way}")
    return steps


def _of_provider(layers: Layers) -> list[str]:
    """Return how to make the client ask the sandbox's provider for its token, unless it does already."""
    if layers.asks_provider:
        return []
    if layers.provider(by_default=True) is None:
        return ["E2B_API_KEY and the sandbox's ID as HOST fetch it" if layers.is_literal else "E2B_API_KEY fetches it"]
    return ["the sandbox's ID as HOST fetches it" if layers.is_literal else f"{spelled('provider')} e2b fetches it"]


def _of_proxy(error: TunnelError, layers: Layers) -> list[str]:
    proxy = error.fields.get("proxy")
    name = getattr(proxy, "variable", None) or layers.origin("proxy") or spelled("proxy")
    return [f"the proxy comes from {name}; {spelled('proxy')} none connects without one"]


def _of_certificate(layers: Layers) -> list[str]:
    path = layers.text("client-cert")
    if path is None:
        return [f"see {spelled('client_cert')}"]
    return [f"it was shown {path} ({layers.origin('client-cert') or spelled('client_cert')})"]


def _of_default_url(layers: Layers) -> str:
    from tunnel.pty.client.endpoint import TEMPLATE

    template, setting = (TEMPLATE, "pty_url") if layers.prefix else (DEFAULT_TEMPLATE, "url")
    domain = layers.text("api-domain")
    if domain is not None and layers.provider(by_default=True):
        template = template.replace(USUAL_DOMAIN, domain)
    why = f", as it is not in {layers.config_path}" if layers.other_hosts else ""
    return f"{layers.host!r} was put into the default URL, {template}{why}: see {spelled(setting)}"
