"""Makes docs/cli.md and the manual pages in docs/man from the commands themselves, and docs/pictures/packages.svg from
docs/architecture.md; or checks that they are up to date.

    scripts/make-docs [--check]

Run it after a change to a command or to that table of packages; a test runs it with --check. It needs .venv, which
scripts/test makes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click
from click_man.core import generate_man_page  # type: ignore[import-untyped]

from docslib import packages
from tunnel import __version__
from tunnel.cli.group import group

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PROGRAM = "wstunnel-py"
SEVERAL = 4  # options that a command must share with connect for the page only to name them
INTRODUCTION = f"""\
# Commands

All commands and options, as `--help` and the manual pages (`man {PROGRAM}`) show them. `scripts/make-docs` generates
this page from the program.

`{PROGRAM} HOST` is short for `{PROGRAM} connect -- HOST`. Write the long form in scripts, because host names that
are also commands need it. An option on the command line overrides its variable. [client.md](client.md) describes the
config file and the exit codes, and [bridge.md](bridge.md) the bridge.
"""


def contexts(parent: click.Context) -> Iterator[click.Context]:
    """Yield the context of every command below ``parent``, groups before what is in them."""
    assert isinstance(parent.command, click.Group)
    for name in parent.command.list_commands(parent):
        command = parent.command.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        yield context
        if isinstance(command, click.Group):
            yield from contexts(context)


def paragraphs(text: str | None) -> str:
    """The help text as Markdown: what click is told not to wrap becomes a block of code."""
    found = []
    for paragraph in cleandoc(text or "").split("\n\n"):
        if paragraph.startswith("\b"):
            found.append("\n".join(f"    {line.strip()}" for line in paragraph.splitlines()[1:]))
        else:
            found.append(" ".join(paragraph.split()))
    return "\n\n".join(found)


def option_row(option: click.Option, context: click.Context) -> str:
    """A row of a table: the option as it is written, its variable, and what it means with its default."""
    record = option.get_help_record(context)
    assert record is not None
    words, meaning = record
    text, _, remarks = meaning.partition("  [")  # click's own, such as [env var: NAME; default: 10; 1<=x<=20]
    found = re.search(r"default: ([^;\]]+)", remarks)
    default = found[1] if found else None
    if default is not None and "Default:" not in text:
        text += f" Default: {default}."
    variable = f"`{option.envvar}`" if option.envvar and option.show_envvar else ""
    words = words.replace("|", "\\|")
    return f"| `{words}` | {variable} | {text} |"


def overview(below: list[click.Context]) -> str:
    """A table of all commands, each with a link to its section."""
    rows = ["| command | what it does |", "|---|---|"]
    for each in below:
        if not isinstance(each.command, click.Group):
            path = each.command_path
            about = each.command.get_short_help_str(limit=200)
            rows.append(f"| [{path}](#{path.replace(' ', '-')}) | {about} |")
    return "\n".join(rows)


def of_connect(option: click.Option, shared: dict[str, str | None]) -> bool:
    """Whether the option is one of connect's, ``shared``, and means the same."""
    return option.help is not None and shared.get(option.opts[-1]) == option.help


def section(context: click.Context, shared: dict[str, str | None]) -> str:
    """The section of one command. The options that it shares with connect are only named, unless they are few."""
    command = context.command
    level = "##" if context.parent is not None and context.parent.parent is None else "###"
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"{level} {context.command_path}", f"    {context.command_path} {usage}", paragraphs(command.help)]
    if command.epilog:
        parts.append(paragraphs(command.epilog))
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    same = [each for each in options if of_connect(each, shared)] if command.name != "connect" else []
    if len(same) < SEVERAL:
        same = []
    own = [each for each in options if each not in same]
    if own:
        rows = [option_row(each, context) for each in own]
        if any(each.envvar and each.show_envvar for each in own):
            parts.append("\n".join(["| option | variable | meaning |", "|---|---|---|", *rows]))
        else:
            rows = [row.replace(" |  | ", " | ", 1) for row in rows]
            parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    if same:
        names = ", ".join(f"`{each.opts[-1]}`" for each in same)
        parts.append(f"These options are the same as those of [{PROGRAM} connect](#{PROGRAM}-connect): {names}.")
    return "\n\n".join(parts)


def man_page(context: click.Context, commands: list[click.Context]) -> str:
    """The manual page of one command, as click-man makes it; those of groups name what is in them."""
    if isinstance(context.command, click.Group):
        context.command.commands = {str(each.info_name): each.command for each in commands}
    page: str = generate_man_page(context, version=__version__, date=" ")
    # click-man leaves in a line that begins with a dot, which would be a request, and click's mark for "do not wrap".
    page = re.sub(r"^([.'])(?!(?:TH|SH|PP|TP|B)\b)", r"\\&\1", page, flags=re.MULTILINE)
    return re.sub("^\b\n(.*?)(?=^\\.[SP]|\\Z)", ".nf\n\\1.fi\n", page, flags=re.MULTILINE | re.DOTALL)


def made() -> dict[Path, str]:
    """All files, by their paths."""
    top = click.Context(group, info_name=PROGRAM)
    below = list(contexts(top))
    connect = next(each.command for each in below if each.command.name == "connect")
    shared = {each.opts[-1]: each.help for each in connect.params if isinstance(each, click.Option)}
    sections = [section(each, shared) for each in below]
    files = {DOCS / "cli.md": "\n\n".join([INTRODUCTION.strip(), overview(below), *sections]) + "\n"}
    for context in (top, *below):
        name = context.command_path.replace(" ", "-")
        files[DOCS / "man" / f"{name}.1"] = man_page(context, [each for each in below if each.parent is context])
    files[DOCS / "pictures" / "packages.svg"] = packages.svg((DOCS / "architecture.md").read_text())
    return files


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 0 if sys.argv[1:] in (["--help"], ["-h"]) else 2
    files = made()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    left_over = sorted(set(DOCS.glob("man/*")) - set(files))
    if check:
        for path in stale + left_over:
            print(f"{path.relative_to(ROOT)} is out of date: run scripts/make-docs", file=sys.stderr)
        return 1 if stale or left_over else 0
    for path in left_over:
        path.unlink()
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files[path])
    return 0
