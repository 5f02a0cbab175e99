"""What the command line adds to the library's errors: what a user can do about each, in terms of options.

The errors themselves tell what happened, and a program reads their ``code``. `told` is the line of an error, `advice`
what the doctor shows below one. Both begin with what follows from the settings, as far as these are known: where the
credentials that were refused are from, for one. The tables have what is true in general.
"""

from __future__ import annotations

import shlex

from tunnel.client.address import DEFAULT_TEMPLATE
from tunnel.errors import DialError, TunnelError, UpgradeRefused, UsageError, spelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.layers import Layers

# Code of an error → what goes behind its text; a setting in braces becomes its name in the command that runs.
HINTS = {
    "exists": "--force replaces it",
    "given-up": "connect again for a new one; {reconnect_for} sets how long it is tried",
    "going-away": "connect again for a new one once the bridge is back",
    "late-session": "{no_resume} avoids this",
    "no-keys": "put your public key into it, a line such as 'ssh-ed25519 AAAAC3Nz… you@laptop': "
    "on your machine it is in ~/.ssh/id_ed25519.pub",
    "not-ready": "it may still be starting: try again in a while",
    "pty-gone": "open a new one",
    "pty-refused": "with valid credentials {pty_attach} may still join it",
    "pty-unauthenticated": "the service wants a token: {pty_token_file}, or WSTUNNEL_PY_PTY_TOKEN",
    "pty-lost": "once it can be reached again, pty ps tells what still runs, and {pty_attach} joins it",
    "session-error": "connect again for a new one",
    "session-expired": "connect again for a new one; serve --resume-for sets how long the bridge keeps one",
    "session-gone": "connect again for a new one",
    "session-refused": "connect again with valid credentials for a new one",
    "tls-client-cert": "see {client_cert}",
    "tls-handshake": "see {client_cert}",
    "too-big": "set a smaller {max_message}",
}

# Code of an error, or of something else that the doctor finds → what to do about it.
ADVICE = {
    "dns": "Is the name right? The name of a sandbox that has ended no longer resolves. Is this machine online?",
    "tcp-refused": "Does the bridge run there (wstunnel-py serve), and is the port right?",
    "tcp": "Can this machine reach that address? It may need a proxy: --proxy.",
    "tcp-timeout": "A firewall may drop the packets. This machine may need a proxy: --proxy.",
    "proxy-unreachable": "The bridge was not tried. Does the proxy run, and are its name and port right?",
    "proxy-auth": "Put user and password into the proxy's URL, in the environment or the config file.",
    "proxy-refused": "The proxy works, but does not allow this name or port; ask whoever runs it.",
    "proxy-target": "The proxy works, but cannot reach that name or port. Are they right? Does the bridge run there?",
    "proxy-protocol": "Is that address a proxy of this kind? http://, socks5:// and socks5h:// are supported.",
    "tls-untrusted": "If the certificate is your own: --ca-file. A proxy that inspects TLS has its own CA.",
    "tls-wrong-name": "Use a name that the certificate has, or let whoever runs the server get one for this name. No "
    "option makes up for that: somebody else may be answering.",
    "tls-expired": "The certificate must be renewed at the edge or the bridge, unless this machine's clock is wrong.",
    "tls-refused": "Show a certificate that the server's authority has issued to a client: --client-cert, "
    "--client-key. wstunnel-py certs show describes yours.",
    "tls-handshake": "Does the server want a client certificate? --client-cert, --client-key.",
    "tls": "Does that port speak TLS? A URL without TLS begins with ws://.",
    "not-http": "Something other than a web server listens there. Is the port right?",
    "not-websocket": "A web server answers, but it is no bridge. Are the port and the path right?",
    "redirect": "Redirects are not followed. If you trust that address, use it in the URL.",
    "not-found": "Are the host and the path right? The sandbox may have ended.",
    "bad-gateway": "The edge or the bridge works, but nothing answers behind it: the sandbox, its bridge, or sshd.",
    "overloaded": "Try again in a while.",
    "not-ready": "It may still be starting. Try again in a while; connect --wait does so by itself.",
    "no-answer": "The server never completes its answer. Try again, or ask whoever runs it.",
    "answer-timeout": "The hop accepted the connection, but sent nothing. Try again, or with a longer "
    "--connect-timeout.",
    "no-speed-test": "Only wstunnel-py serve has one. With another bridge, measure with scp.",
    "hung-up": "If that port speaks TLS, the URL must begin with wss://.",
    # Findings that are not errors.
    "expires": "Renew its certificate at the edge or the bridge before it expires; after that nobody can connect.",
    "insecure": "Anybody on the way can pose as the server, and read and change what is not encrypted inside.",
    "plain": "It ends when its connection is lost. It would not with wstunnel-py serve as the bridge, if --resume-for "
    "is not 0 there and --resume-memory not used up.",
    "no-banner": "A tunnel opens, but no SSH server answers behind it: is sshd running, and is the bridge's --target "
    "right?",
    "buffers": "Switch buffering off there (in nginx: proxy_buffering), or let the edge pass WebSockets on unchanged. "
    "SSH waits for small messages, so it cannot work through a buffer; sshd is not to blame.",
}
ADVICE["tls-client-cert"] = ADVICE["tls-refused"]

