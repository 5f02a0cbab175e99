"""The table of the client's options, which feeds the command line, the environment and the config file alike.

An option is called ``--ca-file`` on the command line, ``WSTUNNEL_PY_CA_FILE`` in the environment, ``ca-file`` in the
config file and ``ca_file`` in Python. Options for terminals only are called ``pty-user`` there, and ``--user`` in the
commands for terminals. This module turns words into values; where a value comes from is a matter of `layers`.
"""

from __future__ import annotations

from tunnel.client.words import Words, refuse_value, unknown_option
from tunnel.errors import UsageError
from tunnel.net.home import expand_home
from tunnel.protocol.message_size import LARGEST_MESSAGE, LEAST_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Value = str | float | int | bool | list[str]

ENVIRONMENT = "WSTUNNEL_PY_"
LONGEST = 86400.0  # seconds; no limit that a user means is longer than a day

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")

# Kinds of values.
TEXT, PATH, SECONDS, PORT, FLAG, HEADERS, PROXY = "text", "path", "seconds", "port", "flag", "headers", "proxy"
LIMIT, PID, ENVIRON, LETTER, SIZE = "limit", "pid", "environ", "letter", "size"
USER, ALIAS = "user", "alias"
_NUMBERS = {
    PORT: (1, 65535, "a port number from 1 to 65535"),
    PID: (1, 2**31 - 1, "a process's pid"),
    SIZE: (LEAST_MESSAGE, LARGEST_MESSAGE, f"a number of bytes from {LEAST_MESSAGE} to {LARGEST_MESSAGE}"),
}
# Marks that stand in ssh_config without quotes, beside letters and digits.
_MARKS = {USER: "+-.@_", ALIAS: "-._"}
SEVERAL = (HEADERS, ENVIRON)
PTY, DOCTOR = "pty-", "doctor-"


