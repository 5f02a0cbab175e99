"""One SSH connection: who may log in, what may be forwarded, and the sessions of those who are in.

Runs in a process of its own (see `tunnel.ssh.server.listener`), as the bridge's user, whose name is the only one that
can log in, with a key.
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
_ATTEMPTS_LOGGED = 3  # per connection
# Without ChaCha20, which OpenSSH's client would choose if it was offered: AES is twice as fast here.
_CIPHERS = (
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr",
)  # fmt: skip
# The default ones, and which one is used is still the client's choice. But dropbear's client sends its first message of
# the exchange on a guess. RFC 4253 section 7 calls it right if key exchange and host key are the first choice of both;
# asyncssh, if the key exchange is the client's first, and then stumbles over the second, proper message. The two agree
# when this is first, and the host key is Ed25519.
_KEY_EXCHANGE = "^curve25519-sha256"


@dataclass(frozen=True)
class ServerConfig:
    """What all connections have in common."""

    user: User
    host_key: asyncssh.SSHKey
    authorized_keys: str | None
    events: Events
    agent_forwarding: bool = True


@dataclass(frozen=True)
class Peer:
    """A connection: its ``id`` in events, and the address (``HOST:PORT`` or a word) that the bridge knows it by."""

    id: int
    address: str

    @property
    def peername(self) -> tuple[str, int] | None:
        """The IP address, without an interface, and the port; None when the bridge does not know them."""
        host, _, port = self.address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]").partition("%")[0]
        try:
            return str(ipaddress.ip_address(host)), int(port)
        except ValueError:
            return None


async def serve(sock: socket.socket, config: ServerConfig, peer: Peer) -> None:
    """Serve the connection on ``sock``, which is taken over, to its end."""
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
        keepalive_interval=0,  # the tunnel has its own, and outlives lost connections
        gss_host=None,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
    )
    peername = peer.peername
    connection = Connection(options, peername and peername[0], login.data_came, login.refuse)
    await asyncio.get_running_loop().create_connection(lambda: connection, sock=_Socket(sock, peername))
    async with connection:
        await connection.wait_closed()  # also that of a client who gave up or could not log in, as `Login` has told


class _Socket(socket.socket):
    """The bridge's socketpair, whose other end is known by the client's address, as that of a TCP socket would be."""

    def __init__(self, sock: socket.socket, peername: tuple[str, int] | None) -> None:
        super().__init__(fileno=sock.detach())
        self._peername = peername

    def getpeername(self) -> Any:
        """Return the client's address and port, or what the socket tells."""
        return self._peername or super().getpeername()


class Login(asyncssh.SSHServer):
    """What asyncssh asks about one connection, and what there is to tell of it."""

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
        """Tell the bridge that the client has sent something."""
        self._config.events.tell("hello", id=self._peer.id)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._logged_in and self._user is not None:
            self.refuse("no key of the client's may log in")

    # ---- who may log in

    def begin_auth(self, username: str) -> bool:
        """Read who may log in; True: proof is needed."""
        if self._user is None:
            self._config.events.tell("begin", id=self._peer.id)
        self._user = username
        self._connection.keys = None
        if username != self._config.user.name:
            self.refuse(f"this server runs as {self._config.user.name}, which is the only user here")
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
        if grant is None:  # asyncssh has let somebody in on its own; nothing is allowed
            self._connection.abort()
            raise RuntimeError("a login without a credential")
        self._logged_in = True
        self._config.events.tell(
            "login", id=self._peer.id, user=self._user or "", key=grant.fingerprint, authority=grant.authority
        )

    def public_key_auth_supported(self) -> bool:
        return True

    def refuse(self, reason: str) -> None:
        """Tell why the client does not come in."""
        self._refused += 1
        if self._refused <= _ATTEMPTS_LOGGED:
            self._config.events.tell("refused", id=self._peer.id, user=self._user or "", reason=reason)

    # ---- what may be forwarded

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        """-L and -D: as far as the key's options allow, which asyncssh checks."""
        return True

    def unix_connection_requested(self, dest_path: str) -> bool:
        # A list of hosts and ports that may be reached names no Unix sockets.
        return self._connection.get_key_option("permitopen") is None

    def server_requested(self, listen_host: str, listen_port: int) -> Awaitable[asyncssh.SSHListener]:
        """-R: on loopback only, whatever the client asks for (as OpenSSH does with ``GatewayPorts no``)."""
        return self._connection.forward_local_port("127.0.0.1", listen_port, listen_host, listen_port)

    def unix_server_requested(self, listen_path: str) -> bool:
        return True

    def _warn(self, messages: list[str]) -> None:
        """Tell of lines of authorized_keys that admit nobody, once: clients may name one user after another."""
        for message in () if self._warned else messages:
            self._config.events.tell("warning", id=self._peer.id, message=message)
        self._warned = self._warned or bool(messages)
