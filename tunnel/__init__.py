"""SSH over WebSocket for sandboxes: a ProxyCommand for ssh, and the bridge that it talks to.

Importing this package costs next to nothing; each public name is imported when it is first used.
"""

from tunnel._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.sockets import TunnelSocket, open_socket
    from tunnel.client.streams import open_connection
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
    from tunnel.pty.client.aio import AsyncSandbox
    from tunnel.pty.client.model import PtySize
    from tunnel.pty.client.sync import Sandbox
    from tunnel.run import serve

_HOMES = {
    "AsyncSandbox": "tunnel.pty.client.aio",
    "ConnectionLost": "tunnel.errors",
    "DialError": "tunnel.errors",
    "LocalProtocolError": "tunnel.errors",
    "PtySize": "tunnel.pty.client.model",
    "RemoteProtocolError": "tunnel.errors",
    "Sandbox": "tunnel.pty.client.sync",
    "TerminalError": "tunnel.errors",
    "TunnelError": "tunnel.errors",
    "UpgradeRefused": "tunnel.errors",
    "UsageError": "tunnel.errors",
    "TunnelSocket": "tunnel.client.sockets",
    "open_connection": "tunnel.client.streams",
    "open_socket": "tunnel.client.sockets",
    "serve": "tunnel.run",
}

__all__ = [  # noqa: RUF022  # the version first
    "__version__",
    "AsyncSandbox",
    "ConnectionLost",
    "DialError",
    "LocalProtocolError",
    "PtySize",
    "RemoteProtocolError",
    "Sandbox",
    "TerminalError",
    "TunnelError",
    "UpgradeRefused",
    "UsageError",
    "TunnelSocket",
    "open_connection",
    "open_socket",
    "serve",
    "ssh",
]


def __getattr__(name: str) -> object:
    """Import the room that a public name lives in (PEP 562)."""
    if name == "ssh":
        import tunnel.ssh

        return tunnel.ssh
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    from tunnel.errors import optional_packages

    with optional_packages():
        module = importlib.import_module(_HOMES[name])
    return getattr(module, name)
