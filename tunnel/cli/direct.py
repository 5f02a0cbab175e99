"""Commands that click documents, but whose command line is read by the client's own parser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from tunnel.cli.main import HELP, VERSION, option_of
from tunnel.client.options import FLAG, PATH, SEVERAL, Option
from tunnel.errors import spell_settings


def parameter(option: Option) -> click.Option:
    """Return the click option that shows ``option`` in the help."""
    names = ([f"-{option.short}"] if option.short else []) + [f"--{option.flag}"]
    return click.Option(
        [*names, option.name.replace("-", "_")],
        # So that shells complete files and choices.
        type=click.Path() if option.kind == PATH else click.Choice(option.choices) if option.choices else None,
        is_flag=option.kind == FLAG,
        multiple=option.kind in SEVERAL,
        metavar=option.metavar or None,
        help=option.help,
        default=shown_default(option.default),
        show_default=option.default is not None,
        envvar=option.variable,
        show_envvar=True,
        hidden=option.hidden,
    )


def shown_default(value: Any) -> Any:
    """Return a default as the help shows it: 15 instead of 15.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def before_dashes(words: Sequence[str]) -> list[str]:
    """Return the words of a command line that may be options: those before ``--``."""
    return list(words[: words.index("--")] if "--" in words else words)


class DirectCommand(click.Command):
    """A command whose ``run`` gets its words unparsed, and returns its exit code.

    ``options`` is its table, by which errors name its settings. ``own`` returns the words of a command line that may be
    its options, --help included.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[list[str]], int],
        *,
        options: Sequence[Option] = (),
        own: Callable[[Sequence[str]], list[str]] = before_dashes,
        **settings: Any,
    ) -> None:
        super().__init__(name, **settings)
        self._run = run
        self._own = own
        self._flags = {option.setting: f"--{option.flag}" for option in options}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = list(args)
        words = self._own(args)
        return super().parse_args(ctx, words) if any(word in HELP + VERSION for word in words) else []

    def invoke(self, ctx: click.Context) -> int:
        if self._flags:
            spell_settings(lambda setting: self._flags.get(setting) or option_of(setting))
        return self._run(ctx.obj)
