"""SSH: clients for programs, the embedded server, ssh's configuration, and diagnosis.

Importing this is cheap: each public name is imported on first use.

- `client`: asyncssh through a tunnel. `sync_client`: paramiko through a tunnel.
- `embedded`: the embedded server as a target of the bridge. `server_process`: one of its processes, which run
  `server`. `logins`: its pending logins.
- `config`, `config_file`: the files of ``config-ssh``. `quoting`: quotes for them. `ports`: local ports for hosts.
- `programs`: ssh, scp, sftp and rsync through a tunnel. `command_lines`: parses their command lines. `written`: reads
  what `config_file` wrote before. `editors`: starts editors on a host. `host_key`: keys of SSH servers.
- `doctor`: checks each hop to a bridge. `buffering`, `speed_test`: two of its measurements.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.ssh.client import connect
    from tunnel.ssh.sync_client import paramiko_client

_HOMES = {"connect": "tunnel.ssh.client", "paramiko_client": "tunnel.ssh.sync_client"}

__all__ = ["connect", "paramiko_client"]


if not TYPE_CHECKING:  # so that type checkers report unknown names

    def __getattr__(name: str) -> object:
        """Import the module of a public name, with asyncssh or paramiko, on first use (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        from tunnel.errors import optional_packages

        with optional_packages():
            module = importlib.import_module(_HOMES[name])
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
