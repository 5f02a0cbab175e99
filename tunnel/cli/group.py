"""The click group: ``--help``, ``--version`` and all commands except the ProxyCommand, each imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from tunnel._version import __version__
from tunnel.cli.main import HELP, VERSION
from tunnel.client.words import suggestion, unknown_option

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
    "sandboxes": "tunnel.cli.sandboxes",
    "websocat": "tunnel.cli.websocat",
    "keys": "tunnel.cli.keys",
    "certs": "tunnel.cli.certs",
    "completion": "tunnel.cli.completion",
}


class LazyGroup(click.Group):
    """A group that imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name.replace("-", "_"))
        return _with_version(command) if isinstance(command, click.Command) else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands and hosts, as ``connect`` may be left out before a host."""
        from tunnel.cli.completion import complete_host

        return [*super().shell_complete(ctx, incomplete), *complete_host(ctx, self.params[0], incomplete)]

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[OPTIONS] [--] HOST")
        formatter.write_usage(ctx.command_path, "COMMAND [OPTIONS] …", prefix=" " * len("Usage: "))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)


_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


def _with_version(command: click.Command) -> click.Command:
    """Add --version, hidden in the help, to a command and its subcommands."""
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
    subcommand_metavar="[--] HOST | COMMAND [OPTIONS] …",  # as in `LazyGroup.format_usage`, for the manual page
    context_settings={"help_option_names": HELP, "max_content_width": 110},
)
@_version()
def group() -> None:
    """SSH over WebSocket, for machines that you can reach over HTTPS only.

    wstunnel-py HOST is short for wstunnel-py connect -- HOST, which ssh runs as its ProxyCommand:

    \b
        ssh -o ProxyCommand='wstunnel-py %h' user@SANDBOX-ID                  # an E2B sandbox
        ssh -o ProxyCommand='wstunnel-py ws://MACHINE:8081' USER@MACHINE      # a machine that runs wstunnel-py serve

    wstunnel-py COMMAND --help shows the options of a command. wstunnel-py HOST has the options of connect.
    """


def complete() -> NoReturn:
    """Answer a shell's request for completions, which click's script has put into the environment."""
    from tunnel.net.standard_streams import write_for_programs

    write_for_programs()
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
    """Return the text for an error of click: one line, or the help for a group without a command."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        known = [name[2:] for each in error.ctx.command.params for name in each.opts if name.startswith("--")]
        command = error.ctx.command_path.removeprefix("wstunnel-py").strip()
        return f"wstunnel-py: {unknown_option(error.option_name, known, command)}"
    message = error.format_message()
    if message.startswith("No such command ") and isinstance(error, click.UsageError) and error.ctx is not None:
        name, commands = message.split("'")[1], getattr(error.ctx.command, "commands", COMMANDS)
        problem = f"there is no command {name}{suggestion(name, list(commands))}"
        return f"wstunnel-py: {problem}; see {error.ctx.command_path} --help"
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.1 prints the help itself
        return message
    line = f"wstunnel-py: {message[:1].lower()}{' '.join(message[1:].split())}"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{line.removesuffix('.')}; see {error.ctx.command_path} --help"
    return line
