"""``wstunnel-py connect --help``. The command itself is run by `tunnel.cli.main`, without click."""

from __future__ import annotations

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.direct import DirectCommand, parameter
from tunnel.cli.main import connect as run_connect
from tunnel.client.options import OPTIONS

_EPILOG = (
    "Each option can also be given in the environment or, but for --config, in the config file under its long name "
    "(config.toml in the platform's folder for configuration; [hosts.NAME] tables name hosts)."
)

connect = DirectCommand(
    "connect",
    run_connect,
    options=OPTIONS,
    params=[*map(parameter, OPTIONS), click.Argument(["host"], shell_complete=complete_host)],
    short_help="Be ssh's ProxyCommand.",
    help=(
        "Connect standard input and output to HOST through its bridge: ssh's ProxyCommand.\n\n"
        "HOST is a ws:// or wss:// URL, a name from the config file, or what goes into the URL template in place of "
        "{host}. The template is --url, else WSTUNNEL_PY_URL, else url in the config file, else "
        "wss://{port}-{host}.e2b.app."
    ),
    epilog=_EPILOG,
)
