"""The command ``serve``, made from the table of options in `tunnel.server.settings`."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

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
        default=field.default,
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
    # What bridge and terminals share is the first of the fields, but not the first that somebody looks for.
    params=[
        click.Argument(["address"], nargs=-1, metavar="[ADDRESS]..."),
        *(_option(field) for field in sorted(dataclasses.fields(ServeSettings), key=lambda field: field in _SHARED)),
    ],
    help="""Run the bridge: turn WebSocket connections into connections to the target, the SSH server.

    An ADDRESS is the same as --listen ADDRESS: wstunnel-py serve 9000.

    SIGHUP reloads tokens and certificates and reopens the log file. In a terminal it shuts the bridge down
    gracefully, as SIGTERM does. Signals that were ignored at the start, as with nohup, stay ignored.
    A variable for an option that may be repeated is split at spaces.""",
    short_help="Run the bridge.",
)
