"""The target: where the bytes of a tunnel go, usually the SSH server on this machine's loopback.

It is dialled while the client's handshake waits, so that the client can be told why there is no tunnel.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from typing import Any

from tunnel.errors import DialError, UsageError
from tunnel.net.address import Address, Client, UnixAddress, join, parse_address
from tunnel.net.async_sockets import writable
from tunnel.net.channel import set_nodelay
from tunnel.server.listening_sockets import is_listed
from tunnel.server.target import Target

_LOCAL_ROOM = 512 << 10  # bytes that a target on loopback may send ahead of the wire
_LOOK_LIMIT = 2.0  # seconds for the one attempt to connect that finds out whether anything answers
_NOBODY = Client("", None)
_BUSY_PAUSE = 0.05  # seconds between two tries at a Unix socket with a full backlog


@dataclass(frozen=True, slots=True)
class AddressTarget(Target):
    """A TCP or Unix address that tunnels lead to."""

    address: Address

    def __str__(self) -> str:
        return str(self.address)

    async def dial(self, seconds: float, client: Client) -> socket.socket:
        """Return a connected non-blocking socket; ``seconds`` are for all of the target's addresses together.

        The target is not told who ``client`` is, for whom the connection is.

        Raises DialError; its cause is ``tcp-timeout`` when the time was over.
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
    address = parse_address(text, "target")
    if not isinstance(address, UnixAddress) and not (address.host and address.port):
        raise UsageError(f"{text!r} needs a host and a port", setting="target")
    return AddressTarget(address)


async def _resolve(host: str, port: int, seconds: float) -> list[tuple[int, tuple[Any, ...]]]:
    """Return the addresses of ``host``; raises DialError when it has none, TimeoutError when nobody says so in time."""
    try:
        # An IP address, the usual case, asks no resolver and so needs no thread to ask it from.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        try:
            async with asyncio.timeout(seconds):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as exc:
            reason = exc.strerror if isinstance(exc, socket.gaierror) else exc
            raise DialError("dns", host=host, reason=reason) from exc
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


async def _dial_one(family: int, sockaddr: tuple[Any, ...], seconds: float) -> socket.socket:
    """Return a socket connected to an address. Raises OSError; TimeoutError when nothing answers."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        set_nodelay(sock)
        if ipaddress.ip_address(sockaddr[0].partition("%")[0]).is_loopback:
            _bound_room(sock)
        peer = await _connect(sock, sockaddr, seconds)
        if sock.getsockname() == peer:
            # TCP's simultaneous open: nothing listens on a port of the ephemeral range, and the kernel chose that
            # very port for our end.
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
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
        # On loopback it is connected by now. To ask costs less than a timer and a turn of the loop for every tunnel.
        return sock.getpeername()
    except OSError:
        async with asyncio.timeout(seconds):
            await writable(sock.fileno())
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, os.strerror(code))
    return sock.getpeername()


def _bound_room(sock: socket.socket) -> None:
    """Let no more than `_LOCAL_ROOM` wait in a receive buffer: as if the line was long, the kernel lets it grow."""
    if hasattr(socket, "TCP_WINDOW_CLAMP"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, _LOCAL_ROOM)


async def _dial_unix(path: str) -> socket.socket:
    # Not by the loop's sock_connect: it takes EAGAIN, a full backlog here, for a connection in progress.
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
    return os.strerror(exc.errno) if exc.errno else str(exc)  # asyncio has a text of its own, with the address
