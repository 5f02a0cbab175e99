"""``wstunnel-py pty ps`` and ``pty kill``: what the terminal service of a sandbox runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from contextlib import closing

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.direct import DirectCommand, parameter
from tunnel.client.options import PTY_OPTIONS, parse_command_line
from tunnel.client.trace import say, warn
from tunnel.errors import UNREACHABLE, UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Values
    from tunnel.pty.client.model import ProcessInfo
    from tunnel.pty.client.sync import Pty

_HOST = "HOST is as for `wstunnel-py shell`. Default: the service on this machine."


def _open(host: str | None, given: Values) -> Pty:
    from tunnel.pty.client.http_sync import HttpClient
    from tunnel.pty.client.sync import Pty
    from tunnel.pty.shell.settings import resolve

    settings = resolve(host, given, options=PTY_OPTIONS)
    warn(settings.warnings, quiet=settings.quiet)
    try:
        return Pty(HttpClient(settings.place, settings.http_options))
    except UsageError as exc:
        exc.name_origin(settings.origins)
        raise


def _ps(words: list[str]) -> int:
    given, operands = parse_command_line(words, PTY_OPTIONS, "pty ps")
    if len(operands) > 1:
        raise UsageError("one host; usage: wstunnel-py pty ps [OPTIONS] [HOST]")
    with closing(_open(operands[0] if operands else None, given)) as pty:
        for line in table(pty.list()):
            click.echo(line)
    return 0


def table(processes: Iterable[ProcessInfo]) -> list[str]:
    """Return the lines of ``ps``: pid, folder, and the command as one would type it."""
    rows = [("PID", "FOLDER", "COMMAND")]
    rows += [
        (str(each.pid), printable(each.cwd or "-"), printable(shlex.join([each.cmd, *each.args])))
        for each in sorted(processes, key=lambda each: each.pid)
    ]
    pids, folders = (max(len(row[at]) for row in rows) for at in (0, 1))
    return [f"{pid:>{pids}}  {folder:<{folders}}  {command}" for pid, folder, command in rows]


def _kill(words: list[str]) -> int:
    given, operands = parse_command_line(words, PTY_OPTIONS, "pty kill")
    host = operands.pop(0) if operands and not operands[0].isdigit() else None
    if not operands or not all(word.isascii() and word.isdigit() for word in operands):
        raise UsageError("which processes? usage: wstunnel-py pty kill [OPTIONS] [HOST] PID…")
    code = 0
    with closing(_open(host, given)) as pty:
        for pid in map(int, operands):
            if not pty.kill(pid):
                say(f"there is no process {pid}")
                code = UNREACHABLE
    return code


@click.group(short_help="List and kill what runs in a sandbox.")
def pty() -> None:
    """List and kill what the terminal service of a sandbox runs."""


pty.add_command(
    DirectCommand(
        "ps",
        _ps,
        options=PTY_OPTIONS,
        params=[*map(parameter, PTY_OPTIONS), click.Argument(["host"], required=False, shell_complete=complete_host)],
        help=f"List the processes that the terminal service of HOST runs.\n\n{_HOST}",
    )
)
pty.add_command(
    DirectCommand(
        "kill",
        _kill,
        options=PTY_OPTIONS,
        params=[
            *map(parameter, PTY_OPTIONS),
            click.Argument(["host"], required=False, shell_complete=complete_host),
            click.Argument(["pid"], nargs=-1, metavar="PID…"),
        ],
        help=f"Kill processes and everything they started.\n\n{_HOST}",
    )
)
