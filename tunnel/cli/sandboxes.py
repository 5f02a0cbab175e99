"""``wstunnel-py sandboxes``: lists the sandboxes of the provider."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from unicodedata import combining, east_asian_width

import click

from tunnel.cli.direct import DirectCommand, parameter
from tunnel.client.options import SANDBOXES_OPTIONS, parse_command_line
from tunnel.client.outage import span
from tunnel.client.trace import warn
from tunnel.client.words import wrong_operands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.provider.answers import Details


def _sandboxes(words: list[str]) -> int:
    given, operands = parse_command_line(words, SANDBOXES_OPTIONS, "sandboxes")
    if operands:
        raise wrong_operands(operands, "sandboxes [OPTIONS]", most=0)
    from tunnel.client.layers import layers_for
    from tunnel.client.sandbox import find_api

    as_json = given.pop("list-json", False) is True
    layers = layers_for("", given, os.environ, SANDBOXES_OPTIONS)
    api, _ = find_api(layers)
    warn(layers.warnings, quiet=layers.flag("quiet"))
    found = api.list()
    if as_json:
        objects = [
            {"id": each.id, "template": each.name, "state": each.state, "ends_in": _ends_in(each)} for each in found
        ]
        click.echo(json.dumps(objects, indent=1))  # ASCII, so that it is JSON in every locale
    else:
        for line in table(found):
            click.echo(line)
    return 0


def _ends_in(details: Details) -> int | None:
    """Return the seconds that are left; None for a sandbox that is not running, as its time stands still."""
    return max(0, round(details.left)) if details.state == "running" else None


def table(found: Sequence[Details]) -> list[str]:
    """Return the lines to show: ID, template, state, and the time that is left."""
    rows = [("SANDBOX", "TEMPLATE", "STATE", "ENDS IN")]
    for each in found:
        ends_in = _ends_in(each)
        rows.append((each.id, each.name or "-", each.state, "-" if ends_in is None else span(ends_in)))
    widths = [max(_columns(row[at]) for row in rows) for at in range(3)]
    return [
        "  ".join([*(text + " " * (width - _columns(text)) for text, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


sandboxes = DirectCommand(
    "sandboxes",
    _sandboxes,
    options=SANDBOXES_OPTIONS,
    params=[*map(parameter, SANDBOXES_OPTIONS)],
    short_help="List your E2B sandboxes.",
    help=(
        "List the sandboxes of your account at the provider, newest first: ID, template, state (running or paused), "
        "and the time that running ones have left."
    ),
)
