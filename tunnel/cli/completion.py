"""``wstunnel-py completion``: completion of commands, options, files and hosts for bash, zsh and fish."""

from __future__ import annotations

import os

import click
from click.shell_completion import CompletionItem, get_completion_class

PROGRAM = "wstunnel-py"
VARIABLE = "_WSTUNNEL_PY_COMPLETE"  # set by the script when it calls this program; see `tunnel.cli.main`
COMPLETION_LIMIT = 1.5  # seconds to wait for the provider after Tab was typed
SHELLS = ("bash", "zsh", "fish")


@click.command(
    short_help="Print a completion script for a shell.",
    help="""Print a script that makes the shell complete commands, options, files and hosts of the config file.

    \b
        bash:  wstunnel-py completion bash >~/.local/share/bash-completion/completions/wstunnel-py
        zsh:   wstunnel-py completion zsh >"${fpath[1]}/_wstunnel-py"
        fish:  wstunnel-py completion fish >~/.config/fish/completions/wstunnel-py.fish

    Make the folder first if it does not exist. New shells then complete the commands.
    """,
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    from tunnel.cli.group import group
    from tunnel.net.standard_streams import write_for_programs

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this version of click has no completion for {shell}")
    # Not `source`, which would check the version of the local bash.
    script = found(group, {}, PROGRAM, VARIABLE)
    write_for_programs()
    click.echo(script.source_template % script.source_vars())


def complete_host(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the hosts of the config file, and with an API key the provider's sandboxes, that begin with the word.

    Errors of the file or the API are not shown: they would spoil the line that is being typed.
    """
    from tunnel.client.config import load_config
    from tunnel.errors import UsageError

    try:
        config = load_config(None)
    except UsageError:
        return []
    names = [config.spellings.get(name, name) for name in config.hosts if "*" not in name]
    items = [CompletionItem(name) for name in [*names, *_sandboxes()]]
    return [item for item in items if item.value.lower().startswith(incomplete.lower())]


def _sandboxes() -> list[str]:
    from tunnel.client.layers import layers_for
    from tunnel.client.options import BY_NAME, SANDBOXES_OPTIONS
    from tunnel.errors import TunnelError

    try:
        layers = layers_for("", {}, os.environ, (*SANDBOXES_OPTIONS, BY_NAME["provider"]))
        if layers.provider(by_default=True) is None:
            return []
        from tunnel.client.sandbox import find_api

        api, _ = find_api(layers)
        return [each.id for each in api.list(limit=COMPLETION_LIMIT)]
    except TunnelError:
        return []
