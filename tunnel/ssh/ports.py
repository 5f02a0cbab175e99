"""A local port for each host of the config file, which stays the same when hosts are added or removed.

``forward-port`` in a host's table sets it. Every other host gets a port derived from its name, which is stored in a
file of the user. So ``config-ssh --ports`` and ``forward --all`` use the same ports, whichever is started first.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Sequence

from tunnel.errors import UsageError
from tunnel.net.home import base_folder, wanted_home
from tunnel.ssh.config_file import Change, apply, changed, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Config

LOWEST, HIGHEST = 20_000, 31_999  # below the ports that systems give to outgoing connections
FILE_NAME = "ports"
HEAD = (
    "# Ports of this machine for the hosts of config.toml, made by wstunnel-py config-ssh --ports and forward --all.\n"
)
ATTEMPTS = 5  # to write the file while other programs write it


def local_ports(config: Config, hosts: Sequence[str]) -> dict[str, int]:
    """Return the port for each of ``hosts``, by their names in lower case; new ones are written to the file.

    Raises UsageError if two hosts have the same port, or the file cannot be used.
    """
    names = [name.lower() for name in hosts]
    chosen = _chosen(config, names)
    if len(chosen) == len(names):
        return chosen
    for attempt in range(1, ATTEMPTS + 1):
        file = read_file(_path())
        known = _parse(file)
        ports = _complete(names, chosen, known)
        new = {**known, **{name: port for name, port in ports.items() if name not in chosen}}
        if new == known:
            break
        try:
            apply([changed(file, _text(new))])
            break
        except UsageError as exc:
            if exc.code != "file-changed" or attempt == ATTEMPTS:
                raise
    return ports


def _chosen(config: Config, names: Iterable[str]) -> dict[str, int]:
    """Return the ports that the config file sets."""
    chosen: dict[str, int] = {}
    owners: dict[int, str] = {}
    for name in names:
        value = config.hosts[name].get("forward-port")
        if not isinstance(value, int):
            continue
        if value in owners:
            raise UsageError(
                f"{config.path}: hosts.{owners[value]} and hosts.{name} have the same forward-port {value}"
            )
        owners[value] = name
        chosen[name] = value
    return chosen


def _complete(names: Sequence[str], chosen: dict[str, int], known: dict[str, int]) -> dict[str, int]:
    """Return a port for each of ``names``: ``chosen``, else ``known``, else an unused one."""
    ports = dict(chosen)
    taken = {*chosen.values(), *known.values()}
    for name in names:
        if name in ports:
            continue
        port = known.get(name)
        if port is None or port in chosen.values():
            port = _free(name, taken)
        ports[name] = port
        taken.add(port)
    return ports


def _free(name: str, taken: set[int]) -> int:
    """Return a port that is not ``taken``, derived from the name, so that losing the file changes few ports."""
    count = HIGHEST - LOWEST + 1
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % count
    for step in range(count):
        port = LOWEST + (first + step) % count
        if port not in taken:
            return port
    raise UsageError(f"no port is left for {name}: delete {_path()}, which still has the ports of removed hosts")


def _path() -> str:
    if sys.platform == "darwin":
        base = base_folder("", "Library", "Application Support")
    else:
        base = base_folder("XDG_STATE_HOME", ".local", "state")
    return os.path.join(base or wanted_home("the ports of hosts"), "wstunnel-py", FILE_NAME)


def _parse(file: Change) -> dict[str, int]:
    ports: dict[str, int] = {}
    lines = (file.before or b"").decode(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        port, _, name = line.strip().partition(" ")
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536 and name):
            raise UsageError(f"{file.path}: line {number} is not a port and a host: correct it, or delete the file")
        ports[name] = int(port)
    return ports


def _text(ports: dict[str, int]) -> bytes:
    return (HEAD + "".join(f"{port} {name}\n" for name, port in sorted(ports.items()))).encode()
