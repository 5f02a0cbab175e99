"""The click group: ``--help``, ``--version`` and every command but the ProxyCommand, each imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from tunnel._version import __version__
from tunnel.cli.main import HELP, VERSION

COMMANDS = {
    "connect": "tunnel.cli.connect",
    "ssh": "tunnel.cli.ssh",
    "scp": "tunnel.cli.ssh",
    "sftp": "tunnel.cli.ssh",
    "rsync": "tunnel.cli.ssh",
    "open": "tunnel.cli.open",
    "serve": "tunnel.cli.serve",
    "forward": "tunnel.cli.forward",
    "config-ssh": "tunnel.cli.config_ssh",
    "doctor": "tunnel.cli.doctor",
    "shell": "tunnel.cli.shell",
    "pty": "tunnel.cli.pty",
    "websocat": "tunnel.cli.websocat",
    "keys": "tunnel.cli.keys",
    "certs": "tunnel.cli.certs",
    "completion": "tunnel.cli.completion",
}


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported when the command is asked for.

    Its ``--help`` shows the options of ``connect`` too, as ``wstunnel-py HOST`` takes them.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name.replace("-", "_"))
        return _with_version(command) if isinstance(command, click.Command) else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands, and hosts, for which ``connect`` need not be written."""
        from tunnel.cli.completion import complete_host

        return [*super().shell_complete(ctx, incomplete), *complete_host(ctx, self.params[0], incomplete)]

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[OPTIONS] [--] HOST")
        formatter.write_usage(ctx.command_path, "COMMAND [OPTIONS] …", prefix=" " * len("Usage: "))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        connect = self.get_command(ctx, "connect")
        records = [
            record
            for parameter in [*(connect.params if connect else ()), *self.get_params(ctx)]
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None
        ]
        with formatter.section("Options"):
            formatter.write_dl(records)


_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


def _with_version(command: click.Command) -> click.Command:
    """Let a command and those below it know --version, which their own help need not show."""
    if not any("--version" in parameter.opts for parameter in command.params):
        _version(hidden=True)(command)
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        _with_version(each)
    return command


def _version(*, hidden: bool = False) -> Callable[[_Decorated], _Decorated]:
    return click.version_option(__version__, *VERSION, message="wstunnel-py %(version)s", hidden=hidden)


@click.group(
    cls=LazyGroup,
    short_help="SSH over WebSocket",
    context_settings={"help_option_names": HELP, "max_content_width": 110},
)
@_version()
def group() -> None:
    """SSH over WebSocket, for machines that can only be reached over HTTPS.

    wstunnel-py HOST is short for wstunnel-py connect HOST, the ProxyCommand:

    \b
        ssh -o ProxyCommand='wstunnel-py connect -- %h' user@SANDBOX-ID
    """


def complete() -> NoReturn:
    """Answer a shell that asks for completions, by what click's script has put into the environment for that."""
    group.main([], prog_name="wstunnel-py")


def run(words: Sequence[str]) -> int:
    """Run a command line and return its exit code. Raises TunnelError."""
    if words[0] == "help":
        words = [*words[1:], "--help"]
    try:
        result = group.main(list(words), prog_name="wstunnel-py", standalone_mode=False)
    except click.ClickException as exc:
        click.echo(_line_of(exc), err=True)
        return exc.exit_code
    except click.Abort:
        return 130
    return result if isinstance(result, int) else 0


def _line_of(error: click.ClickException) -> str:
    """Return what is told of a mistake that click has found: one line, or the help of a group without a command."""
    message = error.format_message()
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.1 prints it by itself
        return message
    line = f"wstunnel-py: {' '.join(message.split())}"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{line.removesuffix('.')}; see {error.ctx.command_path} --help"
    return line
