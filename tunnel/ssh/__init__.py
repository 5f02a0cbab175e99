"""SSH itself: clients for programs, the embedded server, ssh's configuration, and diagnosis.

Importing this costs nothing; each public name is imported when it is first used.

- `client`: asyncssh through a tunnel. `sync_client`: paramiko through a tunnel.
- `embedded`: the embedded server as a target of the bridge. `logins`: its pending logins. `server`: its processes.
- `config`, `config_file`: what ``config-ssh`` writes. `quoting`: its words. `ports`: ports of this machine for hosts.
- `programs`: ssh, scp, sftp and rsync through a tunnel. `command_lines`: theirs. `written`: what `config_file` wrote
  before. `editors`: how they are started on a host. `host_key`: keys of SSH servers.
- `doctor`: checks each hop to a bridge. `buffering`, `speed_test`: two of its measurements.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.ssh.client import connect
    from tunnel.ssh.sync_client import paramiko_client

_HOMES = {"connect": "tunnel.ssh.client", "paramiko_client": "tunnel.ssh.sync_client"}

__all__ = ["connect", "paramiko_client"]


if not TYPE_CHECKING:  # a type checker is to find names that there are not

    def __getattr__(name: str) -> object:
        """Import a public name, and asyncssh or paramiko with it, when it is first used (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        from tunnel.errors import optional_packages

        with optional_packages():
            module = importlib.import_module(_HOMES[name])
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
