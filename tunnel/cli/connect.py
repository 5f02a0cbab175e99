"""The help of ``wstunnel-py connect``. `tunnel.cli.main` runs the command itself, without click."""

from __future__ import annotations

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.direct import DirectCommand, parameter
from tunnel.cli.main import connect as run_connect
from tunnel.client.options import OPTIONS

_EPILOG = (
    "Each option can also be set by its environment variable. Each option except --config can also be set in the "
    "config file, by its long name: config.toml in ~/.config/wstunnel-py, on macOS in "
    "~/Library/Application Support/wstunnel-py, on Windows in %APPDATA%\\wstunnel-py. A table [hosts.NAME] in it is "
    "for one host."
)

connect = DirectCommand(
    "connect",
    run_connect,
    options=OPTIONS,
    params=[*map(parameter, OPTIONS), click.Argument(["host"], shell_complete=complete_host)],
    short_help="Run as ssh's ProxyCommand.",
    help=(
        "Connect standard input and output to HOST through its bridge. ssh runs this as its ProxyCommand.\n\n"
        "HOST is a ws:// or wss:// URL, a name from the config file, ID.e2b for the E2B sandbox ID, or the text for "
        "{host} in the URL template. The template comes from --url, WSTUNNEL_PY_URL or url in the config file, in this "
        "order. Default: wss://{port}-{host}.e2b.app."
    ),
    epilog=_EPILOG,
)
