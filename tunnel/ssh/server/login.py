"""One SSH connection: who may log in, what may be forwarded, and what runs in its sessions.

It runs in its own process (see `tunnel.ssh.server.listener`) as the bridge's user. Only that user can log in, with a
key or a certificate.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import asyncssh

from tunnel.children.users import User
from tunnel.errors import UsageError
from tunnel.ssh.server.commands import run_command
from tunnel.ssh.server.connection import Connection
from tunnel.ssh.server.files import Files
from tunnel.ssh.server.keys import load_authorized_keys
from tunnel.ssh.server.messages import Events

LOGIN_LIMIT = 60.0  # seconds from the first byte to the login
_ATTEMPTS_LOGGED = 3  # refused attempts per connection
# Without ChaCha20, which OpenSSH's client would prefer: AES is twice as fast here.
_CIPHERS = (
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr",
)  # fmt: skip
# The default ones; the client still chooses. But dropbear's client guesses the method and sends the first message of
# the exchange at once. By RFC 4253 section 7 the guess is right if key exchange and host key are the first choice of
# both sides. For asyncssh it is right if the key exchange is the client's first choice, and then the second, correct
# message is an error. With this method first, and an Ed25519 host key, both agree.
_KEY_EXCHANGE = "^curve25519-sha256"


@dataclass(frozen=True)
class ServerConfig:
    """What all connections share."""

    user: User
    host_key: asyncssh.SSHKey
    authorized_keys: str | None
    events: Events
    agent_forwarding: bool = True


@dataclass(frozen=True)
class Peer:
    """The client of a connection: its ``id`` in events, and its address (``HOST:PORT`` or a word) from the bridge."""

    id: int
    address: str

    @property
    def peername(self) -> tuple[str, int] | None:
        """The IP address, without an interface, and the port; None if the bridge does not know them."""
        host, _, port = self.address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]").partition("%")[0]
        try:
            return str(ipaddress.ip_address(host)), int(port)
        except ValueError:
            return None


async def serve(sock: socket.socket, config: ServerConfig, peer: Peer) -> None:
    """Serve the connection on ``sock``, which it owns from now on, until it ends."""
    login = Login(config, peer)
    options = await asyncssh.SSHServerConnectionOptions.construct(
        server_factory=lambda: login,
        server_host_keys=[config.host_key],
        process_factory=lambda process: run_command(process, config.user, peer.address),
        sftp_factory=Files,
        encoding=None,
        line_editor=False,
        x11_forwarding=False,
        agent_forwarding=config.agent_forwarding,
        kex_algs=_KEY_EXCHANGE,
        encryption_algs=_CIPHERS,
        login_timeout=LOGIN_LIMIT,
        keepalive_interval=0,  # the tunnel has its own keepalive, and survives lost connections
        gss_host=None,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
    )
    peername = peer.peername
    connection = Connection(options, peername and peername[0], login.data_came, login.refuse)
    await asyncio.get_running_loop().create_connection(lambda: connection, sock=_Socket(sock, peername))
    async with connection:
        await connection.wait_closed()  # also for a client that could not log in, which `Login` has logged


class _Socket(socket.socket):
    """A socket from the bridge that reports the client's address as its peer, like a TCP socket."""

    def __init__(self, sock: socket.socket, peername: tuple[str, int] | None) -> None:
        super().__init__(fileno=sock.detach())
        self._peername = peername

    def getpeername(self) -> Any:
        """Return the client's address and port, or the real peer if they are unknown."""
        return self._peername or super().getpeername()


class Login(asyncssh.SSHServer):
    """Answers asyncssh's questions about one connection, and reports events to the bridge."""

    def __init__(self, config: ServerConfig, peer: Peer) -> None:
        self._config = config
        self._peer = peer
        self._user: str | None = None
        self._refused = 0
        self._warned = False
        self._logged_in = False

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        if not isinstance(conn, Connection):
            raise TypeError(conn)
        self._connection = conn

    def data_came(self) -> None:
        """Report to the bridge that the client has sent data."""
        self._config.events.tell("hello", id=self._peer.id)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._logged_in and self._user is not None:
            self.refuse("none of the client's keys is authorized")

    # --- Authentication

    def begin_auth(self, username: str) -> bool:
        """Read the authorized keys; return True, because every user needs a key."""
        if self._user is None:
            self._config.events.tell("begin", id=self._peer.id)
        self._user = username
        self._connection.keys = None
        if username != self._config.user.name:
            self.refuse(f"only {self._config.user.name} can log in, the user this server runs as")
            return True
        warnings: list[str] = []
        try:
            keys, _ = load_authorized_keys(self._config.authorized_keys, warnings.append)
        except UsageError as exc:
            self.refuse(str(exc))
            return True
        finally:
            self._warn(warnings)
        self._connection.keys = keys
        self._connection.set_authorized_keys(keys)
        return True

    def auth_completed(self) -> None:
        grant = self._connection.grant
        if grant is None:  # asyncssh has accepted a login that was never judged
            self._connection.abort()
            raise RuntimeError("login without a credential")
        self._logged_in = True
        self._config.events.tell(
            "login", id=self._peer.id, user=self._user or "", key=grant.fingerprint, authority=grant.authority
        )

    def public_key_auth_supported(self) -> bool:
        return True

    def refuse(self, reason: str) -> None:
        """Report why a login attempt failed."""
        self._refused += 1
        if self._refused <= _ATTEMPTS_LOGGED:
            self._config.events.tell("refused", id=self._peer.id, user=self._user or "", reason=reason)

    # --- Forwarding

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        """Allow -L and -D; asyncssh checks the key's options."""
        return True

    def unix_connection_requested(self, dest_path: str) -> bool:
        # A key with a list of permitted hosts and ports permits no Unix sockets.
        return self._connection.get_key_option("permitopen") is None

    def server_requested(self, listen_host: str, listen_port: int) -> Awaitable[asyncssh.SSHListener]:
        """Allow -R, but listen on loopback only, as OpenSSH does with ``GatewayPorts no``."""
        return self._connection.forward_local_port("127.0.0.1", listen_port, listen_host, listen_port)

    def unix_server_requested(self, listen_path: str) -> bool:
        return True

    def _warn(self, messages: list[str]) -> None:
        """Report ignored lines of authorized_keys, once per connection: a client may try one user after another."""
        for message in () if self._warned else messages:
            self._config.events.tell("warning", id=self._peer.id, message=message)
        self._warned = self._warned or bool(messages)
