"""The options of websocat 1.x, in three tables: those that work here, those without effect here, and the others.

No option of websocat is ignored silently: those of the second table are explained with ``-v``, those of the third are
refused by name.
"""

from __future__ import annotations

from tunnel.client.options import BY_NAME

# Kinds of values. A header option may be followed by several headers, as in websocat.
FLAG, TEXT, NUMBER, SECONDS, HEADERS, REST = "flag", "text", "number", "seconds", "headers", "rest"


class Option:
    """One option: its names, the kind of its value, and the words for ``--help``."""

    __slots__ = ("help", "kind", "metavar", "name", "short")

    def __init__(self, name: str, short: str, kind: str, metavar: str, help: str) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.metavar = metavar
        self.help = help


SUPPORTED = (
    Option("binary", "b", FLAG, "", "Send binary messages, which tunnels need."),
    Option("text", "t", FLAG, "", "Send text messages, one per line. The default with standard input and output."),
    Option("exit-on-eof", "E", FLAG, "", "After one direction has ended, exit when the other one falls silent."),
    Option("no-close", "n", FLAG, "", "Send no Close when the input ends."),
    Option("unidirectional", "u", FLAG, "", "Carry nothing from the second address to the first."),
    Option("unidirectional-reverse", "U", FLAG, "", "Carry nothing from the first address to the second."),
    Option("buffer-size", "B", NUMBER, "BYTES", "Send messages of at most this size."),
    Option("no-line", "", FLAG, "", "In text mode, do not convert between lines and messages."),
    Option("null-terminated", "0", FLAG, "", "In text mode, lines end with a zero byte."),
    Option("linemode-strip-newlines", "", FLAG, "", "In text mode, send lines without their line ends."),
    Option("strict", "S", FLAG, "", "In text mode, drop lines that are too long or incomplete."),
    Option("one-message", "1", FLAG, "", "Carry at most one message in each direction."),
    Option("max-messages", "", NUMBER, "N", "Carry at most N messages to the second address."),
    Option("max-messages-rev", "", NUMBER, "N", "Carry at most N messages to the first address."),
    Option("close-status-code", "", NUMBER, "CODE", "Close with this code when the input ends."),
    Option("close-reason", "", TEXT, "TEXT", "Reason to send with --close-status-code."),
    Option("protocol", "", TEXT, "NAMES", "Offer these subprotocols, and no others."),
    Option("header", "H", HEADERS, "'NAME: VALUE'", "Add a header to the request. May be repeated."),
    Option("origin", "", TEXT, "ORIGIN", "Add an Origin header to the request."),
    Option("basic-auth", "", TEXT, "USER:PASSWORD", "Add Basic authorization. Other users can see it: see above."),
    Option("basic-auth-file", "", TEXT, "FILE", "The same, from a file. Or set the variable WEBSOCAT_BASIC_AUTH."),
    Option("ua", "", TEXT, "TEXT", "Add a User-Agent header to the request."),
    Option("insecure", "k", FLAG, "", "Do not check the server's certificate."),
    Option("socks5", "", TEXT, "HOST:PORT", "Connect through this SOCKS5 proxy."),
    Option("socks5-user-pass", "", TEXT, "USER:PASSWORD", "Log in to the proxy. Other users can see it: see above."),
    Option("websocket-version", "", NUMBER, "13", "The only version that is supported."),
    Option("ping-interval", "", SECONDS, "SECONDS", "Send a ping after this much silence. Default: 20."),
    Option("ping-timeout", "", SECONDS, "SECONDS",
           "Give up if nothing arrives for this long after a ping. Sessions wait at most 8 s. Default: 60."),
    Option("server-mode", "s", FLAG, "", "Listen at PORT or HOST:PORT, and connect standard input and output."),
    Option("server-protocol", "", TEXT, "NAME",
           "The only subprotocol to accept. Clients that offer only others are refused."),
    Option("server-header", "", HEADERS, "'NAME: VALUE'", "Add a header to the answer. May be repeated."),
    Option("restrict-uri", "", TEXT, "PATH", "Serve this path only."),
    Option("oneshot", "", FLAG, "", "Serve one connection, then exit."),
    Option("conncap", "", NUMBER, "N", "Serve at most N connections at once."),
    Option("unlink", "", FLAG, "", "Remove an existing Unix socket before listening."),
    Option("stdout-announce-listening-ports", "", FLAG, "", "Print a line for each listening socket."),
    Option("exec-args", "", REST, "ARGUMENTS", "Arguments of the exec: program, up to the end of the command line."),
    Option("verbose", "v", FLAG, "", "Explain each step on standard error."),
    Option("quiet", "q", FLAG, "", "Print errors only."),
)  # fmt: skip

# Options that are not needed here: option → whether it takes a value, and why it has no effect.
NEEDLESS: dict[str, tuple[bool, str]] = {
    "async-stdio": (False, "standard input and output never block each other here"),
    "no-async-stdio": (False, "standard input and output never block each other here"),
    "no-exit-on-zeromsg": (False, "an empty message never ends the connection here"),
    "websocket-ignore-zeromsg": (False, "an empty message never ends the connection here"),
    "max-ws-frame-length": (True, "frames of any length are passed on in pieces here"),
    "max-ws-message-length": (True, "messages of any length are passed on in pieces here"),
}

# Options that are not supported here.
UNSUPPORTED = frozenset((
    "accept-from-fd", "autoreconnect-delay-millis", "base64", "base64-text", "binary-prefix", "byte-to-exit-on",
    "client-pkcs12-der", "client-pkcs12-passwd", "compress-deflate", "compress-gzip", "compress-zlib", "dump-spec",
    "exec-exit-on-disconnect", "exec-sighup-on-stdin-close", "exec-sighup-on-zero-msg", "foreachmsg-wait-read",
    "header-to-env", "inhibit-pongs", "jsonrpc", "jsonrpc-omit-jsonrpc", "just-generate-accept",
    "just-generate-key", "lengthprefixed-little-endian", "lengthprefixed-nbytes",
    "lengthprefixed-skip-read-direction", "lengthprefixed-skip-write-direction", "max-sent-pings", "no-fixups",
    "pkcs12-der", "pkcs12-passwd", "preamble", "preamble-reverse", "print-ping-rtts", "queue-len", "request-header",
    "request-method", "request-uri", "reuser-send-zero-msg-on-disconnect", "set-environment", "socks5-bind-script",
    "socks5-destination", "static-file", "text-prefix", "timestamp-monotonic", "tls-domain", "udp-broadcast",
    "udp-multicast", "udp-multicast-iface-v4", "udp-multicast-iface-v6", "udp-multicast-loop", "udp-oneshot",
    "udp-reuseaddr", "udp-ttl", "uncompress-deflate", "uncompress-gzip", "uncompress-zlib", "ws-c-uri",
))  # fmt: skip
UNSUPPORTED_SHORT = {
    "F": "static-file",
    "P": "preamble-reverse",
    "X": "request-method",
    "e": "set-environment",
    "p": "preamble",
}

# Our settings → their names on websocat's command line, if these differ.
_NAMES = {
    "max_message": "--buffer-size",
    "max_tunnels": "--conncap",
    "no_resume": "--protocol binary",
    "path": "--restrict-uri",
    "proxy": "--socks5",
}


def option_of(setting: str) -> str:
    """Return the name of a setting for a user of websocat's command line; other texts are returned unchanged."""
    name = setting.replace("_", "-")
    if setting in _NAMES:
        return _NAMES[setting]
    if any(option.name == name for option in SUPPORTED):
        return f"--{name}"
    return f"{name} in the config file" if name in BY_NAME else setting
