"""Command lines that dial a WebSocket: for standard input and output, a local port, or a TCP target."""

from __future__ import annotations

import functools
import os
import selectors
import socket

from tunnel.client.options import BY_NAME, PROXY, Option, parse_value
from tunnel.client.settings import resolve
from tunnel.client.trace import Trace, say
from tunnel.client.tunnel import Tunnel
from tunnel.errors import ConnectionLost, DialError, UsageError
from tunnel.protocol.control import SUBPROTOCOL
from tunnel.websocat.addresses import DIAL, LISTEN, LISTEN_WS, STDIO
from tunnel.websocat.logins import authorization, proxy_url, split_user
from tunnel.websocat.messages import MessageCodec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnel.client.config import Values
    from tunnel.client.settings import Settings
    from tunnel.websocat.command_line import CommandLine
    from tunnel.websocat.messages import MessageOptions
    from tunnel.websocat.plan import Plan

_CONNECT_LIMIT = 15.0  # seconds to connect to the other address, as for the bridge
_SOCKS5 = Option("socks5", PROXY, "")


class Dialler:
    """Makes settings and tunnels for the URL ``url`` from a command line. Raises UsageError."""

    def __init__(self, url: str, line: CommandLine, messages: MessageOptions) -> None:
        self._url, user = split_user(url)
        self._line = line
        self._messages = messages
        headers = [(field, "--header") for field in line.several("header")]
        wanted = [line.text("protocol")] if line.given("protocol") else []
        # websocat treats these two like any other header.
        wanted += [_value(field) for field, _ in headers if _name(field) == "sec-websocket-protocol"]
        headers = [(field, word) for field, word in headers if _name(field) != "sec-websocket-protocol"]
        for name, option in (("Origin", "origin"), ("User-Agent", "ua")):
            if line.given(option):
                headers.append((f"{name}: {line.text(option)}", f"--{option}"))
        self._warnings: list[str] = []
        login = authorization(line, user, self._warnings)
        if login is not None:
            headers.append((login, "--basic-auth"))
        self._given: Values = {}
        if headers:
            self._given["header"] = [str(parse_value(BY_NAME["header"], field, word)) for field, word in headers]
        proxy = proxy_url(line)
        if proxy is not None:
            self._given["proxy"] = parse_value(_SOCKS5, proxy, "--socks5")
        for name in ("ping-interval", "ping-timeout"):
            if line.given(name):
                self._given[name] = parse_value(BY_NAME[name], line.number(name), f"--{name}")
        for name in ("verbose", "quiet", "insecure"):
            if line.flag(name):
                self._given[name] = True
        self._protocols = [name.strip() for text in wanted if text for name in text.split(",") if name.strip()]
        if wanted or not messages.fit_for_sessions:
            self._given["no-resume"] = True
        self._offer: tuple[str, ...] = tuple(self._protocols)

    def settings(self) -> Settings:
        """Return the settings for a new connection."""
        settings = resolve(self._url, self._given)
        settings.warnings += self._warnings
        if self._messages.size is not None:
            settings.max_message = min(self._messages.size, settings.max_message)
        return settings

    def tunnel(
        self, settings: Settings, trace: Trace, reload: Callable[[], Settings], notice: Callable[[str], None]
    ) -> Tunnel:
        """Return a tunnel; the arguments are those of `Tunnel`."""
        # Without --protocol websocat offers nothing. If a session is possible, its subprotocol is offered, which only
        # our bridge selects; "binary" comes first, as for `connect`.
        offer = ("binary", SUBPROTOCOL) if settings.resume else self._offer
        make_codec = functools.partial(MessageCodec, self._messages)
        return Tunnel(settings, trace, reload, notice, offer=offer, make_codec=make_codec)


def run(plan: Plan) -> int:
    """Run a ``plan`` that dials a WebSocket; return the exit code. Raises TunnelError."""
    dialler = Dialler(plan.websocket.rest, plan.line, plan.messages)
    settings = dialler.settings()
    trace = Trace(verbose=settings.verbose, log_file=settings.log_file)
    if not settings.quiet:
        for warning in (*plan.warnings, *settings.warnings):
            say(f"warning: {warning}")
    for note in plan.notes:
        trace.step("options", note)
    for note in settings.notes:
        trace.step("url", note)
    if plan.other.kind == STDIO:
        from tunnel.client.proxycommand import run as relay_standard_streams

        return relay_standard_streams(settings, trace, dialler.settings, dialler.tunnel)
    check_places(plan)
    notice: Callable[[str], None] = (lambda _: None) if settings.quiet else say
    if plan.other.kind == LISTEN and not plan.oneshot:
        return _forward(plan, dialler, trace, notice)
    tunnel = dialler.tunnel(settings, trace, dialler.settings, notice)
    return _relay_socket(tunnel, functools.partial(_accept_one, plan) if plan.other.listens else lambda: _dial(plan))


