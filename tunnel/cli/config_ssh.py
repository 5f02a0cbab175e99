"""``wstunnel-py config-ssh``: an ssh_config for hosts behind bridges."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from tunnel.cli.direct import DirectCommand, parameter
from tunnel.client.options import Option, parse_command_line
from tunnel.client.trace import say
from tunnel.errors import UsageError
from tunnel.ssh.config import ACTIONS, CONFIG_SSH_OPTIONS, generate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.ssh.config_file import Change

DIFFERENT = 1  # exit code of --diff when there is a difference, as that of diff(1)


def _config_ssh(words: list[str]) -> int:
    given, names = parse_command_line(words, CONFIG_SSH_OPTIONS, "config-ssh")
    write, show, remove = (given.get(name) is True for name in ACTIONS)
    if write and (show or remove):
        raise UsageError(f"--write and --{'diff' if show else 'remove'} exclude each other")
    if given.get("all") is True and not names:
        raise UsageError("--all is for a NAME besides: without one, all hosts are written")
    if remove and names:
        raise UsageError("--remove removes all hosts; to keep some of them: wstunnel-py config-ssh --write NAME…")
    from tunnel.ssh.config_file import default_path, diff, plan_remove, plan_write

    def ssh_config() -> str:
        return str(given["ssh-config"]) if "ssh-config" in given else default_path()

    if remove:
        changes = plan_remove(ssh_config())
    else:
        generated = generate(names, given, sys.argv[0])
        if generated.left_out and given.get("quiet") is not True:
            say(f"left out of {generated.source}: {', '.join(generated.left_out)}")
        if not (write or show):
            click.echo(generated.text, nl=False)
            return 0
        changes = plan_write(ssh_config(), generated.text, generated.made_by)
    if show:
        click.echo(diff(changes), nl=False)
        return DIFFERENT if any(change.is_one for change in changes) else 0
    make(changes)
    if write and "ssh-config" not in given:
        warn_of_home(ssh_config())
    return 0


def make(changes: Sequence[Change]) -> None:
    """Make the changes, and tell of them on standard output. Raises UsageError."""
    from tunnel.ssh.config_file import apply, report

    apply(changes)
    for line in report(changes):
        click.echo(line)


def warn_of_home(ssh_config: str) -> None:
    """Warn if ssh does not read this file by itself."""
    from tunnel.ssh.config_file import folder_of_ssh

    if os.path.dirname(ssh_config) != folder_of_ssh():
        say(f"warning: HOME is not the home of your account, so ssh needs to be told: ssh -F {ssh_config}")


def without_variable(option: Option) -> click.Option:
    """As for other commands, but for the variable: `connect` reads that when ssh starts it, this command does not."""
    shown = parameter(option)
    shown.envvar, shown.show_envvar = None, False
    return shown


config_ssh = DirectCommand(
    "config-ssh",
    _config_ssh,
    options=CONFIG_SSH_OPTIONS,
    params=[
        *map(without_variable, CONFIG_SSH_OPTIONS),
        click.Argument(["name"], nargs=-1, metavar="[NAME]…"),
    ],
    short_help="Write the ssh_config for hosts behind bridges.",
    help=(
        "Print ssh_config lines that make `ssh NAME`, and every program that reads ssh_config, use a tunnel. "
        "--write puts them in place, --diff shows what that would change, --remove undoes it.\n\n"
        "NAME is a host as for connect, or a pattern of the config file. Without NAME, the lines are for all hosts of "
        "the config file and for *.e2b, so that ID.e2b is the E2B sandbox ID. Options of connect become part of the "
        "ProxyCommand; variables do not. user, identity-file and host-key-alias may also stand in the config file, for "
        "a host or a pattern. Your own settings for these hosts go into ~/.ssh/config as usual, below the "
        "Include.\n\n"
        "--ports is for tools that take no ProxyCommand: the blocks of the config file's hosts get 127.0.0.1 and a "
        "port that `wstunnel-py forward --all` serves, which must run then. A host keeps its port, whatever hosts "
        "come and go; forward-port in its table chooses another.\n\n"
        "Host keys are kept in a separate file, and new ones are accepted. If a sandbox comes back with the same ID "
        "and another key: ssh-keygen -R ID.e2b -f ~/.ssh/known_hosts.wstunnel-py."
    ),
)
