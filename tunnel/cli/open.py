"""``wstunnel-py open``: opens an editor on a host."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.config_ssh import make, warn_of_home, without_variable
from tunnel.cli.direct import DirectCommand
from tunnel.client.options import TEXT, Option, parse_command_line
from tunnel.client.words import wrong_operands
from tunnel.errors import UsageError
from tunnel.ssh.config import CONFIG_SSH_OPTIONS, SSH_OPTIONS, check_single, generate, option_words
from tunnel.ssh.editors import EDITORS, check_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Values
    from tunnel.ssh.config_file import Change

_SSH_CONFIG = tuple(option for option in CONFIG_SSH_OPTIONS if option.name == "ssh-config")
OPEN_OPTIONS = (
    Option("editor", TEXT, f"Command of the editor: {', '.join(EDITORS)}.", metavar="NAME", default="code"),
    *_SSH_CONFIG,
    *SSH_OPTIONS,
)


def _open(words: list[str]) -> int:
    given, operands = parse_command_line(words, OPEN_OPTIONS, "open")
    if not 1 <= len(operands) <= 2:
        raise wrong_operands(operands, "open [OPTIONS] HOST [PATH]", most=2)
    host, path = operands[0], check_path(operands[1] if len(operands) == 2 else "")
    check_single(host)
    name = str(given.pop("editor", "code"))
    if name not in EDITORS:
        raise UsageError(f"{name!r} is not one of {', '.join(EDITORS)}", setting="editor")
    editor = EDITORS[name]
    from tunnel.children.handover import find_program, hand_over

    program = find_program(editor.program, editor.remedy)
    _write(host, given)
    return hand_over(program, editor.words(host, path), editor.remedy)


def _write(host: str, given: Values) -> None:
    """Add ``host`` to the hosts in ssh's configuration. Raises UsageError."""
    from tunnel.ssh.config_file import default_path

    ssh_config = str(given["ssh-config"]) if "ssh-config" in given else default_path()
    changes = _planned(host, given, ssh_config)
    if any(change.is_one for change in changes):
        make(changes)
    if "ssh-config" not in given:
        warn_of_home(ssh_config)


def _planned(host: str, given: Values, ssh_config: str) -> Sequence[Change]:
    from tunnel.ssh.config_file import plan_write
    from tunnel.ssh.written import Written, read_written

    last = read_written(ssh_config) or Written({}, [], [])
    others = [each for each in last.hosts if each.lower() != host.lower()]
    merged = {**last.given, **given}
    if others and option_words(merged, SSH_OPTIONS) != option_words(last.given, SSH_OPTIONS):
        raise UsageError(
            f"these options would also apply to {', '.join(others)} in {ssh_config}: put them into the table "
            f'[hosts."{host}"] of the config file, or write all hosts again: wstunnel-py config-ssh --write'
        )
    names = list(last.names)
    if not last.covers(host):
        if last.hosts and not names:
            merged["all"] = True
        names.append(host)
    generated = generate(names, merged, sys.argv[0])
    return plan_write(ssh_config, generated.text, generated.made_by)


open = DirectCommand(
    "open",
    _open,
    options=OPEN_OPTIONS,
    params=[
        *map(without_variable, OPEN_OPTIONS),
        click.Argument(["host"], shell_complete=complete_host),
        click.Argument(["path"], required=False),
    ],
    short_help="Start VS Code, Cursor, Windsurf or Zed on a host.",
    help=(
        "Start VS Code, Cursor, Windsurf or Zed on HOST, in the folder PATH. The editor uses its own support for "
        "SSH.\n\n"
        "Editors read ssh's configuration, so HOST is added to it first, as by config-ssh --write. Hosts that were "
        "added before are kept. PATH begins with /. VS Code, Cursor and Windsurf open a path with a dot in its last "
        "part as a file, unless it ends with /.\n\n"
        "HOST is a name from the config file, ID.e2b for the E2B sandbox ID, or the text for {host} in the URL "
        "template. An editor that is already running does not see the variables of this shell, so put the token and "
        "the template into the config file."
    ),
)