def check_places(plan: Plan) -> None:
    """Raise UsageError, which quotes the user's word, unless the plan's hosts, ports and paths are valid."""
    from tunnel.net.address import TCPAddress, parse_address

    for address in (plan.websocket, plan.other):
        if address.kind in (DIAL, LISTEN, LISTEN_WS):
            place = parse_address(address.rest, address.text)
            if address.kind == DIAL and isinstance(place, TCPAddress) and not (place.host and place.port):
                raise UsageError(f"{address.text}: a host and a port are required")


def unix_mode() -> int:
    """Return the permissions of a Unix socket to listen on: according to the umask, as with websocat."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o777 & ~mask


def make_room(plan: Plan, place: str) -> None:
    """Remove the Unix socket at ``place`` (``unix:PATH``) if --unlink is given."""
    path = place.removeprefix("unix:")
    if plan.line.flag("unlink") and path != place:
        import stat

        try:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise UsageError(f"--unlink: {path}: {exc.strerror}") from exc


def announce(address: object) -> None:
    """Print the line of --stdout-announce-listening-ports for ``address``, in websocat's form."""
    from tunnel.net.address import TCPAddress

    if isinstance(address, TCPAddress):
        print(f"LISTEN proto=tcp,ip={address.host},port={address.port}", flush=True)
    else:
        path = str(address).removeprefix("unix:")
        print(f'LISTEN proto=unix,path="{path}"', flush=True)


def _forward(plan: Plan, dialler: Dialler, trace: Trace, notice: Callable[[str], None]) -> int:
    from tunnel.client.forward import Forward

    make_room(plan, plan.other.rest)
    forward = Forward(trace=trace, tell=notice, unix_mode=unix_mode(), make_tunnel=dialler.tunnel)
    forward.add(plan.other.rest, dialler.settings)
    if forward.is_open_to_all:
        notice("warning: other machines can connect to this port")
    if plan.line.flag("stdout-announce-listening-ports"):
        from tunnel.net.address import parse_address

        for address in forward.addresses:
            announce(parse_address(address, ""))
    notice(f"forwarding {', '.join(forward.addresses)} → {dialler.settings().address}")
    return forward.run()


def _relay_socket(tunnel: Tunnel, connect: Callable[[], socket.socket]) -> int:
    """Relay between the socket that ``connect`` returns and the tunnel; return the exit code."""
    from tunnel.client.local_socket import LocalSocket
    from tunnel.client.signals import SignalPipe

    local = LocalSocket(connect())
    try:
        relay = tunnel.run(tunnel.dial(), local, local, SignalPipe)
    except OSError as exc:
        local.abort()
        raise ConnectionLost("lost", reason=exc.strerror or exc) from exc
    except BaseException:
        local.abort()
        raise
    local.close()
    return relay.interrupted or 0


def _accept_one(plan: Plan) -> socket.socket:
    """Wait for one connection at the plan's listener."""
    from tunnel.net.listening import open_listening

    make_room(plan, plan.other.rest)
    listeners = open_listening([(plan.other.rest, plan.other.text)], unix_mode=unix_mode())
    try:
        if plan.line.flag("stdout-announce-listening-ports"):
            for listener in listeners:
                announce(listener.address)
        with selectors.DefaultSelector() as selector:
            for listener in listeners:
                selector.register(listener.sock, selectors.EVENT_READ, listener.sock)
            while True:
                for key, _ in selector.select():
                    try:
                        sock: socket.socket = key.data.accept()[0]
                    except (BlockingIOError, ConnectionAbortedError):
                        continue  # that client has disconnected
                    return sock
    finally:
        for listener in listeners:
            listener.close()


def _dial(plan: Plan) -> socket.socket:
    """Connect to the plan's TCP or Unix address."""
    from tunnel.net.address import UnixAddress, parse_address

    address = parse_address(plan.other.rest, plan.other.text)
    try:
        if isinstance(address, UnixAddress):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(_CONNECT_LIMIT)
                sock.connect(address.path)
            except BaseException:
                sock.close()
                raise
            return sock
        return socket.create_connection((address.host, address.port), _CONNECT_LIMIT)
    except ConnectionRefusedError as exc:
        raise DialError("tcp-refused", address=address) from exc
    except TimeoutError as exc:
        raise DialError("tcp-timeout", address=address, seconds=_CONNECT_LIMIT) from exc
    except (OSError, UnicodeError) as exc:
        raise DialError("tcp", address=address, reason=getattr(exc, "strerror", None) or exc) from exc


def _name(field: str) -> str:
    return field.partition(":")[0].strip().lower()


def _value(field: str) -> str:
    return field.partition(":")[2].strip()
