"""SSH through a tunnel for asyncio programs: asyncssh over a `tunnel.client.sockets.TunnelSocket`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asyncssh

from tunnel.client.sockets import open_socket
from tunnel.client.streams import Opening, open_in_thread

if TYPE_CHECKING:
    from tunnel.client.tunnel_options import TunnelOptions


def connect(
    host: str,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    tunnel_options: TunnelOptions | None = None,
    **ssh_options: Any,
) -> Opening[asyncssh.SSHClientConnection]:
    """Open an SSH connection through a tunnel to ``host``, which is as for `tunnel.open_socket`.

    ``token``, ``headers`` and ``tunnel_options`` are for the tunnel; ``ssh_options`` are those of
    `asyncssh.connect` (``username``, ``client_keys``, ``known_hosts``, ``host_key_alias``, …). ``await`` it, or use it
    with ``async with``. Raises DialError, UsageError, and asyncssh's own errors.
    """
    opening = functools.partial(open_socket, host, token=token, headers=headers, **(tunnel_options or {}))

    async def open_connection() -> asyncssh.SSHClientConnection:
        sock = await open_in_thread(opening)
        try:
            return await asyncssh.connect(host, sock=sock, **ssh_options)
        except BaseException:
            sock.close()
            raise

    return Opening(open_connection, _close)


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    await connection.wait_closed()
