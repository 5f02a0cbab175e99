"""``wstunnel-py ssh``, ``scp``, ``sftp`` and ``rsync``: the programs of these names, through a tunnel."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.config_ssh import without_variable
from tunnel.cli.direct import DirectCommand
from tunnel.cli.main import HELP, VERSION, tell, tell_bug
from tunnel.client.options import FLAG, Option, parse_command_line
from tunnel.client.words import unknown_option, wrong_operands
from tunnel.errors import TunnelError, UsageError
from tunnel.ssh.config import SSH_OPTIONS

FAILED = 255  # ssh's exit code for its own failures; any other code may be the remote command's

# rsync has options with these names, too; they are passed to it.
RSYNC_HAS_TOO = frozenset(("port", "ipv4", "ipv6", "config", "log-file", "quiet", "verbose"))
RSYNC_OPTIONS = tuple(option for option in SSH_OPTIONS if option.name not in RSYNC_HAS_TOO)

OPENSSH = "install OpenSSH's client (openssh-client, openssh-clients or openssh; on Windows an optional feature)"
REMEDIES = {"rsync": "install rsync, here and on the host"}


def split(program: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return our own words and the program's, which begin with the first word that is not an option of ours.

    ``--`` also ends our own, and is dropped. Raises UsageError for a long option that neither has.
    """
    options = {option.flag: option for option in _options_of(program)}
    at = 0
    while at < len(words) and words[at].startswith("--") and words[at] != "--":
        name, equals, _ = words[at][2:].partition("=")
        option = options.get(name) or options.get(name.removeprefix("no-"))
        if option is None and words[at] not in HELP + VERSION:
            if program == "rsync":
                break
            known = [flag for flag, each in options.items() if not each.hidden]
            raise unknown_option(f"--{name}", known, program)
        at += 1 if option is None or option.kind == FLAG or equals else 2
    theirs = words[at + 1 :] if words[at : at + 1] == ["--"] else words[at:]
    return list(words[:at]), list(theirs)


def _own_words(program: str, words: Sequence[str]) -> list[str]:
    """Return the words among which --help and --version are ours; so are -h and -V, if they stand alone."""
    if len(words) == 1 and words[0] in HELP + VERSION:
        return list(words)
    try:
        return split(program, words)[0]
    except UsageError:
        return []  # reported when the command is run


def _options_of(program: str) -> tuple[Option, ...]:
    return RSYNC_OPTIONS if program == "rsync" else SSH_OPTIONS


def _check_theirs(program: str, words: Sequence[str]) -> None:
    """Raise UsageError for a long option among the program's words: these programs have none."""
    from tunnel.ssh.command_lines import parse

    flags = [option.flag for option in _options_of(program) if not option.hidden]
    for word in parse(program, words).long_options:
        name = word.partition("=")[0]
        if name not in HELP + VERSION and name[2:].removeprefix("no-") not in flags and name[2:] not in flags:
            raise unknown_option(name, flags, program)
        raise UsageError(f"{name} must come before {program}'s own words: wstunnel-py {program} {name} …")


def _run(program: str, words: list[str]) -> int:
    from tunnel.children.handover import find_program, hand_over
    from tunnel.ssh.programs import rsync_words, ssh_words

    ours, theirs = split(program, words)
    given, _ = parse_command_line(ours, _options_of(program), program)
    if not theirs:
        raise wrong_operands((), f"{program} [OPTIONS] {USAGES[program]}")
    if program != "rsync":
        _check_theirs(program, theirs)
    remedy = REMEDIES.get(program, OPENSSH)
    path = find_program(program, remedy)
    if program == "rsync":
        theirs = rsync_words(theirs, given, sys.argv[0])
    else:
        theirs = ssh_words(program, theirs, given, sys.argv[0])
    return hand_over(path, theirs, remedy)


def _ssh(words: list[str]) -> int:
    try:
        return _run("ssh", words)
    except TunnelError as exc:
        tell(exc)
        return FAILED
    except Exception as exc:
        tell_bug(exc, words)
        return FAILED


USAGES = {
    "ssh": "[SSH-OPTIONS] [USER@]HOST [COMMAND…]",
    "scp": "[SCP-OPTIONS] SOURCE… TARGET",
    "sftp": "[SFTP-OPTIONS] [USER@]HOST[:PATH]",
    "rsync": "[RSYNC-OPTIONS] SOURCE… TARGET",
}
_RULE = (
    "wstunnel-py's own options are the long ones below, and come first. They end at the first word that is not one of "
    "them, or at --. The rest goes to {program} unchanged."
)
_ABOUT = (
    "HOST is a name from the config file, ID.e2b for the E2B sandbox ID, or the text for {{host}} in the URL template. "
    "{program} gets the settings that config-ssh would write for HOST, so ~/.ssh/config needs no change. They take "
    "precedence over your own ~/.ssh/config, and options that you give {program} take precedence over them."
)


def _long(option: Option) -> click.Option:
    """Return the option as for other commands, but without its letter, which is the program's."""
    shown = without_variable(option)
    shown.opts = [name for name in shown.opts if name.startswith("--")]
    return shown


def _command(program: str, about: str, *paragraphs: str) -> DirectCommand:
    return DirectCommand(
        program,
        functools.partial(_run, program) if program != "ssh" else _ssh,
        options=_options_of(program),
        own=functools.partial(_own_words, program),
        params=[
            *map(_long, _options_of(program)),
            click.Argument(["words"], nargs=-1, metavar=USAGES[program], shell_complete=complete_host),
        ],
        short_help=about,
        help="\n\n".join((*(each.format(program=program) for each in paragraphs), _RULE.format(program=program))),
    )


ssh = _command(
    "ssh",
    "Run ssh through a tunnel.",
    "Run OpenSSH's ssh through a tunnel to HOST.",
    _ABOUT,
    "With -J, the tunnel connects to the first host of its list. The exit status is ssh's. 255 can also mean that this "
    "command failed.",
)

scp = _command(
    "scp",
    "Run scp through a tunnel.",
    "Run OpenSSH's scp through a tunnel. The operands are scp's: [USER@]HOST:PATH, scp://…, local paths.",
    _ABOUT,
    "The exit status is scp's.",
)

sftp = _command(
    "sftp",
    "Run sftp through a tunnel.",
    "Run OpenSSH's sftp through a tunnel to HOST.",
    _ABOUT,
    "The exit status is sftp's.",
)

rsync = _command(
    "rsync",
    "Run rsync through a tunnel.",
    "Run rsync with `wstunnel-py ssh` as its remote shell (-e). The operands are rsync's: [USER@]HOST:PATH, local "
    "paths. The exit status is rsync's.",
    "Give options for ssh as usual: -e 'ssh -i FILE', or RSYNC_RSH. Options that rsync also has "
    f"({', '.join('--' + name for name in sorted(RSYNC_HAS_TOO))}) are rsync's. For the tunnel, set them in the "
    "environment or in the config file.",
)
