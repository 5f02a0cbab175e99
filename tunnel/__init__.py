"""SSH over WebSocket for sandboxes: a ProxyCommand for ssh, and the bridge that it talks to.

Importing this package is cheap: each public name is imported on first use.

- Tunnels: `open_socket` (a socket), `open_connection` (asyncio's streams), `ssh.connect` (asyncssh),
  `ssh.paramiko_client` (paramiko). `TunnelOptions`: the options that all of them take.
- The bridge: `serve`.
- Terminals: `Sandbox` and `AsyncSandbox`, with the extra ``[pty]``.
- Errors: `TunnelError` and the classes below it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel import ssh
    from tunnel._version import __version__
    from tunnel.client.sockets import TunnelSocket, open_socket
    from tunnel.client.streams import open_connection
    from tunnel.client.tunnel_options import TunnelOptions
    from tunnel.errors import (
        ConnectionLost,
        DialError,
        LocalProtocolError,
        RemoteProtocolError,
        TerminalError,
        TunnelError,
        UpgradeRefused,
        UsageError,
    )
    from tunnel.pty.client.aio import AsyncSandbox, AsyncTerminal
    from tunnel.pty.client.model import ProcessInfo, PtySize, Result
    from tunnel.pty.client.sync import Sandbox, Terminal
    from tunnel.run import serve
    from tunnel.server.bridge import Bridge

# Public name → the module that has it; "": the name is a module itself.
_HOMES = {
    "AsyncSandbox": "tunnel.pty.client.aio",
    "AsyncTerminal": "tunnel.pty.client.aio",
    "Bridge": "tunnel.server.bridge",
    "ConnectionLost": "tunnel.errors",
    "DialError": "tunnel.errors",
    "LocalProtocolError": "tunnel.errors",
    "ProcessInfo": "tunnel.pty.client.model",
    "PtySize": "tunnel.pty.client.model",
    "RemoteProtocolError": "tunnel.errors",
    "Result": "tunnel.pty.client.model",
    "Sandbox": "tunnel.pty.client.sync",
    "Terminal": "tunnel.pty.client.sync",
    "TerminalError": "tunnel.errors",
    "TunnelError": "tunnel.errors",
    "TunnelOptions": "tunnel.client.tunnel_options",
    "TunnelSocket": "tunnel.client.sockets",
    "UpgradeRefused": "tunnel.errors",
    "UsageError": "tunnel.errors",
    "__version__": "tunnel._version",
    "open_connection": "tunnel.client.streams",
    "open_socket": "tunnel.client.sockets",
    "serve": "tunnel.run",
    "ssh": "",
}
_NEED_HTTPX = ("AsyncSandbox", "AsyncTerminal", "Sandbox", "Terminal")

__all__ = [  # noqa: RUF022  # the version first
    "__version__",
    "AsyncSandbox",
    "AsyncTerminal",
    "Bridge",
    "ConnectionLost",
    "DialError",
    "LocalProtocolError",
    "ProcessInfo",
    "PtySize",
    "RemoteProtocolError",
    "Result",
    "Sandbox",
    "Terminal",
    "TerminalError",
    "TunnelError",
    "TunnelOptions",
    "TunnelSocket",
    "UpgradeRefused",
    "UsageError",
    "open_connection",
    "open_socket",
    "serve",
    "ssh",
]


if not TYPE_CHECKING:  # so that type checkers report unknown names

    def __getattr__(name: str) -> object:
        """Import the module of a public name (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        if not _HOMES[name]:
            return importlib.import_module(f"{__name__}.{name}")
        from tunnel.errors import optional_packages

        with optional_packages():
            module = importlib.import_module(_HOMES[name])
        return getattr(module, name)


def __dir__() -> "list[str]":  # in quotes, as Python 3.8 cannot evaluate it, and must reach __main__, which says so
    """Return the public names, for ``dir``, ``help`` and Tab; without those of terminals if the extra is missing."""
    from importlib.util import find_spec

    missing = () if find_spec("httpx") else _NEED_HTTPX
    special = [name for name in globals() if name.startswith("__")]
    return sorted(name for name in {*special, *__all__} if name not in missing)
