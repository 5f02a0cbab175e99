"""``wstunnel-py connect --help``. The command itself is run by `tunnel.cli.main`, without click."""

from __future__ import annotations

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.direct import DirectCommand, parameter
from tunnel.cli.main import connect as run_connect
from tunnel.client.options import OPTIONS

_EPILOG = (
    "Each option can also be set in the environment or, apart from --config, by its long name in the config file "
    "(config.toml in the platform's folder for configuration; [hosts.NAME] tables are for single hosts)."
)

connect = DirectCommand(
    "connect",
    run_connect,
    options=OPTIONS,
    params=[*map(parameter, OPTIONS), click.Argument(["host"], shell_complete=complete_host)],
    short_help="Run as ssh's ProxyCommand.",
    help=(
        "Connect standard input and output to HOST through its bridge: ssh's ProxyCommand.\n\n"
        "HOST is a ws:// or wss:// URL, a name from the config file, or the text for {host} in the URL template. "
        "The template is --url, else WSTUNNEL_PY_URL, else url in the config file, else "
        "wss://{port}-{host}.e2b.app."
    ),
    epilog=_EPILOG,
)
