"""What the command line adds to the library's errors: what a user can do about each, in terms of options.

The errors themselves tell what happened, and a program reads their ``code``. One table is for the end of an error's
line, the other for the doctor, which shows it on a line of its own.
"""

from __future__ import annotations

from tunnel.errors import TunnelError

# Code of an error → what goes behind its text.
HINTS = {
    "exists": "--force replaces it",
    "no-keys": "put your public key into it, a line such as 'ssh-ed25519 AAAAC3Nz… you@laptop': "
    "on your machine it is in ~/.ssh/id_ed25519.pub",
    "late-session": "--no-resume avoids this",
    "not-ready": "it may still be starting: see connect --wait",
    "tls-client-cert": "see --client-cert",
    "tls-handshake": "see --client-cert",
    "too-big": "set a smaller --max-message",
}

# Code of an error, or of something else that the doctor finds → what to do about it.
ADVICE = {
    "dns": "Is the name right? The name of a sandbox that has ended no longer resolves. Is this machine online?",
    "tcp-refused": "Does the bridge run there (wstunnel-py serve), and is the port right?",
    "tcp": "Can this machine reach that address? It may need a proxy: --proxy.",
    "tcp-timeout": "A firewall may drop the packets. This machine may need a proxy: --proxy.",
    "proxy-auth": "Put user and password into the proxy's URL, in the environment or the config file.",
    "proxy-refused": "The proxy does not allow this name or port; ask whoever runs it.",
    "proxy-protocol": "Is that address a proxy of this kind? http://, socks5:// and socks5h:// are supported.",
    "tls-untrusted": "If the certificate is your own: --ca-file. A proxy that inspects TLS has its own CA. "
    "An expired certificate must be renewed at the edge.",
    "tls-refused": "Show a certificate that the server's authority has issued to a client: --client-cert, "
    "--client-key. wstunnel-py certs show describes yours.",
    "tls-handshake": "Does the server want a client certificate? --client-cert, --client-key.",
    "tls": "Does that port speak TLS? A URL without TLS begins with ws://.",
    "not-http": "Something other than a web server listens there. Is the port right?",
    "not-websocket": "A web server answers, but it is no bridge. Are the port and the path right?",
    "redirect": "Redirects are not followed. If you trust that address, use it in the URL.",
    "unauthorized": "The bridge wants a token: --token-file, or WSTUNNEL_PY_TOKEN.",
    "forbidden": "A private sandbox wants its traffic token: -H 'e2b-traffic-access-token: …' or the config file.",
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
    "no-banner": "A tunnel opens, but no SSH server answers behind it: is sshd running, and is the bridge's --target "
    "right?",
    "buffers": "Switch buffering off there (in nginx: proxy_buffering), or let the edge pass WebSockets on unchanged. "
    "SSH waits for small messages, so it cannot work through a buffer; sshd is not to blame.",
}
ADVICE["tls-client-cert"] = ADVICE["tls-refused"]


def told(error: TunnelError) -> str:
    """Return the line for an error on the command line."""
    hint = HINTS.get(error.code)
    return f"{error}; {hint}" if hint else str(error)
