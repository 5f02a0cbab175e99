"""The entry point: the ProxyCommand at once, every other command through click."""

from __future__ import annotations

import os
import sys

from tunnel.client.options import parse_command_line
from tunnel.client.settings import resolve
from tunnel.client.trace import Trace, say, warn
from tunnel.errors import (
    INTERNAL,
    USAGE,
    TunnelError,
    UsageError,
    optional_packages,
    printable,
    redacted,
    spell_settings,
)
from tunnel.net.standard_streams import open_standard_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.client.settings import Settings

# First words that are commands, never host names; `connect -- NAME` reaches a host that is called like one.
RESERVED = frozenset(
    ("connect", "ssh", "scp", "sftp", "rsync", "open", "serve", "forward", "config-ssh", "doctor", "shell", "pty",
     "websocat", "keys", "certs", "completion", "help")
)  # fmt: skip

# What shows the help and the version, of every command.
HELP, VERSION = ("-h", "--help"), ("-V", "--version")

HINT = """\
wstunnel-py carries ssh over a WebSocket; ssh starts it for you. Put this into ~/.ssh/config,
or have it put there by wstunnel-py config-ssh --write:

    Host *.e2b
        ProxyCommand wstunnel-py connect -- %h

or try it once: ssh -o ProxyCommand='wstunnel-py connect -- %h' user@SANDBOX-ID
All options: wstunnel-py connect --help. The other end: wstunnel-py serve --help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and _started_as_websocat(sys.argv[0]):
        words.insert(0, "websocat")
    spell_settings(option_of)
    try:
        if arguments is None:  # a process of our own, not somebody's Python program
            open_standard_streams()
        with optional_packages():
            code = _dispatch(words)
        sys.stdout.flush()
        return code
    except TunnelError as exc:
        tell(exc)
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        tell_bug(exc, words)
        return INTERNAL
    finally:
        spell_settings()


def option_of(setting: str) -> str:
    """Return the option for a setting; what is no setting's name stays as it is."""
    return f"--{setting.replace('_', '-')}" if setting.isidentifier() and setting.islower() else setting


def tell(error: TunnelError) -> None:
    """Tell of an error in one line, with what can be done about it."""
    from tunnel.cli.hints import told

    say(told(error))


def _started_as_websocat(program: str) -> bool:
    """Return whether the user has made a link of that name to this program."""
    return os.path.basename(program).lower().removesuffix(".exe") == "websocat"


def tell_bug(exc: Exception, words: Sequence[str]) -> None:
    """Tell in one line of an error that nobody foresaw, and with -v where it came from."""
    verbose = any(word in ("-v", "--verbose") for word in words) or bool(os.environ.get("WSTUNNEL_PY_VERBOSE"))
    if verbose:
        import traceback

        sys.stderr.write(redacted(traceback.format_exc()))
    hint = "" if verbose else " (-v shows where)"
    say(f"internal error: {type(exc).__name__}: {printable(str(exc))}{hint}")


def _dispatch(words: list[str]) -> int:
    if "_WSTUNNEL_PY_COMPLETE" in os.environ:
        from tunnel.cli.group import complete

        complete()
    if not words:
        print(HINT, file=sys.stderr)
        return USAGE
    if words[0] == "websocat":
        return _websocat(words[1:])
    if words[0] in RESERVED and words[0] != "connect":
        return _group(words)
    options = words[: words.index("--")] if "--" in words else words
    if any(word in VERSION for word in options):
        return _group(["--version"])
    if any(word in HELP for word in options):
        return _group(["connect", "--help"] if words[0] == "connect" else ["--help"])
    first = words[0]
    if (
        first != "connect"
        and first.isascii()
        and first[:1].isalpha()
        and first.replace("-", "").replace("_", "").isalpha()
    ):
        from tunnel.cli.misspelt import check_first_word

        check_first_word(words, RESERVED)
    return connect(words[1:] if words[0] == "connect" else words)


def _websocat(words: list[str]) -> int:
    options = words[: words.index("--")] if "--" in words else words
    if any(word in VERSION for word in options):
        return _group(["--version"])
    if any(word in HELP or word.startswith("--help=") for word in options):
        return _group(["websocat", "--help"])
    # Without click, as ssh starts this too.
    from tunnel.websocat.run import run

    return run(words)


def _group(words: list[str]) -> int:
    from tunnel.cli.group import run

    return run(words)


def begin(settings: Settings) -> Trace:
    """Print the warnings and begin the trace of a tunnel with ``settings``. Raises UsageError."""
    try:
        trace = Trace(verbose=settings.verbose, log_file=settings.log_file)
    except UsageError as exc:
        exc.name_origin(settings.origins)
        raise
    warn(settings.warnings, quiet=settings.quiet)
    trace.step("url", str(settings.address))
    for note in settings.notes:
        trace.step("url", note)
    return trace


def connect(words: list[str]) -> int:
    """Run the ProxyCommand with the command line ``words`` and return its exit code. Raises TunnelError."""
    given, operands = parse_command_line(words)
    if len(operands) != 1:
        what = "which host?" if not operands else f"one host, not {len(operands)};"
        raise UsageError(f"{what} usage: wstunnel-py connect [OPTIONS] [--] HOST")
    settings = resolve(operands[0], given)
    trace = begin(settings)
    if not settings.quiet and sys.stdin is not None and sys.stdin.isatty():
        say("ssh starts this as its ProxyCommand; run by hand, it sends what you type to the server as it is")
    from tunnel.client.proxycommand import run

    try:
        return run(settings, trace, lambda: resolve(operands[0], given))
    except TunnelError as exc:
        trace.log(f"error: {exc}")
        if settings.quiet:
            say(str(exc))
        else:
            from tunnel.cli.hints import told

            host = str(settings.address) if "?" in operands[0] else operands[0]
            say(told(exc, settings.layers, host, has_options=bool(given)))
        return exc.exit_code
