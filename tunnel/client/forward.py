"""Local ports for clients without ProxyCommand: each connection to one gets its own tunnel."""

from __future__ import annotations

import selectors
import socket
import threading

from tunnel.client.signals import SignalPipe
from tunnel.client.sockets import EXIT_LIMIT, relay_in_thread
from tunnel.client.trace import Trace
from tunnel.client.tunnel import Tunnel
from tunnel.client.waiting import dial_when_up
from tunnel.errors import TunnelError
from tunnel.net.address import UnixAddress, client_of, is_loopback
from tunnel.net.channel import reset
from tunnel.net.listening import open_listening
from tunnel.net.waiter import READ, Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnel.client.dial import Connection
    from tunnel.client.layers import Layers
    from tunnel.client.local_socket import Stop
    from tunnel.client.settings import Settings
    from tunnel.net.listening import ListeningSocket

MAX_CONNECTIONS = 100
PAUSE = 1.0  # seconds to stop accepting after the system ran out of descriptors or memory


class Forward:
    """Listens on the addresses given to `add`, and tunnels each connection to a bridge.

    ``make_tunnel`` makes a tunnel from its settings. ``tell`` gets one line for each event; ``text_of`` makes the text
    of an error, with the layers of the settings. ``unix_mode`` are the permissions of a Unix socket.
    """

    def __init__(
        self,
        *,
        trace: Trace,
        tell: Callable[[str], None],
        text_of: Callable[[TunnelError, Layers | None], str] = lambda error, _: str(error),
        unix_mode: int = 0o600,
        make_tunnel: Callable[[Settings, Trace, Callable[[], Settings], Callable[[str], None]], Tunnel] = Tunnel,
    ) -> None:
        self._unix_mode = unix_mode
        self._places: list[tuple[ListeningSocket, Callable[[], Settings], str]] = []
        self._make_tunnel = make_tunnel
        self._trace = trace
        self._tell = tell
        self._text_of = text_of
        self._tunnels: set[Stop] = set()
        self._lock = threading.Lock()
        self._none_left = threading.Condition(self._lock)

    def add(self, listen: str, make_settings: Callable[[], Settings], name: str = "") -> None:
        """Also listen on ``listen``, which is as for ``--listen`` of the bridge.

        ``make_settings`` makes the settings of each tunnel; ``name`` is put before the lines about them. Raises
        UsageError, and DialError (``listen``) if it cannot listen.
        """
        for listener in open_listening([(listen, "LISTEN")], unix_mode=self._unix_mode):
            self._places.append((listener, make_settings, f"{name}: " if name else ""))

    @property
    def _listeners(self) -> list[ListeningSocket]:
        return [listener for listener, _, _ in self._places]

    @property
    def addresses(self) -> list[str]:
        """The addresses that it listens on, with the real ports."""
        return [str(listener.address) for listener in self._listeners]

    @property
    def is_open_to_all(self) -> bool:
        """Whether other machines can connect."""
        return not all(is_loopback(listener.address) for listener in self._listeners)

    def example(self) -> str:
        """Return an ssh command line that uses it."""
        address = self._listeners[0].address
        if isinstance(address, UnixAddress):
            return f"ssh -o ProxyCommand='nc -U {address.path}' USER@HOST"
        return f"ssh -p {address.port} USER@{'localhost' if is_loopback(address) else address.host}"

    def run(self) -> int:
        """Serve until a signal comes; return its exit code. Open tunnels are closed cleanly."""
        with SignalPipe() as signals, selectors.DefaultSelector() as selector:
            selector.register(signals, selectors.EVENT_READ)
            for place in self._places:
                selector.register(place[0].sock, selectors.EVENT_READ, place)
            try:
                while True:
                    for key, _ in selector.select():
                        if key.data is None:
                            return signals.caught()
                        listener, make_settings, name = key.data
                        self._accept(listener, make_settings, name, signals)
            finally:
                self._close()

    def _accept(
        self, listener: ListeningSocket, make_settings: Callable[[], Settings], name: str, signals: SignalPipe
    ) -> None:
        try:
            sock, sockaddr = listener.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as exc:
            self._tell(f"cannot accept connections at the moment: {exc.strerror or exc}")
            Waiter().wait({signals.fileno(): READ}, PAUSE)  # not epoll, which itself needs a descriptor
            return
        who = name + client_of(sockaddr).address
        with self._lock:
            if len(self._tunnels) >= MAX_CONNECTIONS:
                self._tell(f"{who}: refused: {MAX_CONNECTIONS} connections are open, which is the limit")
                reset(sock)
                return
            try:
                self._start(sock, who, make_settings)
            except TunnelError as exc:  # a token file is gone, for example, or no descriptor is left
                self._tell(f"{who}: {self._text_of(exc, None)}")
                reset(sock)

    def _start(self, sock: socket.socket, who: str, make_settings: Callable[[], Settings]) -> None:
        settings = make_settings()

        def notice(line: str) -> None:
            self._tell(f"{who}: {line}")

        def dial() -> Connection:
            return dial_when_up(tunnel.dial, settings.wait, notice) if settings.wait else tunnel.dial()

        def ended(failure: TunnelError | None) -> None:
            if failure is not None:
                notice(self._text_of(failure, settings.layers))
            with self._lock:
                self._tunnels.discard(stop)
                self._none_left.notify_all()

        tunnel = self._make_tunnel(settings, self._trace, make_settings, notice)
        stop = relay_in_thread(tunnel, dial, sock, ended=ended)
        self._tunnels.add(stop)

    def _close(self) -> None:
        for listener in self._listeners:
            listener.close()
        with self._lock:
            for stop in self._tunnels:
                stop.set()
            self._none_left.wait_for(lambda: not self._tunnels, EXIT_LIMIT)
