"""The entry point: runs the ProxyCommand directly, and every other command through click."""

from __future__ import annotations

import os
import sys

from tunnel.client.options import parse_command_line
from tunnel.client.settings import resolve
from tunnel.client.trace import Trace, say, warn
from tunnel.client.words import wrong_operands
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

# First words that are commands, never host names; `connect -- NAME` reaches a host with such a name.
RESERVED = frozenset(
    ("connect", "ssh", "scp", "sftp", "rsync", "open", "serve", "forward", "config-ssh", "doctor", "shell", "pty",
     "sandboxes", "websocat", "keys", "certs", "completion", "help")
)  # fmt: skip

# The options of every command that show its help and the version.
HELP, VERSION = ("-h", "--help"), ("-V", "--version")

HINT = """\
wstunnel-py carries ssh over a WebSocket. ssh starts it as its ProxyCommand:

    ssh -o ProxyCommand='wstunnel-py %h' user@SANDBOX-ID                  # an E2B sandbox
    ssh -o ProxyCommand='wstunnel-py ws://MACHINE:8081' USER@MACHINE      # a machine that runs wstunnel-py serve

To put this into ~/.ssh/config, run wstunnel-py config-ssh --write.
All commands: wstunnel-py --help. All options: wstunnel-py connect --help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and _started_as_websocat(sys.argv[0]):
        words.insert(0, "websocat")
    spell_settings(option_of)
    try:
        if arguments is None:  # our own process, not a Python program that calls this function
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
    except ModuleNotFoundError as exc:
        is_own = (exc.name or "").partition(".")[0] in sys.stdlib_module_names
        if not is_own or sys.platform == "win32":  # the names include those of modules that Windows never has
            tell_bug(exc, words)
            return INTERNAL
        # As Debian's python3-minimal, for example.
        remedy = "use a complete Python (Debian and Ubuntu: apt-get install python3)"
        say(f"this Python lacks its own module {exc.name}: {remedy}")
        return USAGE
    except Exception as exc:
        tell_bug(exc, words)
        return INTERNAL
    finally:
        spell_settings()


def option_of(setting: str) -> str:
    """Return the option for a setting; any text that is not a setting's name is returned unchanged."""
    return f"--{setting.replace('_', '-')}" if setting.isidentifier() and setting.islower() else setting


def tell(error: TunnelError) -> None:
    """Print an error in one line, with what the user can do about it."""
    from tunnel.cli.hints import told

    say(told(error))


def _started_as_websocat(program: str) -> bool:
    """Return whether this program was started through a link called websocat."""
    return os.path.basename(program).lower().removesuffix(".exe") == "websocat"


def tell_bug(exc: Exception, words: Sequence[str]) -> None:
    """Print an unexpected error in one line, and with -v its traceback."""
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
        return _group(["--help"] if words[0] in HELP else ["connect", "--help"])
    first = words[0]
    if (
        first != "connect"
        and first.isascii()
        and first[:1].isalpha()
        and first.replace("-", "").replace("_", "").isalpha()
    ):
        from tunnel.cli.misspelt import check_first_word

        check_first_word(words, RESERVED)
    if first == "connect":
        return connect(words[1:])
    _check_order(options)
    return connect(words)


def _check_order(options: Sequence[str]) -> None:
    """Raise UsageError if a command follows options or a host: all the words would go to `connect`."""
    command = next((word for word in options[1:] if word in RESERVED), None)
    if command is None:
        return
    try:
        _, operands = parse_command_line(options)
    except UsageError:
        pass  # perhaps the options are those of the command
    else:
        if command not in operands:
            return  # it is the value of an option
    raise UsageError(f"put the command first: wstunnel-py {command} [OPTIONS]…")


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
        raise wrong_operands(operands, "connect [OPTIONS] [--] HOST")
    settings = resolve(operands[0], given)
    trace = begin(settings)
    if not settings.quiet and sys.stdin is not None and sys.stdin.isatty():
        say("this command is a ProxyCommand for ssh: whatever you type here is sent to the server unchanged")
    from tunnel.client.proxycommand import run

    try:
        return run(settings, trace, lambda: resolve(operands[0], given))
    except TunnelError as exc:
        trace.log(f"error: {exc}")
        text = str(exc)
        if not settings.quiet:
            host = str(settings.address) if "?" in operands[0] else operands[0]
            try:
                from tunnel.cli.hints import told

                text = told(exc, settings.layers, host, has_options=bool(given))
            except MemoryError:
                pass  # there is none for a hint
        say(text)
        return exc.exit_code