# Errors after which it is worth knowing that the default template has made the name.
_OF_NAMES = ("dns", "tcp", "tcp-refused", "tcp-timeout", "not-found", "bad-gateway", "not-websocket", "redirect")
_OF_PROXIES = ("proxy-unreachable", "proxy-auth", "proxy-refused", "proxy-target", "proxy-protocol")
_TRAFFIC_TOKEN = "e2b-traffic-access-token"  # noqa: S105  # the name of a header, not a secret
_OF_CERTIFICATES = ("tls-client-cert", "tls-refused", "tls-handshake")


class _Names(dict[str, str]):
    """The names of settings in the command that runs."""

    def __missing__(self, setting: str) -> str:
        return spelled(setting)


def told(error: TunnelError, layers: Layers | None = None, host: str = "", *, has_options: bool = False) -> str:
    """Return the line for an error on the command line, with the next step.

    ``layers`` are those of the settings. ``host`` is what the doctor can be asked about, who needs the same options if
    the command line ``has_options``.
    """
    steps = _own_steps(error, layers)
    if error.code == "not-ready" and layers is not None and not layers.prefix:
        steps.append(f"it may still be starting: see {spelled('wait')}")
    if error.code in HINTS and (not steps or error.code.endswith("-refused")):
        steps.append(HINTS[error.code].format_map(_Names()))
    if host and isinstance(error, DialError) and (not steps or error.code in _OF_NAMES):
        options = " with the same options" if has_options else ""
        steps.append(f"wstunnel-py doctor {shlex.quote(host)}{options} tells more")
    return "; ".join([str(error), *steps])


def advice(code: str, error: TunnelError | None, layers: Layers | None) -> str:
    """Return what the doctor says of a finding; nothing if there is nothing to be said."""
    steps = _own_steps(error, layers) if error is not None else []
    if error is not None and str(error.fields.get("hop", "")).startswith("proxy "):
        code = "proxy-unreachable"
    if code in _OF_CERTIFICATES and layers is not None and layers.text("client-cert") is None:
        steps = []  # the advice says so
    sentences = [f"{step[0].upper()}{step[1:]}." for step in steps]
    return " ".join([*([ADVICE[code]] if code in ADVICE else []), *sentences])


def _own_steps(error: TunnelError, layers: Layers | None) -> list[str]:
    """Return what can be done about an error with these settings."""
    if error.code in ("session-refused", "pty-refused") and isinstance(error.__cause__, TunnelError):
        error = error.__cause__
    if layers is None or isinstance(error, UsageError):
        return []
    if isinstance(error, UpgradeRefused) and error.status in (401, 403):
        return _of_credentials(layers, error.status, dict(error.headers).get("wstunnel-error"))
    if error.code == "pty-unauthenticated":
        return _of_credentials(layers, 401, "unauthorized")
    if error.code in _OF_PROXIES:
        return _of_proxy(error, layers)
    if error.code in _OF_CERTIFICATES:
        return _of_certificate(layers)
    if error.code in _OF_NAMES and layers.is_default_url:
        return [_of_default_url(layers)]
    return []


def _of_credentials(layers: Layers, status: int, verdict: str | None) -> list[str]:
    """Return what a 401 or 403 is about; ``verdict`` is the bridge's own word for it, None if an edge has answered."""
    if verdict == "origin":
        return ["send no Origin header, or let the bridge allow it: serve --allow-origin"]
    from tunnel.client.layers import token_variable

    steps = []
    sent = layers.credentials()
    if sent:
        steps.append(f"it was sent {' and '.join(sent.values())}")
    withheld = layers.withheld if not sent else []
    wants_token = not withheld and not {"token", "authorization"} & sent.keys()
    if withheld:
        steps.append(
            f"credentials of the environment and of all hosts ({', '.join(withheld)}) are not sent to a URL "
            f"that is written out; give them on the command line, or in a table for this host in {layers.config_path}"
        )
    if not verdict and not withheld and _TRAFFIC_TOKEN not in sent:
        place = layers.config_path
        steps.append(f"a private sandbox wants its traffic token: -H '{_TRAFFIC_TOKEN}: …', or headers in {place}")
    if wants_token and (verdict or status == 401):
        who = "the service" if layers.prefix else "the bridge" if verdict else "a bridge"
        option = spelled(f"{layers.prefix.replace('-', '_')}token_file")
        steps.append(f"{who} wants a token: {option}, or {token_variable(layers.prefix)}")
    return steps


def _of_proxy(error: TunnelError, layers: Layers) -> list[str]:
    proxy = error.fields.get("proxy")
    name = getattr(proxy, "variable", None) or layers.origin("proxy") or spelled("proxy")
    return [f"the proxy is that of {name}; {spelled('proxy')} none goes without it"]


def _of_certificate(layers: Layers) -> list[str]:
    path = layers.text("client-cert")
    if path is None:
        return [f"see {spelled('client_cert')}"]
    return [f"it was shown {path} ({layers.origin('client-cert') or spelled('client_cert')})"]


def _of_default_url(layers: Layers) -> str:
    from tunnel.pty.client.endpoint import TEMPLATE

    template, setting = (TEMPLATE, "pty_url") if layers.prefix else (DEFAULT_TEMPLATE, "url")
    return f"{layers.host!r} went into the default URL, {template}: see {spelled(setting)}"