class Option:
    """One option: its long and short names, the kind of its value, and the words for ``--help``."""

    __slots__ = ("default", "help", "hidden", "kind", "metavar", "name", "short")

    def __init__(
        self, name: str, kind: str, help: str, *, metavar: str = "", short: str = "", default: Value | None = None,
        hidden: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.kind = kind
        self.help = help
        self.metavar = metavar
        self.short = short
        self.default = default
        self.hidden = hidden

    @property
    def flag(self) -> str:
        """The name on the command line, without the dashes."""
        return self.name.removeprefix(PTY).removeprefix(DOCTOR)

    @property
    def setting(self) -> str:
        """The name in Python, by which errors call it."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that gives this option."""
        return ENVIRONMENT + self.name.upper().replace("-", "_")


OPTIONS = (
    Option("url", TEXT, "URL of the bridge, in which {host} and {port} are replaced.", metavar="TEMPLATE"),
    Option("port", PORT, "Port of the bridge, for {port} in the template.", metavar="N", default=8081),
    Option("header", HEADERS, "Add a header to the request; may be repeated.", metavar="'NAME: VALUE'",
           short="H"),
    Option("token-file", PATH, "File with the bearer token for the bridge. Or put the token itself into "
           "WSTUNNEL_PY_TOKEN.", metavar="FILE"),
    Option("ca-file", PATH, "Trust the certificates in this PEM file instead of the system's.", metavar="FILE"),
    Option("client-cert", PATH, "Certificate to show to the server (PEM). The file may contain the key too.",
           metavar="FILE"),
    Option("client-key", PATH, "Key of --client-cert (PEM). Default: in that file, else NAME.key beside NAME.pem.",
           metavar="FILE"),
    Option("insecure", FLAG, "Do not check the server's certificate. Anyone on the network path can then read "
           "and change the traffic."),
    Option("proxy", PROXY, "Proxy (http://, socks5:// or socks5h://), or 'none'. Default: from the usual variables. "
           "Other users can read a command line, so put a URL with a password into the environment.",
           metavar="URL"),
    Option("connect-timeout", SECONDS, "Time limit for DNS, TCP, proxy, TLS and upgrade together.", metavar="SECONDS",
           default=15.0),
    Option("wait", LIMIT, "How long to try again while the bridge or the edge before it is not up yet; 0: not at all.",
           metavar="SECONDS", default=0.0),
    Option("ping-interval", SECONDS, "Send a ping after this much silence.", metavar="SECONDS", default=20.0),
    Option("ping-timeout", SECONDS, "Give up if nothing arrives for this long after a ping; at most 8 s in a session "
           "that can be resumed.", metavar="SECONDS", default=60.0),
    Option("no-resume", FLAG, "Exit when the connection is lost, instead of resuming the session."),
    Option("reconnect-for", SECONDS, "How long to try to restore a lost connection; the bridge may allow less.",
           metavar="SECONDS", default=600.0),
    Option("max-message", SIZE, "Largest message to send, for an edge that accepts no larger ones. A resumable session "
           "adjusts to such an edge by itself.", metavar="BYTES", default=LARGEST_MESSAGE),
    Option("ipv4", FLAG, "Use IPv4 only.", short="4"),
    Option("ipv6", FLAG, "Use IPv6 only.", short="6"),
    Option("config", PATH, "Read this config file instead of the default one.", metavar="FILE"),
    Option("log-file", PATH, "Append what -v shows to this file.", metavar="FILE"),
    Option("quiet", FLAG, "Print no warnings and hints.", short="q"),
    Option("verbose", FLAG, "Explain each step on standard error, with timings.", short="v"),
    Option("stdin-thread", FLAG, "Read standard input in a thread, as on Windows.", hidden=True),
)  # fmt: skip

# Other commands have no standard input to relay.
TUNNEL_OPTIONS = tuple(option for option in OPTIONS if option.name != "stdin-thread")
FORWARD_OPTIONS = (
    Option("all", FLAG, "Serve every host of the config file, each at a port of its own: those that config-ssh --ports "
           "writes."),
    *TUNNEL_OPTIONS,
)  # fmt: skip

BY_NAME = {option.name: option for option in OPTIONS}

# What `shell`, `pty ps` and `pty kill` need to reach a terminal service, beside some of the above.
PTY_OPTIONS = (
    Option("pty-url", TEXT, "URL of the terminal service, in which {host} and {port} are replaced.",
           metavar="TEMPLATE"),
    Option("pty-port", PORT, "Port of the terminal service, for {port} in the template.", metavar="N", default=49983),
    Option("pty-token-file", PATH, "File with the access token for the service. Or put the token itself into "
           "WSTUNNEL_PY_PTY_TOKEN.", metavar="FILE"),
    *(BY_NAME[name] for name in (
        "header", "ca-file", "client-cert", "client-key", "insecure", "proxy", "connect-timeout", "config", "quiet",
        "verbose",
    )),
)  # fmt: skip

SHELL_OPTIONS = (
    Option("pty-attach", PID, "Join the terminal with this pid instead of starting one.", metavar="PID"),
    Option("pty-cwd", TEXT, "Folder to start in. A relative path begins at the user's home.", metavar="FOLDER"),
    Option("pty-user", TEXT, "User to run as.", metavar="NAME"),
    Option("pty-env", ENVIRON, "Set an environment variable; may be repeated. The local TERM is passed on; if the "
           "sandbox does not know this terminal: -e TERM=xterm-256color.", metavar="NAME=VALUE", short="e"),
    Option("pty-timeout", LIMIT, "Kill the terminal after this time, even if it is in use; 0: never.",
           metavar="SECONDS", default=0.0),
    Option("pty-keep", FLAG, "Keep the terminal running when a signal ends this command, or its connection "
           "is lost for good."),
    Option("pty-grace", SECONDS, "How long the terminal keeps running when nobody is connected to it, unless --keep.",
           metavar="SECONDS", default=60.0),
    Option("pty-reconnect-for", SECONDS, "How long to try to restore a lost connection.", metavar="SECONDS",
           default=600.0),
    Option("pty-escape", LETTER, "Character that starts an escape at the beginning of a line, or 'none'.",
           metavar="CHAR", default="~"),
    *PTY_OPTIONS,
)  # fmt: skip

DOCTOR_OPTIONS = (
    Option("doctor-json", FLAG, "Print one JSON object instead of text."),
    Option("doctor-throughput", FLAG, "Also measure round trips and throughput of the tunnel alone, without "
           "SSH. Takes some seconds; the bridge must be wstunnel-py serve."),
    *(option for option in TUNNEL_OPTIONS if option.name != "wait"),  # it tells what is wrong at this moment
)  # fmt: skip

# What the commands that run ssh, and what config-ssh writes for it, need to log in.
LOGIN_OPTIONS = (
    Option("user", USER, "User to log in as, on all these hosts.", metavar="USER"),
    Option("identity-file", PATH, "Private key to log in with; no other is tried.", metavar="FILE"),
    Option("host-key-alias", ALIAS, "Name under which the host key is kept, for sandboxes that all have the key of "
           "their image. Applies to patterns and to each NAME given.", metavar="ALIAS"),
)  # fmt: skip
# For a host of the config file only: its own port of this machine.
FORWARD_PORT = Option("forward-port", PORT, "Port of this machine that forward --all gives the host.", metavar="N")

ALL = {option.name: option for option in (*OPTIONS, *SHELL_OPTIONS, *LOGIN_OPTIONS, FORWARD_PORT)}


def parse_value(option: Option, word: object, origin: str | None = None) -> Value:
    """Return the value that ``word`` stands for. Raises UsageError.

    ``origin`` is what whoever wrote it calls the option; None: the option's name in Python.
    """

    def unusable(problem: str) -> UsageError:
        return UsageError(problem, setting=option.setting, origin=origin)

    def wrong(what: str) -> UsageError:
        return unusable(f"{word!r} is not {what}")

    if option.kind == FLAG:
        if isinstance(word, bool):
            return word
        if not isinstance(word, str) or word.lower() not in _TRUE + _FALSE:
            raise wrong("yes or no")
        return word.lower() in _TRUE
    if option.kind in (SECONDS, LIMIT):
        try:
            number = float(word) if isinstance(word, (str, int, float)) and not isinstance(word, bool) else -1.0
        except (ValueError, OverflowError):
            number = -1.0
        if not 0.0 < number <= LONGEST and not (option.kind == LIMIT and number == 0.0):
            raise wrong(f"a number of seconds above 0, up to {LONGEST:g}")
        return number
    if option.kind in _NUMBERS:
        text = str(word)
        lowest, highest, what = _NUMBERS[option.kind]
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and lowest <= int(text) <= highest):
            raise wrong(what)
        return int(text)
    if not isinstance(word, str):
        raise wrong("text")
    if not word:
        raise unusable("the value is empty")
    if not _is_printable(option, word):
        # The word itself stays out of the message, as a header or a proxy's URL may be a secret.
        raise unusable("the value has characters that are not printable")
    if option.kind == HEADERS:
        _check_header_line(option, word, origin)
    elif option.kind == ENVIRON and "=" not in word[1:]:
        raise unusable("write a variable as NAME=VALUE")
    elif option.kind in _MARKS:
        _check_marks(option, word, origin)
    elif option.kind == LETTER and word != "none" and len(word) != 1:
        raise wrong("one character, or 'none'")
    elif option.kind == PROXY and word.lower() != "none":
        from tunnel.client.proxy import parse_proxy

        parse_proxy(word, setting=option.setting, origin=origin)
    return expand_home(word, setting=option.setting, origin=origin) if option.kind == PATH else word


