"""``wstunnel-py connect --help``. The command itself is run by `tunnel.cli.main`, without click."""

from __future__ import annotations

import click

from tunnel.cli.main import connect as run_connect
from tunnel.client.options import FLAG, LIST, OPTIONS, Option

_EPILOG = (
    "Each option can also be given in the environment or, but for --config, in the config file under its long name "
    "(config.toml in the platform's folder for configuration; [hosts.NAME] tables name hosts). "
    "WSTUNNEL_PY_TOKEN holds the token itself."
)


def _parameter(option: Option) -> click.Option:
    names = ([f"-{option.short}"] if option.short else []) + [f"--{option.name}"]
    return click.Option(
        names,
        is_flag=option.kind == FLAG,
        multiple=option.kind == LIST,
        metavar=option.metavar or None,
        help=option.help,
        default=option.default,
        show_default=option.default is not None,
        envvar=option.variable,
        show_envvar=True,
        hidden=option.hidden,
    )


def _run(**_: object) -> int:
    # Reached only by embedding the group; the entry point has taken the direct way before.
    return run_connect(click.get_current_context().args)


connect = click.Command(
    "connect",
    callback=_run,
    params=[*map(_parameter, OPTIONS), click.Argument(["host"])],
    help=(
        "Connect standard input and output to HOST through its bridge: ssh's ProxyCommand.\n\n"
        "HOST is a ws:// or wss:// URL, a name from the config file, or what goes into the URL template in place of "
        "{host}. The template is --url, else WSTUNNEL_PY_URL, else url in the config file, else "
        "wss://{port}-{host}.e2b.app."
    ),
    epilog=_EPILOG,
)
