"""The entry point: the ProxyCommand at once, every other command through click."""

from __future__ import annotations

import os
import sys

from tunnel.protocol.errors import INTERNAL, USAGE, TunnelError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# First words that are commands, never host names; `connect -- NAME` reaches a host that is called like one. Names of
# commands that are still to come are among them, so that no script of today changes its meaning tomorrow.
RESERVED = frozenset(
    ("connect", "serve", "forward", "config-ssh", "doctor", "shell", "pty", "websocat", "keys", "certs", "help")
)  # fmt: skip

HINT = """\
wstunnel-py carries ssh over a WebSocket; ssh starts it for you. Put this into ~/.ssh/config:

    Host *.e2b
        ProxyCommand wstunnel-py connect -- %h

or try it once: ssh -o ProxyCommand='wstunnel-py connect -- %h' user@SANDBOX-ID
All options: wstunnel-py connect --help. The other end: wstunnel-py serve --help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        print(HINT, file=sys.stderr)
        return USAGE
    before_operands = words[: words.index("--")] if "--" in words else words
    wants_help = any(word in ("--help", "--version") for word in before_operands)
    if wants_help or (words[0] in RESERVED and words[0] != "connect"):
        from tunnel.cli.group import run

        return run(words)
    return connect(words[1:] if words[0] == "connect" else words)


def connect(words: list[str]) -> int:
    """Run the ProxyCommand with the command line ``words``."""
    verbose = False
    try:
        from tunnel.client.options import parse_command_line
        from tunnel.client.settings import read_environment, resolve
        from tunnel.client.trace import Trace, say

        given, operands = parse_command_line(words)
        if len(operands) != 1:
            what = "which host? " if not operands else f"one host, not {len(operands)}; "
            say(f"{what}usage: wstunnel-py connect [OPTIONS] [--] HOST")
            return USAGE
        environment = read_environment(os.environ)
        verbose = given.get("verbose", environment.get("verbose")) is True
        log_file = given.get("log-file", environment.get("log-file"))
        trace = Trace(verbose=verbose, log_file=log_file if isinstance(log_file, str) else None)
        settings = resolve(operands[0], given)
        for warning in settings.warnings:
            say(f"warning: {warning}")
        if sys.stdin is not None and sys.stdin.isatty():
            say("ssh starts this as its ProxyCommand; by hand, what you type goes to the server as it is")
        from tunnel.client.proxycommand import run

        try:
            return run(settings, trace)
        except TunnelError as exc:
            trace.log(f"error: {exc}")
            raise
    except TunnelError as exc:
        say(str(exc))
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        if verbose:
            raise
        say(f"internal error: {type(exc).__name__}: {printable(str(exc))} (-v shows where)")
        return INTERNAL
