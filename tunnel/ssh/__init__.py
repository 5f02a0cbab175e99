"""What is about SSH itself. Importing this costs nothing; each public name is imported when it is first used."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.ssh.client import connect

__all__ = ["connect"]


def __getattr__(name: str) -> object:
    """Import `connect`, and asyncssh with it, when it is first used (PEP 562)."""
    if name != "connect":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tunnel.errors import optional_packages

    with optional_packages():
        from tunnel.ssh.client import connect

    return connect
