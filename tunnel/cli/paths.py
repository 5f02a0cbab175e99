"""Paths as arguments and options of commands: a ~ at their start is the home, as in shells.

Shells do not replace it behind ``=``, in a container's command line, and where HOME is not set.
"""

from __future__ import annotations

import os
from typing import Any

import click

from tunnel.net.home import expand_home


class HomePath(click.Path):
    """A path whose leading ~ is replaced by the home. Raises UsageError if there is no home."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        what = param.opts[0] if isinstance(param, click.Option) else getattr(param, "human_readable_name", "path")
        return super().convert(expand_home(os.fsdecode(value), origin=what), param, ctx)
