"""``wstunnel-py websocat``: websocat's command lines."""

from __future__ import annotations

import click

from tunnel.cli.direct import DirectCommand
from tunnel.websocat.options import FLAG, SUPPORTED, Option
from tunnel.websocat.run import run


def _parameter(option: Option) -> click.Option:
    long = [] if option.name in ("verbose", "quiet") else [f"--{option.name}"]
    return click.Option(
        [*([f"-{option.short}"] if option.short else []), *long, option.name.replace("-", "_")],
        is_flag=option.kind == FLAG,
        metavar=option.metavar or None,
        help=option.help,
    )


websocat = DirectCommand(
    "websocat",
    run,
    params=[
        *map(_parameter, SUPPORTED),
        click.Argument(["address1"], metavar="ADDRESS"),
        click.Argument(["address2"], metavar="[ADDRESS]", required=False),
    ],
    short_help="Run a websocat 1.x command line.",
    help=(
        "Run command lines of websocat 1.x for tunnels, unchanged.\n\n"
        "One of the addresses is a WebSocket: a ws:// or wss:// URL, or a listener (ws-l:HOST:PORT, l-ws-unix:PATH or "
        "ws-u:unix-l:PATH). The other address is - (standard input and output), tcp:HOST:PORT or unix:PATH. With a "
        "URL, it may also be tcp-l:HOST:PORT or unix-l:PATH; with a listener, sh-c:COMMAND, exec:PROGRAM or a URL. A "
        "URL alone connects standard input and output. For anything else, an error names what is not supported.\n\n"
        "With --binary, and without options for single messages, tunnels between this command and wstunnel-py survive "
        "lost connections.\n\n"
        'To call this command websocat: ln -s "$(command -v wstunnel-py)" ~/.local/bin/websocat\n\n'
        "Other users can see --basic-auth and --socks5-user-pass on a command line. They cannot see --basic-auth-file, "
        "WEBSOCAT_BASIC_AUTH, or a proxy's URL with its password in ALL_PROXY."
    ),
)
