"""The command ``serve``, made from the table of options in `tunnel.server.settings`."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from tunnel.cli.paths import HomePath
from tunnel.server.settings import ServeSettings, flag, variable


def _option(field: dataclasses.Field[Any]) -> click.Option:
    values = field.metadata
    kind: Any = {"int": int, "float": float, "bool": bool}.get(str(field.type), str)
    if values["metavar"] == "FILE":
        kind = HomePath()  # so that shells complete it
    several = str(field.type).startswith("tuple")
    return click.Option(
        [flag(field.name)],
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


def _serve(**options: Any) -> None:
    from tunnel.run import run

    run(ServeSettings(**options))


serve = click.Command(
    "serve",
    callback=_serve,
    params=[_option(field) for field in dataclasses.fields(ServeSettings)],
    help="""Run the bridge: turn WebSocket connections into connections to the target, the SSH server.

    SIGHUP reads tokens and certificates again and reopens the log file, but in a terminal ends the bridge, as SIGTERM
    does, in good order. Signals that were ignored at the start, as by nohup, stay so.
    Variables that stand for options given several times are split at spaces.""",
    short_help="Run the bridge.",
)
