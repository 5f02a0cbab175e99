"""websocat's addresses: a type, a colon, and a value (``ws-l:127.0.0.1:8081``, ``tcp:[::1]:22``, ``-``).

This module parses only the types and their aliases; hosts, ports and paths are checked where they are used.
"""

from __future__ import annotations

from tunnel.errors import UsageError

# Kinds of addresses.
STDIO, DIAL_WS, LISTEN_WS, DIAL, LISTEN, COMMAND = "stdio", "dial-ws", "listen-ws", "dial", "listen", "command"

# Type → its kind, and the prefix that makes the rest an address of this project (or the type of a command).
_TYPES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("stdio", "asyncstdio", "threadedstdio"), (STDIO, "")),
    **dict.fromkeys(("ws-listen", "ws-l", "l-ws", "listen-ws"), (LISTEN_WS, "")),
    "l-ws-unix": (LISTEN_WS, "unix:"),
    **dict.fromkeys(("tcp", "tcp-connect", "connect-tcp", "tcp-c", "c-tcp"), (DIAL, "")),
    **dict.fromkeys(("unix", "unix-connect", "connect-unix", "unix-c", "c-unix"), (DIAL, "unix:")),
    **dict.fromkeys(("tcp-listen", "listen-tcp", "tcp-l", "l-tcp"), (LISTEN, "")),
    **dict.fromkeys(("unix-listen", "listen-unix", "unix-l", "l-unix"), (LISTEN, "unix:")),
    **dict.fromkeys(("sh-c", "cmd"), (COMMAND, "sh-c")),
    "exec": (COMMAND, "exec"),
}
_UPGRADES = ("ws-upgrade", "upgrade-ws", "ws-u", "u-ws")  # overlays that make a WebSocket server of a listener

# Other types of websocat, which are not supported.
UNSUPPORTED = frozenset((
    "a-ssl", "abstract", "abstract-c", "abstract-connect", "abstract-dgram", "abstract-l", "abstract-listen",
    "accept-ssl", "accept-tls", "appendfile", "assert", "assert2", "autoreconnect", "broadcast", "broadcast-reuse",
    "c-abstract", "c-ssl", "c-tls", "c-udp", "c-ws", "clogged", "connect-abstract", "connect-ssl", "connect-tls",
    "connect-udp", "connect-ws", "drop_on_backpressure", "exit_on_specific_byte", "foreachmsg", "http",
    "http-post-sse", "http-request",
    "inetd", "inetd-ws", "jsonrpc", "l-abstract", "l-ssl", "l-tls", "l-udp", "l-ws-abstract", "l-wss",
    "lengthprefixed", "line2msg", "listen-abstract", "listen-ssl", "listen-tls", "listen-udp", "literal",
    "literalreply", "log", "mirror", "msg2line", "open-async", "open-fd", "random", "raw-reuse", "readfile",
    "reuse", "reuse-broadcast", "reuse-raw", "socks5-bind", "socks5-connect", "ssl", "ssl-a", "ssl-accept", "ssl-c",
    "ssl-connect", "ssl-l", "ssl-listen", "timestamp", "tls", "tls-a", "tls-accept", "tls-c", "tls-connect",
    "tls-l", "tls-listen", "udp", "udp-c", "udp-connect", "udp-l", "udp-listen", "unix-dgram", "wait-for-data",
    "waitfordata", "writefile", "ws-c", "ws-connect", "ws-inetd", "ws-ll-c", "ws-ll-client", "ws-ll-s",
    "ws-ll-server", "ws-lowlevel-client", "ws-lowlevel-server", "wss-l", "wss-listen",
))  # fmt: skip


class Address:
    """An address: its original ``text``, its kind, and its ``rest`` in this project's form.

    The rest is a URL, HOST:PORT, unix:PATH or a command line; ``shell``: whether the command line is for a shell.
    """

    __slots__ = ("kind", "rest", "shell", "text")

    def __init__(self, text: str, kind: str, rest: str, *, shell: bool = False) -> None:
        self.text = text
        self.kind = kind
        self.rest = rest
        self.shell = shell

    @property
    def shown(self) -> str:
        """The type alone, as the rest may contain a password."""
        return "-" if self.text == "-" else self.text.partition(":")[0] + ":"

    @property
    def is_websocket(self) -> bool:
        return self.kind in (DIAL_WS, LISTEN_WS)

    @property
    def listens(self) -> bool:
        return self.kind in (LISTEN, LISTEN_WS)


def is_type(word: str) -> bool:
    """Return whether ``word`` is an address type of websocat, supported or not."""
    return word in _TYPES or word in _UPGRADES or word in UNSUPPORTED or word in ("ws", "wss")


def parse_address(text: str) -> Address:
    """Parse an address. Raises UsageError, which names its type."""
    if text == "-":
        return Address(text, STDIO, "")
    name, colon, rest = text.partition(":")
    if not colon:
        problem = "TYPE:… or ws://… is expected, or - for standard input and output"
        raise UsageError(f"{text!r} is not an address: {problem}")
    if name in ("ws", "wss") and rest.startswith("//"):
        return Address(text, DIAL_WS, text)
    if name in _UPGRADES:
        inner = parse_address(rest)
        if inner.kind != LISTEN:
            raise UsageError(f"{name}: is supported over tcp-l: and unix-l: only")
        return Address(text, LISTEN_WS, inner.rest)
    if name in UNSUPPORTED:
        raise UsageError(f"the address type {name}: is not supported here")
    if name not in _TYPES:
        raise UsageError(f"there is no address type {name}:")
    kind, prefix = _TYPES[name]
    if kind == STDIO:
        if rest:
            raise UsageError(f"{name}: takes nothing after it, not {rest!r}")
        return Address(text, kind, "")
    if kind == COMMAND:
        if not rest:
            raise UsageError(f"{name}: the command is missing")
        return Address(text, kind, rest, shell=prefix == "sh-c")
    return Address(text, kind, prefix + rest)