def _is_printable(option: Option, word: str) -> bool:
    """Return whether ``word`` has only characters that the option's value may have."""
    if option.kind == ENVIRON:  # the value of a variable may have several lines
        name, _, value = word.partition("=")
        return name.isprintable() and "\0" not in value
    # The names of files are bytes, some of which may be no text in this locale (PEP 383).
    text = "".join(c for c in word if not "\udc80" <= c <= "\udcff") if option.kind == PATH else word
    return text.isprintable()


def split_header(line: str) -> tuple[str, str]:
    """Return name and value of a header that is written ``Name: value``."""
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _check_header_line(option: Option, line: str, origin: str | None) -> None:
    if ":" not in line:
        raise UsageError("write a header as 'Name: value'", setting=option.setting, origin=origin)
    from tunnel.protocol.upgrade import check_header

    try:
        check_header(*split_header(line))
    except UsageError as exc:
        raise UsageError(exc.problem, setting=option.setting, origin=origin) from exc


def _check_marks(option: Option, word: str, origin: str | None) -> None:
    marks = _MARKS[option.kind]
    if word.startswith("-") or not all(c.isalnum() or c in marks for c in word):
        problem = f"{word!r} has other characters than letters, digits and {' '.join(marks)}"
        raise UsageError(problem, setting=option.setting, origin=origin)


def parse_command_line(
    words: Sequence[str], options: Sequence[Option] = OPTIONS, command: str = "connect"
) -> tuple[dict[str, Value], list[str]]:
    """Return the options (name → value) and the operands of a command line in the GNU style. Raises UsageError."""
    long = {option.flag: option for option in options}
    short = {option.short: option for option in options if option.short}
    values: dict[str, Value] = {}
    operands: list[str] = []
    line = Words(words)
    for name, attached in line.items(lambda letter: letter not in short or short[letter].kind == FLAG):
        if not name:
            operands.append(attached or "")
            continue
        option = long.get(name[2:]) if name.startswith("--") else short.get(name[1:])
        negated = long.get(name.removeprefix("--no-"))
        if option is None and negated is not None and negated.kind == FLAG and attached is None:
            values[negated.name] = False
        elif option is None:
            raise unknown_option(name, [flag for flag, each in long.items() if not each.hidden], command)
        elif option.kind == FLAG:
            refuse_value(name, attached)
            values[option.name] = True
        else:
            value = parse_value(option, line.value(name, attached, option.metavar), name)
            if option.kind in SEVERAL:
                earlier = values.setdefault(option.name, [])
                if isinstance(earlier, list):
                    earlier.append(str(value))
            else:
                values[option.name] = value
    return values, operands
