"""``wstunnel-py completion``: lets bash, zsh and fish complete commands, options, files and the config file's hosts."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

PROGRAM = "wstunnel-py"
VARIABLE = "_WSTUNNEL_PY_COMPLETE"  # by which the script asks this program; see `tunnel.cli.main`
SHELLS = ("bash", "zsh", "fish")


@click.command(
    short_help="Print a completion script for a shell.",
    help="""Print a script for SHELL that completes commands, options, files and the hosts of the config file.

    \b
        bash:  wstunnel-py completion bash >~/.local/share/bash-completion/completions/wstunnel-py
        zsh:   wstunnel-py completion zsh >"${fpath[1]}/_wstunnel-py"
        fish:  wstunnel-py completion fish >~/.config/fish/completions/wstunnel-py.fish
    """,
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    from tunnel.cli.group import group

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    # `source` would look which bash this is; the script itself is what is asked for.
    script = found(group, {}, PROGRAM, VARIABLE)
    click.echo(script.source_template % script.source_vars())


def complete_host(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the named hosts of the config file that begin so; a file that is wrong must not spoil the line."""
    from tunnel.client.config import load_config
    from tunnel.errors import UsageError

    try:
        config = load_config(None)
    except UsageError:
        return []
    names = (config.spellings.get(name, name) for name in config.hosts)
    return [CompletionItem(name) for name in names if "*" not in name and name.lower().startswith(incomplete.lower())]
