"""A target at an address, usually the SSH server on this machine's loopback.

The bridge connects to it during the client's handshake, so that it can report a failure to the client.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
from dataclasses import dataclass
from typing import Any

from tunnel.errors import DialError, UsageError
from tunnel.net.address import Address, Client, TCPAddress, UnixAddress, is_loopback, join, parse_address
from tunnel.net.async_sockets import writable
from tunnel.net.error_texts import error_text
from tunnel.server.listening_sockets import is_listed
from tunnel.server.lookups import look_up
from tunnel.server.target import Target

_LOCAL_ROOM = 512 << 10  # bytes that a target on loopback may send ahead of the wire
_LOOK_LIMIT = 2.0  # seconds for a single connection attempt to find out whether anything answers
_NOBODY = Client("", None)
_BUSY_PAUSE = 0.05  # seconds between two tries at a Unix socket with a full backlog
_Addresses = list[tuple[int, tuple[Any, ...]]]  # family and address of each


@dataclass(frozen=True, slots=True)
class AddressTarget(Target):
    """A TCP or Unix address as the target."""

    address: Address

    def __str__(self) -> str:
        return str(self.address)

    async def dial(self, seconds: float, client: Client) -> socket.socket:
        """Return a connected non-blocking socket; ``seconds`` is the limit for all of the target's addresses together.

        The target does not learn which ``client`` the connection is for. Raises DialError; its code is ``tcp-timeout``
        if the time was over.
        """
        try:
            if isinstance(self.address, UnixAddress):
                async with asyncio.timeout(seconds):
                    return await _dial_unix(self.address.path)
            return await self._dial_tcp(self.address.host, self.address.port, seconds)
        except TimeoutError as exc:
            raise DialError("tcp-timeout", address=self, seconds=seconds) from exc
        except ConnectionRefusedError as exc:
            raise DialError("tcp-refused", address=self) from exc
        except OSError as exc:
            raise DialError("tcp", address=self, reason=_reason(exc)) from exc

    async def why_unanswered(self) -> str | None:
        if is_listed(self.address):
            return None
        try:
            (await self.dial(_LOOK_LIMIT, _NOBODY)).close()
        except DialError as exc:
            return None if exc.code == "tcp-timeout" else str(exc)
        return None

    async def _dial_tcp(self, host: str, port: int, seconds: float) -> socket.socket:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        found = await _resolve(host, port, seconds)
        failures: list[tuple[str, OSError]] = []
        for n, (family, sockaddr) in enumerate(found):
            # An address that does not answer must leave time for the others.
            share = max(0.0, end - loop.time()) / (len(found) - n)
            try:
                return await _dial_one(family, sockaddr, share)
            except OSError as exc:
                failures.append((join(str(sockaddr[0]), port), exc))
        if len(failures) == 1:
            raise failures[0][1]
        reasons = ", ".join(f"{address}: {_reason(exc)}" for address, exc in failures)
        if all(isinstance(exc, TimeoutError) for _, exc in failures):
            raise TimeoutError
        raise DialError("tcp", address=self, reason=reasons) from failures[-1][1]


def parse_target(text: str) -> Target:
    """Parse ``HOST:PORT`` or ``unix:PATH``; raises UsageError."""
    if text.isascii() and text.isdigit():
        raise UsageError(f"{text!r} has no host: write 127.0.0.1:{text} for a port of this machine", setting="target")
    address = parse_address(text, "target")
    if isinstance(address, UnixAddress) and not hasattr(socket, "AF_UNIX"):
        raise UsageError("this platform has no Unix sockets", setting="target")
    if not isinstance(address, UnixAddress) and not (address.host and address.port):
        raise UsageError(f"{text!r} needs a host and a port", setting="target")
    return AddressTarget(address)


async def _resolve(host: str, port: int, seconds: float) -> _Addresses:
    """Return the addresses of ``host``. Raises DialError if there are none, TimeoutError without an answer in time."""
    try:
        # An IP address, the usual case, needs no resolver, and so no thread to call it.
        return _numeric(host, port)
    except (socket.gaierror, UnicodeError):
        try:
            async with asyncio.timeout(seconds):
                found = await look_up(host, port)
        except (socket.gaierror, UnicodeError, RuntimeError) as exc:
            reason = exc.strerror if isinstance(exc, socket.gaierror) else exc
            raise DialError("dns", host=host, reason=reason) from exc
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


@functools.lru_cache(maxsize=8)
def _numeric(host: str, port: int) -> _Addresses:
    """Return the address of an IP address, which does not change. Raises gaierror for a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


@functools.lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    return is_loopback(TCPAddress(host, 0))


async def _dial_one(family: int, sockaddr: tuple[Any, ...], seconds: float) -> socket.socket:
    """Return a socket connected to an address. Raises OSError, TimeoutError if nothing answers."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if _is_loopback(sockaddr[0]):
            _bound_room(sock)
        peer = await _connect(sock, sockaddr, seconds)
        if sock.getsockname() == peer:
            # TCP's simultaneous open: nothing listens on a port of the ephemeral range, and the kernel chose the same
            # port for our end.
            raise ConnectionRefusedError(errno.ECONNREFUSED, error_text(errno.ECONNREFUSED))
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(sock: socket.socket, sockaddr: tuple[Any, ...], seconds: float) -> object:
    """Connect ``sock``, and return its peer's address. Raises OSError."""
    try:
        sock.connect(sockaddr)
    except BlockingIOError:
        pass  # as it always is
    try:
        # On loopback it is already connected. Checking costs less than a timer and a turn of the loop for each tunnel.
        return sock.getpeername()
    except OSError:
        async with asyncio.timeout(seconds):
            await writable(sock.fileno())
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, error_text(code))
    return sock.getpeername()


def _bound_room(sock: socket.socket) -> None:
    """Limit the receive buffer to `_LOCAL_ROOM`; the kernel would let it grow as for a long-distance connection."""
    if hasattr(socket, "TCP_WINDOW_CLAMP"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, _LOCAL_ROOM)


async def _dial_unix(path: str) -> socket.socket:
    # Not with the loop's sock_connect, which takes EAGAIN (here a full backlog) for a connection in progress.
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_BUSY_PAUSE)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


def _reason(exc: OSError) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return error_text(exc.errno) if exc.errno else str(exc)  # asyncio's own text would repeat the address
