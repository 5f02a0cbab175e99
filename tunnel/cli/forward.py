"""``wstunnel-py forward``: local ports for clients without ProxyCommand."""

from __future__ import annotations

import functools
import os

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.config_ssh import without_variable
from tunnel.cli.direct import DirectCommand, parameter
from tunnel.cli.hints import told
from tunnel.cli.main import begin
from tunnel.client.layers import Layers, configured, read_environment
from tunnel.client.options import FORWARD_OPTIONS, OPTIONS, parse_command_line
from tunnel.client.trace import Trace, say, warn
from tunnel.client.words import wrong_operands
from tunnel.errors import DialError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Values

ANY_PORT = "127.0.0.1:0"
_USAGE = "forward [OPTIONS] [LISTEN] HOST"


def _forward(words: list[str]) -> int:
    given, operands = parse_command_line(words, FORWARD_OPTIONS, "forward")
    if given.pop("all", False) is True:
        if operands:
            raise UsageError("--all serves all hosts of the config file: leave out LISTEN and HOST")
        return _forward_all(given)
    if not 1 <= len(operands) <= 2:
        raise wrong_operands(operands, _USAGE, most=2)
    listen, host = operands if len(operands) == 2 else (ANY_PORT, operands[0])
    if not (listen.isdigit() or ":" in listen):
        raise UsageError(
            f"{listen!r} is not LISTEN, which is PORT, HOST:PORT or unix:PATH; usage: wstunnel-py {_USAGE}"
        )
    from tunnel.client.forward import Forward
    from tunnel.client.settings import resolve

    settings = resolve(host, given)
    trace = begin(settings)
    forward = Forward(trace=trace, tell=(lambda _: None) if settings.quiet else say, text_of=told)
    forward.add(f"127.0.0.1:{listen}" if listen.isdigit() else listen, lambda: resolve(host, given))
    if forward.is_open_to_all:
        warn(["other machines can connect to this port"], quiet=settings.quiet)
    # Programs may wait for this line, so nothing else goes to standard output.
    print(f"forwarding {', '.join(forward.addresses)} → {settings.address}; try: {forward.example()}", flush=True)
    return forward.run()


def _forward_all(given: Values) -> int:
    from tunnel.client.forward import Forward
    from tunnel.client.settings import resolve
    from tunnel.ssh.config import served_hosts
    from tunnel.ssh.ports import local_ports

    environment = read_environment(os.environ, OPTIONS)
    config = configured(given, environment)
    names = served_hosts(config)
    if not names:
        raise UsageError(f"no host in {config.path} can be served: add a table [hosts.NAME] with its url")
    ports = local_ports(config, names)
    layers = Layers(config, given, {}, environment, OPTIONS)
    quiet = layers.flag("quiet")
    trace = Trace(verbose=layers.flag("verbose"), log_file=layers.text("log-file"))
    forward = Forward(trace=trace, tell=(lambda _: None) if quiet else say, text_of=told)
    for name in names:
        place = f"127.0.0.1:{ports[name.lower()]}"
        try:
            forward.add(place, functools.partial(resolve, name, given), name)
        except DialError as exc:
            say(f"{name}: {exc}; this host is not served (set forward-port in its table to use another port)")
            continue
        try:
            settings = resolve(name, given)
        except UsageError as exc:  # the host is served all the same: a token file, for example, may appear later
            say(f"{name}: {told(exc)}")
            continue
        warn([f"{name}: {warning}" for warning in settings.warnings], quiet=quiet)
        print(f"forwarding {place} → {name}, {settings.address}", flush=True)
    if not forward.addresses:
        raise DialError("listen", place="any of these ports", reason="is another forward --all running?")
    return forward.run()


forward = DirectCommand(
    "forward",
    _forward,
    options=FORWARD_OPTIONS,
    params=[
        *(without_variable(option) if option.name == "all" else parameter(option) for option in FORWARD_OPTIONS),
        click.Argument(["listen"], required=False),
        click.Argument(["host"], required=False, shell_complete=complete_host),
    ],
    short_help="Forward a local port through tunnels.",
    help=(
        "Listen at LISTEN, and open a tunnel to HOST for each connection. It is for programs without ProxyCommand, "
        "such as graphical SFTP clients and JetBrains.\n\n"
        "LISTEN is PORT (on 127.0.0.1), HOST:PORT, or unix:PATH, which only you can connect to. Default: a free port "
        "on 127.0.0.1. HOST is as for connect. A line on standard output says where the command listens. SIGTERM and "
        "SIGINT end it.\n\n"
        "--all does this for every host of the config file at once, at ports of 127.0.0.1 that stay the same. "
        "config-ssh --ports writes these ports into ssh's configuration. A host whose port is taken is reported, and "
        "the others are served. After you add hosts to the file, start the command again."
    ),
)
