"""The click group: ``--help``, ``--version`` and every command but the ProxyCommand, each imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import click

from tunnel._version import __version__
from tunnel.protocol.errors import TunnelError

COMMANDS = {
    "connect": "tunnel.cli.connect",
    "serve": "tunnel.cli.serve",
}


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        return command if isinstance(command, click.Command) else None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["--help"], "max_content_width": 110})
@click.version_option(__version__, message="wstunnel-py %(version)s")
def group() -> None:
    """SSH over WebSocket, for machines that can be reached over HTTPS only.

    wstunnel-py HOST is short for wstunnel-py connect HOST, the ProxyCommand:

    \b
        ssh -o ProxyCommand='wstunnel-py connect -- %h' user@SANDBOX-ID
    """


def run(words: Sequence[str]) -> int:
    """Run a command line and return its exit code; errors are one line on standard error."""
    try:
        result = group.main(list(words), prog_name="wstunnel-py", standalone_mode=False)
    except click.ClickException as exc:
        click.echo(f"wstunnel-py: {exc.format_message()}", err=True)
        return exc.exit_code
    except click.Abort:
        return 130
    except TunnelError as exc:
        click.echo(f"wstunnel-py: {exc}", err=True)
        return exc.exit_code
    return result if isinstance(result, int) else 0
