"""``wstunnel-py shell``: an interactive terminal in a sandbox."""

from __future__ import annotations

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.direct import DirectCommand, parameter
from tunnel.cli.hints import told
from tunnel.cli.main import tell, tell_bug
from tunnel.client.options import SHELL_OPTIONS, parse_command_line
from tunnel.client.trace import Trace, say, warn
from tunnel.client.words import wrong_operands
from tunnel.errors import TunnelError, UsageError, optional_packages

FAILED = 255  # ssh's exit code for its own failures; any other code may be the remote shell's


def _shell(words: list[str]) -> int:
    try:
        return _run(words)
    except TunnelError as exc:
        tell(exc)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        tell_bug(exc, words)
        return FAILED


def _run(words: list[str]) -> int:
    command: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    given, operands = parse_command_line(words, SHELL_OPTIONS, "shell")
    if len(operands) > 1:
        raise wrong_operands(operands, "shell [OPTIONS] [HOST] [-- COMMAND [ARGUMENT]…]")
    with optional_packages():
        from tunnel.pty.shell.run import run
        from tunnel.pty.shell.settings import resolve

    settings = resolve(operands[0] if operands else None, given, command)
    warn(settings.warnings, quiet=settings.quiet)
    trace = Trace(verbose=settings.verbose)
    trace.step("url", str(settings.place))
    for note in settings.notes:
        trace.step("url", note)
    try:
        return run(settings, trace)
    except UsageError as exc:
        exc.name_origin(settings.origins)
        raise
    except TunnelError as exc:
        say(str(exc) if settings.quiet else told(exc, settings.layers))
        return FAILED


shell = DirectCommand(
    "shell",
    _shell,
    options=SHELL_OPTIONS,
    params=[
        *map(parameter, SHELL_OPTIONS),
        click.Argument(["host"], required=False, shell_complete=complete_host),
        click.Argument(["command"], nargs=-1, metavar="[-- COMMAND [ARGUMENT]…]"),
    ],
    short_help="Open a terminal in a sandbox.",
    help=(
        "Open a terminal on HOST. The terminal service there runs COMMAND in it, or an interactive login bash.\n\n"
        "HOST is an http:// or https:// URL, a name from the config file, or the text for {host} in the URL template. "
        "The template comes from --url, WSTUNNEL_PY_PTY_URL or pty-url in the config file, in this order. Default: "
        "https://{port}-{host}.e2b.app. A host with its own url in the config file also needs its own pty-url. Without "
        "HOST, the template must be a complete URL; if none is set, the terminal is on this machine.\n\n"
        "The local TERM is passed on, or xterm-256color if it is not set. -e TERM=… sets another.\n\n"
        "The exit code is that of the terminal's program, 128 + n if signal n ended it, or 255 if this command fails. "
        "At the start of a line, ~. ends the terminal, ~& leaves it running, and ~? shows these keys. If standard "
        "input is not a terminal, its end is sent as Ctrl-D."
    ),
)
