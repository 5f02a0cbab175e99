"""Paths as arguments and options of commands: ~ at their start is the home, as shells have it.

Shells leave it alone behind ``=``, in a container's command line and where HOME is not set; a folder of that name in
whatever folder the command was started in is what nobody means.
"""

from __future__ import annotations

import os
from typing import Any

import click

from tunnel.net.home import expand_home


class HomePath(click.Path):
    """A path in which the home is put in the place of ~. Raises UsageError when there is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        what = param.opts[0] if isinstance(param, click.Option) else getattr(param, "human_readable_name", "path")
        return super().convert(expand_home(os.fsdecode(value), what), param, ctx)
