"""The command ``serve``, made from the table of options in `tunnel.server.settings`."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from tunnel.cli.direct import shown_default
from tunnel.cli.main import option_of
from tunnel.cli.paths import HomePath
from tunnel.errors import spell_settings
from tunnel.server.settings import ServeSettings, SourceSettings, variable


def _option(field: dataclasses.Field[Any]) -> click.Option:
    values = field.metadata
    kind: Any = {"int": int, "float": float, "bool": bool}.get(str(field.type), str)
    if values["metavar"] == "FILE":
        kind = HomePath()  # so that shells complete it
    several = str(field.type).startswith("tuple")
    return click.Option(
        [option_of(field.name)],
        type=click.Choice(values["choices"]) if values["choices"] else kind,
        default=shown_default(field.default),
        is_flag=field.type == "bool",
        multiple=several,
        metavar=values["metavar"],
        help=values["help"],
        envvar=variable(field.name),
        show_envvar=True,
        show_default=not several and field.default is not None and field.type != "bool",
    )


_SHARED = dataclasses.fields(SourceSettings)


def _serve(**options: Any) -> None:
    from tunnel.run import run

    context = click.get_current_context()
    from_environment = {
        name for name in options if context.get_parameter_source(name) is click.core.ParameterSource.ENVIRONMENT
    }
    if addresses := options.pop("address"):
        # What the command line says takes the place of the variable, as with any option.
        options["listen"] = addresses if "listen" in from_environment else options["listen"] + addresses
        from_environment.discard("listen")
    spell_settings(lambda setting: variable(setting) if setting in from_environment else option_of(setting))
    run(ServeSettings(**options))


serve = click.Command(
    "serve",
    callback=_serve,
    # The fields that bridge and terminals share come first, but users look for the others first.
    params=[
        click.Argument(["address"], nargs=-1, metavar="[ADDRESS]..."),
        *(_option(field) for field in sorted(dataclasses.fields(ServeSettings), key=lambda field: field in _SHARED)),
    ],
    help="""Run the bridge, which turns WebSocket connections into connections to the target, an SSH server.

    \b
        wstunnel-py serve                          # port 8081, to the SSH server at 127.0.0.1:22
        wstunnel-py serve --token-file token       # only for clients that have this token
        wstunnel-py serve --target embedded        # with the embedded SSH server

    ADDRESS is short for --listen ADDRESS.

    SIGHUP reloads tokens and certificates and reopens the log file. If serve has a controlling
    terminal, SIGHUP shuts it down gracefully, as SIGTERM does. SIGUSR2 restarts in place: the process becomes the
    version that is now installed, and tunnels continue (Linux only). Signals that were ignored at the start, as with
    nohup, stay ignored. For an option that may be repeated, the variable holds several values, separated by spaces.""",
    short_help="Run the bridge.",
)
