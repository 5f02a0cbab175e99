"""What a command line of websocat does: two ends, which of them is the WebSocket, and its messages.

    STDIO   + ws://, wss://           relay standard input and output, like `connect`
    tcp:, unix:  + ws://, wss://      dial both, relay between them
    tcp-l:, unix-l: + ws://, wss://   a local port, like `forward`
    ws-l: + tcp:, unix:, exec:, sh-c:, ws://, STDIO   a bridge, like `serve`

Either may come first. The direction from the first to the second is the forward direction for options such as ``-u``.
"""

from __future__ import annotations

from tunnel.errors import UsageError
from tunnel.websocat.addresses import COMMAND, DIAL, DIAL_WS, LISTEN, LISTEN_WS, STDIO, parse_address
from tunnel.websocat.messages import MessageOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.websocat.addresses import Address
    from tunnel.websocat.command_line import CommandLine

SERVER_MODE_HOST = "127.0.0.1"
_FOR_CLIENTS = (
    "protocol", "header", "origin", "ua", "basic-auth", "basic-auth-file", "insecure", "socks5", "socks5-user-pass",
    "websocket-version",
)  # fmt: skip
_FOR_SERVERS = ("server-protocol", "server-header", "restrict-uri", "conncap")
_FOR_LISTENERS = ("oneshot", "unlink", "stdout-announce-listening-ports")


class Plan:
    """Two ends: ``websocket``, and the ``other``; ``oneshot``: serve one connection and end.

    ``messages`` are the options of the WebSocket's messages; ``notes`` are lines for -v, ``warnings`` lines for all.
    """

    __slots__ = ("_is_text", "line", "messages", "notes", "oneshot", "other", "server_mode", "warnings", "websocket")

    def __init__(self, line: CommandLine) -> None:
        """Decide what to do for ``line``. Raises UsageError for an invalid or unsupported combination."""
        self.line = line
        self.notes = list(line.needless)
        self.warnings: list[str] = []
        self.server_mode = line.flag("server-mode")
        first, second = self._addresses()
        if first.is_websocket and (second.kind != DIAL_WS or first.kind == LISTEN_WS):
            self.websocket, self.other = first, second
        else:
            self.websocket, self.other = second, first
        self._check_pair(first, second)
        # A listener in the second place serves once, as with websocat.
        self.oneshot = line.flag("oneshot") or second.listens
        self._is_text = self._choose_text()
        self._check_options()
        self.messages = self._message_options(forward=self.websocket is second)

    @property
    def dials(self) -> bool:
        """Whether the WebSocket is dialled; otherwise it listens."""
        return self.websocket.kind == DIAL_WS

    def _addresses(self) -> tuple[Address, Address]:
        words = self.line.operands
        if self.server_mode:
            if len(words) != 1:
                raise UsageError("-s takes one operand: PORT or HOST:PORT")
            place = f"{SERVER_MODE_HOST}:{words[0]}" if ":" not in words[0] else words[0]
            return parse_address(f"ws-l:{place}"), parse_address("-")
        if len(words) == 1:
            if not words[0].startswith(("ws://", "wss://")):
                raise UsageError("a single address must be a ws:// or wss:// URL")
            return parse_address("-"), parse_address(words[0])
        if len(words) != 2:
            raise UsageError("two addresses are required; usage: wstunnel-py websocat [OPTIONS] ADDRESS ADDRESS")
        return parse_address(words[0]), parse_address(words[1])

    def _check_pair(self, first: Address, second: Address) -> None:
        pair = f"{first.shown} and {second.shown}"
        if not self.websocket.is_websocket:
            raise UsageError(f"neither {first.shown} nor {second.shown} is a WebSocket, and one must be")
        allowed = (STDIO, DIAL, LISTEN) if self.dials else (STDIO, DIAL, COMMAND, DIAL_WS)
        if self.other.kind not in allowed:
            raise UsageError(f"{pair}: this pair is not supported here")

    def _check_options(self) -> None:
        line = self.line
        listens = self.websocket.listens or self.other.listens
        both = self.other.kind == DIAL_WS
        for names, useful, what in (
            (_FOR_CLIENTS, self.dials or both, "does not dial a WebSocket"),
            (_FOR_SERVERS, not self.dials, "does not listen for a WebSocket"),
            (_FOR_LISTENERS, listens, "does not listen"),
            (("exec-args",), self.other.kind == COMMAND and not self.other.shell, "has no exec:"),
        ):
            for name in names:
                if line.given(name) and not useful:
                    self.notes.append(f"--{name} has no effect: this command line {what}")
        if line.given("socks5-user-pass") and not line.given("socks5"):
            self.notes.append("--socks5-user-pass has no effect without --socks5")
        for name in ("no-line", "null-terminated", "linemode-strip-newlines", "strict"):
            if line.given(name) and not self._is_text:
                self.notes.append(f"--{name} has no effect without --text")
        if line.flag("binary") and line.flag("text"):
            raise UsageError("--binary and --text cannot be used together")
        if line.given("websocket-version") and line.number("websocket-version") != 13:
            raise UsageError("--websocket-version: 13 is the only version that is supported here")
        if line.number("conncap") == 0:
            raise UsageError("--conncap must be at least 1")
        path = line.text("restrict-uri")
        if path is not None and not path.startswith("/"):
            raise UsageError(f"--restrict-uri: {path!r} is not a path that begins with /")
        if line.flag("unidirectional") and line.flag("unidirectional-reverse") and not self.dials:
            raise UsageError("-u and -U together leave nothing to transfer")

    def _message_options(self, *, forward: bool) -> MessageOptions:
        """Return the options of messages; ``forward``: the direction to the WebSocket is the forward direction."""
        line, options = self.line, MessageOptions()
        options.text = self._is_text
        options.lines = options.text and not line.flag("no-line") and self.other.kind != DIAL_WS
        options.terminator = b"\0" if line.flag("null-terminated") else b"\n"
        options.strip = line.flag("linemode-strip-newlines")
        options.strict = line.flag("strict")
        options.size = line.number("buffer-size")
        options.close = not line.flag("no-close")
        options.exit_on_eof = line.flag("exit-on-eof") or self.server_mode
        options.close_code = line.number("close-status-code")
        options.close_reason = line.text("close-reason") or ""
        if options.close_code is not None and not (1000 <= options.close_code <= 4999):
            raise UsageError(f"--close-status-code: {options.close_code} is not between 1000 and 4999")
        if line.given("close-reason") and options.close_code is None:
            self.notes.append("--close-reason has no effect without --close-status-code")
        if options.size == 0:
            raise UsageError("--buffer-size must be at least 1")
        limits = [line.number("max-messages"), line.number("max-messages-rev")]
        if line.flag("one-message"):
            limits = [1 if limit is None else min(1, limit) for limit in limits]
        if line.flag("unidirectional"):
            limits[1] = 0
        if line.flag("unidirectional-reverse"):
            limits[0] = 0
        options.sends, options.receives = limits if forward else reversed(limits)
        return options

    def _choose_text(self) -> bool:
        """Return whether to send text, websocat's default. Here it is the default only for people, not for tunnels."""
        line = self.line
        if line.flag("text") or line.flag("binary"):
            return line.flag("text")
        if self.other.kind == STDIO:
            if not self.server_mode and len(line.operands) == 2:
                self.warnings.append("this carries lines of text; for a tunnel use --binary")
            return True
        self.warnings.append("this carries bytes unchanged, as --binary does; for lines of text use --text")
        return False
