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
        "Run websocat 1.x command lines for tunnels unchanged. One of the addresses is a WebSocket: a ws:// or "
        "wss:// URL, ws-l:HOST:PORT, l-ws-unix:PATH or ws-u:unix-l:PATH. The other one is - for standard input and "
        "output, tcp:HOST:PORT, unix:PATH; beside a URL tcp-l:HOST:PORT or unix-l:PATH; beside a listening WebSocket "
        "sh-c:COMMAND, exec:PROGRAM or a URL. A URL alone connects standard input and output. An error "
        "names what is not supported.\n\n"
        "With --binary, and without options for single messages, tunnels between this command and wstunnel-py survive "
        "lost connections.\n\n"
        'The program does the same when it is started under the name websocat: ln -s "$(command -v wstunnel-py)" '
        "~/bin/websocat.\n\n"
        "Other users can read --basic-auth and --socks5-user-pass on a command line, but not a --basic-auth-file, the "
        "variable WEBSOCAT_BASIC_AUTH, or a proxy's URL with its password in ALL_PROXY."
    ),
)
