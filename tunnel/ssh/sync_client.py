"""SSH through a tunnel for programs without asyncio: paramiko over a `tunnel.client.sockets.TunnelSocket`.

The defaults are those of `tunnel.ssh.connect`: asyncssh reads ``~/.ssh/config`` and the known hosts, with all their
features (patterns, hashed names, revoked keys), and the results are passed to paramiko.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import asyncssh
import paramiko
from paramiko.pkey import UnknownKeyType

from tunnel.client.sockets import open_socket
from tunnel.net.home import expand_home, home_folder

if TYPE_CHECKING:
    from tunnel.client.tunnel_options import TunnelOptions

File = str | os.PathLike[str]
Files = File | Sequence[File]


def paramiko_client(
    host: str,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    tunnel_options: TunnelOptions | None = None,
    username: str | None = None,
    password: str | None = None,
    client_keys: Files | None = (),
    passphrase: str | None = None,
    agent: bool = True,
    known_hosts: Files | bytes | None = (),
    host_key_alias: str | None = None,
    config: Files | None = (),
    login_timeout: float = 120.0,
    keepalive_interval: float | None = None,
) -> paramiko.SSHClient:
    """Return a paramiko client that is logged in through a tunnel to ``host``, which is as for `tunnel.open_socket`.

    This is `tunnel.ssh.connect` for programs without asyncio: the options have the same names and defaults. ``token``,
    ``headers`` and ``tunnel_options`` are for the tunnel.

    - ``username``, ``password``: by default the user of ``~/.ssh/config``, else the local one, and no password.
    - ``client_keys``: files of private keys, ``passphrase`` opens them. By default those of ``~/.ssh/config``, else
      ``~/.ssh/id_*``; None: no key. ``agent``: also ask the agent at ``SSH_AUTH_SOCK``.
    - ``known_hosts``: files, or the content of one as bytes. By default those of ``~/.ssh/config``, else
      ``~/.ssh/known_hosts``. A host that is not in them is refused. None: any host key is accepted.
    - ``host_key_alias``: the name to look up in known hosts instead of ``host``.
    - ``config``: files to use instead of ``~/.ssh/config``; None: no file. ProxyCommand and ProxyJump do not apply.
    - ``login_timeout``: seconds for each of key exchange and authentication.
    - ``keepalive_interval``: seconds of silence after which a keepalive request is sent. A missing answer does not end
      the connection, so that the tunnel can be resumed.

    Close the client to end the tunnel, or use it with ``with``. Raises DialError, UsageError, and paramiko's own
    errors: BadHostKeyException for a host key other than the known one, AuthenticationException, SSHException.
    """
    given = {"username": username, "host_key_alias": host_key_alias, "keepalive_interval": keepalive_interval}
    options = asyncssh.SSHClientConnectionOptions(
        host=host, config=_paths(config), known_hosts=_paths(known_hosts), client_keys=None,
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip
    keys = _paths(client_keys)
    if client_keys == ():
        keys = options.config.get("IdentityFile", ())
    trusted = options.known_hosts
    if known_hosts == () and isinstance(trusted, list):
        # As for ssh, a file of ~/.ssh/config that does not exist has no keys.
        trusted = [file for file in trusted if isinstance(file, str) and os.access(expand_home(file), os.R_OK)] or b""
    check = HostKeyCheck(options.host_key_alias or options.host, trusted)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(check)  # always called, as the client itself has no keys
    sock = open_socket(host, token=token, headers=headers, **(tunnel_options or {}))
    try:
        client.connect(
            check.name, sock=sock, username=options.username, password=password, passphrase=passphrase,
            key_filename=keys or None, look_for_keys=client_keys == () and not keys,
            allow_agent=agent and client_keys is not None, timeout=login_timeout, banner_timeout=login_timeout,
            auth_timeout=login_timeout, transport_factory=check.make_transport,
        )  # fmt: skip
        transport = client.get_transport()
        if transport is not None and options.keepalive_interval:
            transport.set_keepalive(math.ceil(options.keepalive_interval))
    except BaseException:
        client.close()
        sock.close()
        raise
    return client


class HostKeyCheck(paramiko.MissingHostKeyPolicy):
    """Checks host keys against those of ``name`` in known hosts. With None as ``known_hosts`` any key is accepted."""

    def __init__(self, name: str, known_hosts: Any) -> None:
        self.name = name
        self._checks = known_hosts is not None
        self._keys: dict[bytes, paramiko.PKey] = {}
        self._revoked: set[bytes] = set()
        if self._checks:
            home = home_folder()
            default = os.path.join(home, ".ssh", "known_hosts") if home else ""
            known_hosts = known_hosts or (default if os.access(default, os.R_OK) else b"")
            trusted, _, revoked, *_ = asyncssh.match_known_hosts(known_hosts, name, "", None)
            self._revoked = {key.public_data for key in revoked}
            for key in trusted:
                with contextlib.suppress(UnknownKeyType):  # of a kind that paramiko does not support
                    self._keys[key.public_data] = paramiko.PKey.from_type_string(
                        key.algorithm.decode(), key.public_data
                    )

    def make_transport(self, sock: Any, **options: Any) -> paramiko.Transport:
        """Return a transport that requests a host key of a known kind, as the server may have several."""
        transport = paramiko.Transport(sock, **options)
        security = transport.get_security_options()
        kinds = {key.get_name() for key in self._keys.values()}
        known = [kind for kind in security.key_types if ("ssh-rsa" if kind.startswith("rsa-sha2") else kind) in kinds]
        security.key_types = known or security.key_types
        return transport

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Raise SSHException, or BadHostKeyException if another key is known, unless ``key`` is trusted."""
        shown = key.asbytes()
        if shown in self._revoked:
            raise paramiko.SSHException(f"the host key of {self.name} is revoked in known hosts")
        if self._checks and not self._keys:
            raise paramiko.SSHException(
                f"known hosts have no key for {self.name}: add {key.get_name()} {key.get_base64()}, or name the entry "
                "to use with host_key_alias"
            )
        if self._checks and shown not in self._keys:
            raise paramiko.BadHostKeyException(self.name, key, next(iter(self._keys.values())))


def _paths(files: Files | bytes | None) -> Any:
    """Return files in a form for asyncssh; its empty tuple, None and bytes are unchanged."""
    if files is None or files == () or isinstance(files, bytes):
        return files
    return [expand_home(os.fspath(file)) for file in ((files,) if isinstance(files, str | os.PathLike) else files)]
