"""``wstunnel-py config-ssh``: writes the ssh_config for hosts behind bridges."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

import click

from tunnel.cli.direct import DirectCommand, parameter
from tunnel.client.options import Option, parse_command_line
from tunnel.client.trace import say
from tunnel.errors import UsageError
from tunnel.net.standard_streams import write_for_programs
from tunnel.ssh.config import ACTIONS, CONFIG_SSH_OPTIONS, generate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.ssh.config_file import Change

DIFFERENT = 1  # exit code of --diff when there is a difference, as for diff(1)


def _config_ssh(words: list[str]) -> int:
    given, names = parse_command_line(words, CONFIG_SSH_OPTIONS, "config-ssh")
    write, show, remove = (given.get(name) is True for name in ACTIONS)
    if write and (show or remove):
        raise UsageError(f"--write and --{'diff' if show else 'remove'} cannot be used together")
    if given.get("all") is True and not names:
        raise UsageError("--all needs a NAME: without NAME, all hosts are written anyway")
    if remove and names:
        raise UsageError("--remove removes all hosts; to keep some of them: wstunnel-py config-ssh --write NAME…")
    from tunnel.ssh.config_file import default_path, diff, plan_remove, plan_write
    from tunnel.ssh.written import dropped_options

    def ssh_config() -> str:
        return str(given["ssh-config"]) if "ssh-config" in given else default_path()

    if remove:
        changes = plan_remove(ssh_config())
    else:
        generated = generate(names, given, sys.argv[0])
        if generated.left_out and given.get("quiet") is not True:
            say(f"left out of {generated.source}: {', '.join(generated.left_out)}")
        if not (write or show):
            write_for_programs()
            click.echo(generated.text, nl=False)
            return 0
        changes = plan_write(ssh_config(), generated.text, generated.made_by)
    if show:
        click.echo(diff(changes), nl=False)
        return DIFFERENT if any(change.is_one for change in changes) else 0
    dropped = [] if remove else dropped_options(ssh_config(), generated.made_by)
    make(changes)
    if dropped and given.get("quiet") is not True:
        say(f"no longer written: {shlex.join(dropped)}; to keep it, give it again")
    if write and "ssh-config" not in given:
        warn_of_home(ssh_config())
    return 0


def make(changes: Sequence[Change]) -> None:
    """Make the changes, and report them on standard output. Raises UsageError."""
    from tunnel.ssh.config_file import apply, report

    apply(changes)
    for line in report(changes):
        click.echo(line)


def warn_of_home(ssh_config: str) -> None:
    """Warn if ssh does not read this file by default."""
    from tunnel.ssh.config_file import folder_of_ssh

    if os.path.dirname(ssh_config) != folder_of_ssh():
        say(f"warning: HOME is not your account's home, so ssh does not read this file by default: ssh -F {ssh_config}")


def without_variable(option: Option) -> click.Option:
    """Return the option without its variable, which `connect` reads when ssh starts it, but this command does not."""
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
    short_help="Configure ssh for hosts behind bridges.",
    help=(
        "Print the lines of ssh_config with which `ssh NAME`, and every program that reads ssh_config, uses a tunnel. "
        "--write adds them to your configuration, --diff shows what that would change, and --remove undoes it.\n\n"
        "Without NAME, the lines are for all hosts of the config file and for *.e2b (ID.e2b is the E2B sandbox ID). "
        "With NAMEs, they are for these alone, unless --all is given. Each --write replaces all lines of the "
        "previous one. NAME is a host as for connect, or a pattern of the config file. Options of connect become part "
        "of the ProxyCommand; variables do not. user, identity-file and host-key-alias can also be set in the config "
        "file, for a host or a pattern. Put your own settings for these hosts into ~/.ssh/config as usual, below the "
        "Include.\n\n"
        "--ports is for tools without ProxyCommand. Each host of the config file gets a port on 127.0.0.1, which works "
        "while `wstunnel-py forward --all` runs. A host keeps its port when other hosts are added or removed. "
        "forward-port in its table sets another one.\n\n"
        "Host keys are stored in a separate file, and new ones are accepted. If a sandbox has the same ID as before "
        "but another key, run: ssh-keygen -R ID.e2b -f ~/.ssh/known_hosts.wstunnel-py"
    ),
)
