"""``wstunnel-py forward``: a local port for clients that take no ProxyCommand."""

from __future__ import annotations

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.direct import DirectCommand, parameter
from tunnel.cli.hints import told
from tunnel.cli.main import begin
from tunnel.client.options import FORWARD_OPTIONS, parse_command_line
from tunnel.client.trace import say, warn
from tunnel.errors import UsageError

ANY_PORT = "127.0.0.1:0"


def _forward(words: list[str]) -> int:
    given, operands = parse_command_line(words, FORWARD_OPTIONS, "forward")
    if not 1 <= len(operands) <= 2:
        raise UsageError("which host? usage: wstunnel-py forward [OPTIONS] [LISTEN] HOST")
    listen, host = operands if len(operands) == 2 else (ANY_PORT, operands[0])
    from tunnel.client.forward import Forward
    from tunnel.client.settings import resolve

    settings = resolve(host, given)
    trace = begin(settings)
    forward = Forward(
        f"127.0.0.1:{listen}" if listen.isdigit() else listen,
        lambda: resolve(host, given),
        trace=trace,
        tell=(lambda _: None) if settings.quiet else say,
        text_of=told,
    )
    if forward.is_open_to_all:
        warn(["other machines can connect to this port, too"], quiet=settings.quiet)
    # The ready line is for people and for programs that wait for it; nothing else goes to standard output.
    print(f"forwarding {', '.join(forward.addresses)} → {settings.address}; try: {forward.example()}", flush=True)
    return forward.run()


forward = DirectCommand(
    "forward",
    _forward,
    options=FORWARD_OPTIONS,
    params=[
        *map(parameter, FORWARD_OPTIONS),
        click.Argument(["listen"], required=False),
        click.Argument(["host"], shell_complete=complete_host),
    ],
    short_help="Forward a local port through tunnels.",
    help=(
        "Listen at LISTEN and open a tunnel to HOST for each connection: for clients without ProxyCommand (graphical "
        "SFTP clients, JetBrains).\n\n"
        "LISTEN is PORT or HOST:PORT (on 127.0.0.1 if no host is given), or unix:PATH, which only you can connect to. "
        "Default: a free port of 127.0.0.1. HOST is as for connect. A line on standard output says where the command "
        "listens. SIGTERM and SIGINT end it."
    ),
)
