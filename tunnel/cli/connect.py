"""``wstunnel-py connect --help``. The command itself is run by `tunnel.cli.main`, without click."""

from __future__ import annotations

import click

from tunnel.cli.main import connect as run_connect
from tunnel.client.options import FLAG, HEADERS, OPTIONS, Option

_EPILOG = (
    "Each option can also be given in the environment or, but for --config, in the config file under its long name "
    "(config.toml in the platform's folder for configuration; [hosts.NAME] tables name hosts)."
)


def _parameter(option: Option) -> click.Option:
    names = ([f"-{option.short}"] if option.short else []) + [f"--{option.name}"]
    return click.Option(
        names,
        is_flag=option.kind == FLAG,
        multiple=option.kind == HEADERS,
        metavar=option.metavar or None,
        help=option.help,
        default=option.default,
        show_default=option.default is not None,
        envvar=option.variable,
        show_envvar=True,
        hidden=option.hidden,
    )


class _Direct(click.Command):
    """A command that click documents, but whose command line the client's own parser reads."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = list(args)
        return super().parse_args(ctx, args) if "--help" in args else []

    def invoke(self, ctx: click.Context) -> int:
        return run_connect(ctx.obj)


connect = _Direct(
    "connect",
    params=[*map(_parameter, OPTIONS), click.Argument(["host"])],
    help=(
        "Connect standard input and output to HOST through its bridge: ssh's ProxyCommand.\n\n"
        "HOST is a ws:// or wss:// URL, a name from the config file, or what goes into the URL template in place of "
        "{host}. The template is --url, else WSTUNNEL_PY_URL, else url in the config file, else "
        "wss://{port}-{host}.e2b.app."
    ),
    epilog=_EPILOG,
)
