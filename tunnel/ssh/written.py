"""The options and names of the last ``config-ssh --write``, so that other commands use the same."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from tunnel.client.options import parse_command_line
from tunnel.errors import UsageError
from tunnel.ssh.config import ACTIONS, CONFIG_SSH_OPTIONS, option_words
from tunnel.ssh.config_file import folder_of_ssh, own_path, written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Values


@dataclass(frozen=True)
class Written:
    """The last ``config-ssh --write``: its options and names, and the hosts and patterns that it wrote."""

    given: Values
    names: list[str]
    hosts: list[str]

    def covers(self, host: str) -> bool:
        """Return whether ``host`` is one of the hosts, or matches a pattern."""
        return any(_fits(host.lower(), pattern.lower()) for pattern in self.hosts)


def read_written(ssh_config: str) -> Written | None:
    """Return what was written for the file ``ssh_config``; None if nothing was, or it is not included any more.

    Raises UsageError for a file that cannot be parsed.
    """
    found = written(ssh_config)
    if found is None:
        return None
    line, hosts = found
    try:
        words = shlex.split(line)
        given, names = parse_command_line(words[2:], CONFIG_SSH_OPTIONS, "config-ssh")
    except (ValueError, UsageError) as exc:
        raise UsageError(
            f"{own_path(ssh_config)}: the command in its first lines cannot be parsed ({exc}); write the file again: "
            "wstunnel-py config-ssh --write"
        ) from exc
    return Written({name: value for name, value in given.items() if name not in ACTIONS}, names, hosts)


def dropped_options(ssh_config: str, made_by: str) -> list[str]:
    """Return the options, as words, that were written for ``ssh_config`` and are not in the command ``made_by``."""
    try:
        last = read_written(ssh_config)
    except UsageError:
        return []  # it is about to be written again
    if last is None:
        return []
    now, _ = parse_command_line(shlex.split(made_by)[2:], CONFIG_SSH_OPTIONS, "config-ssh")
    gone = {name: value for name, value in last.given.items() if name not in now}
    return option_words(gone, CONFIG_SSH_OPTIONS)


def options_for(host: str, ssh_config: str | None = None) -> Values:
    """Return the options with which ``host`` was written for ssh's config file; none if it was not written.

    ``ssh_config`` is the file that ssh uses. Raises UsageError.
    """
    folder = folder_of_ssh()
    if ssh_config is None and folder is not None:
        ssh_config = os.path.join(folder, "config")
    last = read_written(ssh_config) if ssh_config is not None and ssh_config.lower() != "none" else None
    if last is None or not last.covers(host):
        return {}
    left_out = {"all", "ports", "ssh-config"}
    if host.lower() in map(str.lower, last.hosts) and host.lower() not in map(str.lower, last.names):
        left_out.add("host-key-alias")  # it applies to patterns and named hosts only
    return {name: value for name, value in last.given.items() if name not in left_out}


def _fits(host: str, pattern: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return host == pattern
    return len(host) >= len(before) + len(after) and host.startswith(before) and host.endswith(after)
