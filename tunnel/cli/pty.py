"""``wstunnel-py pty ps`` and ``pty kill``: list and kill the processes of a sandbox's terminal service."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from contextlib import closing

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.direct import DirectCommand, parameter
from tunnel.cli.hints import told
from tunnel.client.options import PTY_OPTIONS, parse_command_line
from tunnel.client.trace import say, warn
from tunnel.client.words import wrong_operands
from tunnel.errors import UNREACHABLE, TunnelError, UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Values
    from tunnel.pty.client.model import ProcessInfo
    from tunnel.pty.client.sync import Pty

_HOST = "HOST is as for wstunnel-py shell. Default: the service on this machine."


def _run(host: str | None, given: Values, use: Callable[[Pty], int]) -> int:
    """Call ``use`` with the terminals of ``host``; return its exit code, or that of an error, which is printed."""
    from tunnel.pty.client.http_sync import HttpClient
    from tunnel.pty.client.sync import Pty
    from tunnel.pty.shell.settings import resolve

    settings = resolve(host, given, options=PTY_OPTIONS)
    warn(settings.warnings, quiet=settings.quiet)
    if settings.access is not None and not settings.quiet:
        settings.access.sandbox.notice = say
    try:
        with closing(Pty(HttpClient(settings.place, settings.http_options, settings.access))) as pty:
            return use(pty)
    except UsageError as exc:
        exc.name_origin(settings.origins)
        raise
    except TunnelError as exc:
        say(str(exc) if settings.quiet else told(exc, settings.layers))
        return exc.exit_code


def _ps(words: list[str]) -> int:
    given, operands = parse_command_line(words, PTY_OPTIONS, "pty ps")
    if len(operands) > 1:
        raise wrong_operands(operands, "pty ps [OPTIONS] [HOST]")

    def show(pty: Pty) -> int:
        for line in table(pty.list()):
            click.echo(line)
        return 0

    return _run(operands[0] if operands else None, given, show)


def table(processes: Iterable[ProcessInfo]) -> list[str]:
    """Return the lines of ``ps``: pid, folder, and the command, quoted for a shell."""
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
        raise UsageError("PID is missing; usage: wstunnel-py pty kill [OPTIONS] [HOST] PID…")

    def kill(pty: Pty) -> int:
        code = 0
        for pid in map(int, operands):
            if not pty.kill(pid):
                say(f"there is no process {pid}")
                code = UNREACHABLE
        return code

    return _run(host, given, kill)


@click.group(short_help="List and kill terminals and processes in a sandbox.")
def pty() -> None:
    """List and kill the processes that the terminal service of a sandbox runs."""


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
        help=f"Kill processes, and everything that they have started.\n\n{_HOST}",
    )
)
