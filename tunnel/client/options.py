"""The table of the client's options, used for the command line, the environment and the config file.

An option is called ``--ca-file`` on the command line, ``WSTUNNEL_PY_CA_FILE`` in the environment, ``ca-file`` in the
config file and ``ca_file`` in Python. Options for terminals only are called ``pty-user`` there, and ``--user`` in the
commands for terminals. This module turns words into values; `layers` decides where a value comes from.
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
LONGEST = 86400.0  # seconds; a longer limit would be a mistake

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")

# Kinds of values.
TEXT, PATH, SECONDS, PORT, FLAG, HEADERS, PROXY = "text", "path", "seconds", "port", "flag", "headers", "proxy"
LIMIT, PID, ENVIRON, LETTER, SIZE = "limit", "pid", "environ", "letter", "size"
USER, ALIAS, LIFETIME = "user", "alias", "lifetime"
_NUMBERS = {
    PORT: (1, 65535, "a port number from 1 to 65535"),
    PID: (1, 2**31 - 1, "a process ID"),
    LIFETIME: (1, 86400, "a whole number of seconds from 1 to 86400"),
    SIZE: (LEAST_MESSAGE, LARGEST_MESSAGE, f"a number of bytes from {LEAST_MESSAGE} to {LARGEST_MESSAGE}"),
}
# Characters besides letters and digits that need no quotes in an ssh_config.
_MARKS = {USER: "+-.@_", ALIAS: "-._"}
SEVERAL = (HEADERS, ENVIRON)
PTY, DOCTOR, LISTED = "pty-", "doctor-", "list-"


class Option:
    """One option: its long and short names, the kind of its value, and the words for ``--help``."""

    __slots__ = ("alias", "choices", "default", "help", "hidden", "kind", "metavar", "name", "short")

    def __init__(
        self, name: str, kind: str, help: str, *, metavar: str = "", short: str = "", default: Value | None = None,
        hidden: bool = False, choices: tuple[str, ...] = (), alias: str = "",
    ) -> None:  # fmt: skip
        self.name = name
        self.kind = kind
        self.help = help
        self.metavar = metavar
        self.short = short
        self.default = default
        self.hidden = hidden
        self.choices = choices  # the allowed texts; empty: any
        self.alias = alias  # another program's environment variable, used if ours is not set

    @property
    def flag(self) -> str:
        """The name on the command line, without the dashes."""
        return self.name.removeprefix(PTY).removeprefix(DOCTOR).removeprefix(LISTED)

    @property
    def setting(self) -> str:
        """The name in Python, which errors use."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that sets this option."""
        return ENVIRONMENT + self.name.upper().replace("-", "_")


OPTIONS = (
    Option("url", TEXT, "URL of the bridge. {host} and {port} in it are replaced.", metavar="TEMPLATE"),
    Option("port", PORT, "Port of the bridge, which replaces {port} in the URL.", metavar="N", default=8081),
    Option("header", HEADERS, "Add a header to the request. May be repeated.", metavar="'NAME: VALUE'",
           short="H"),
    Option("token-file", PATH, "File with the bearer token for the bridge. WSTUNNEL_PY_TOKEN may hold the token "
           "itself.", metavar="FILE"),
    Option("ca-file", PATH, "Trust the CA certificates in this PEM file instead of the system's.", metavar="FILE"),
    Option("client-cert", PATH, "Client certificate to show to the server (PEM). The file may also contain its key.",
           metavar="FILE"),
    Option("client-key", PATH, "Key of --client-cert (PEM). Default: the same file, or NAME.key next to NAME.pem.",
           metavar="FILE"),
    Option("insecure", FLAG, "Do not check the server's certificate. Anyone on the network path can then read "
           "and change the traffic."),
    Option("proxy", PROXY, "URL of the proxy (http://, socks5:// or socks5h://), or 'none'. Default: the usual proxy "
           "variables. Other users can see a command line, so put a URL with a password into the environment.",
           metavar="URL"),
    Option("connect-timeout", SECONDS, "Time limit for DNS, TCP, proxy, TLS and WebSocket upgrade together.",
           metavar="SECONDS", default=15.0),
    Option("wait", LIMIT, "How long to try again while the bridge, or the edge in front of it, is not up yet. 0: "
           "never.", metavar="SECONDS", default=0.0),
    Option("ping-interval", SECONDS, "Send a ping after this much silence.", metavar="SECONDS", default=20.0),
    Option("ping-timeout", SECONDS, "Give up the connection if nothing arrives for this long after a ping. Sessions "
           "wait at most 8 s.", metavar="SECONDS", default=60.0),
    Option("no-resume", FLAG, "Exit when the connection is lost, instead of resuming the session."),
    Option("reconnect-for", SECONDS, "How long to try to restore a lost connection. The bridge may allow less.",
           metavar="SECONDS", default=600.0),
    Option("provider", TEXT, "Provider whose API wakes the sandbox, extends its time and returns its tokens. "
           "Default: e2b if there is an API key (E2B_API_KEY) and you have set no URL for the host.", metavar="NAME",
           choices=("e2b", "none")),
    Option("api-key-file", PATH, "File with the key of the provider's API. E2B_API_KEY may hold the key itself.",
           metavar="FILE", alias="E2B_API_KEY_FILE"),
    Option("api-domain", TEXT, "Domain of the provider's sandboxes and API. Default: e2b.app.", metavar="DOMAIN",
           alias="E2B_DOMAIN"),
    Option("api-url", TEXT, "URL of the provider's API. Default: https://api.DOMAIN.", metavar="URL",
           alias="E2B_API_URL"),
    Option("sandbox-timeout", LIFETIME, "Minimum time that the sandbox has left after each call of the API.",
           metavar="SECONDS", default=300),
    Option("keep-alive", TEXT, "When to extend the sandbox's time: while something is typed or sent (active), while "
           "a tunnel or terminal is open (open), or never.", metavar="WHEN", default="active",
           choices=("active", "open", "never")),
    Option("wake", TEXT, "When to wake a sandbox that is paused while a session or terminal is open: at once "
           "(always), at the next input (on-input), or never. With never, connecting to a paused sandbox also fails.",
           metavar="WHEN", default="on-input", choices=("always", "on-input", "never")),
    Option("max-message", SIZE, "Size of the largest message to send, for an edge that accepts no larger ones. "
           "Sessions find this size automatically.", metavar="BYTES", default=LARGEST_MESSAGE),
    Option("ipv4", FLAG, "Use IPv4 only.", short="4"),
    Option("ipv6", FLAG, "Use IPv6 only.", short="6"),
    Option("config", PATH, "Read this config file instead of the default one.", metavar="FILE"),
    Option("log-file", PATH, "Append the output of -v to this file.", metavar="FILE"),
    Option("quiet", FLAG, "Print no warnings or hints.", short="q"),
    Option("verbose", FLAG, "Explain each step on standard error, with timings.", short="v"),
    Option("stdio-threads", FLAG, "Read and write the standard streams in threads, as on Windows.", hidden=True),
)  # fmt: skip

# Other commands have no standard input to relay.
TUNNEL_OPTIONS = tuple(option for option in OPTIONS if option.name != "stdio-threads")
FORWARD_OPTIONS = (
    Option("all", FLAG, "Serve every host of the config file, each at its own port, as written by config-ssh --ports."),
    *TUNNEL_OPTIONS,
)  # fmt: skip

BY_NAME = {option.name: option for option in OPTIONS}

# What `shell`, `pty ps` and `pty kill` need to reach a terminal service, besides some of the above.
PTY_OPTIONS = (
    Option("pty-url", TEXT, "URL of the terminal service. {host} and {port} in it are replaced.",
           metavar="TEMPLATE"),
    Option("pty-port", PORT, "Port of the terminal service, which replaces {port} in the URL.", metavar="N",
           default=49983),
    Option("pty-token-file", PATH, "File with the access token for the service. WSTUNNEL_PY_PTY_TOKEN may hold the "
           "token itself.", metavar="FILE"),
    *(BY_NAME[name] for name in (
        "header", "ca-file", "client-cert", "client-key", "insecure", "proxy", "connect-timeout", "config", "quiet",
        "verbose", "provider", "api-key-file", "api-domain", "api-url", "sandbox-timeout", "keep-alive", "wake",
    )),
)  # fmt: skip

SHELL_OPTIONS = (
    Option("pty-attach", PID, "Join the running terminal with this process ID instead of starting a new one.",
           metavar="PID"),
    Option("pty-cwd", TEXT, "Folder to start in. A relative path starts at the user's home.", metavar="FOLDER"),
    Option("pty-user", TEXT, "User to run the terminal as.", metavar="NAME"),
    Option("pty-env", ENVIRON, "Set an environment variable. May be repeated. The local TERM is passed on; if the "
           "sandbox does not know this terminal, use -e TERM=xterm-256color.", metavar="NAME=VALUE", short="e"),
    Option("pty-timeout", LIMIT, "Kill the terminal after this time, even if it is in use. 0: never.",
           metavar="SECONDS", default=0.0),
    Option("pty-keep", FLAG, "Keep the terminal running when a signal ends this command, or when a lost "
           "connection cannot be restored."),
    Option("pty-grace", SECONDS, "How long the terminal keeps running while nobody is connected to it. With --keep: "
           "forever.", metavar="SECONDS", default=60.0),
    Option("pty-reconnect-for", SECONDS, "How long to try to restore a lost connection.", metavar="SECONDS",
           default=600.0),
    Option("pty-escape", LETTER, "Escape character at the beginning of a line, or 'none'.",
           metavar="CHAR", default="~"),
    *PTY_OPTIONS,
)  # fmt: skip

DOCTOR_OPTIONS = (
    Option("doctor-json", FLAG, "Print one JSON object instead of text."),
    Option("doctor-throughput", FLAG, "Also measure round-trip time and throughput of the tunnel, without SSH. Takes a "
           "few seconds. The bridge must be wstunnel-py serve."),
    *(option for option in TUNNEL_OPTIONS if option.name != "wait"),  # doctor reports the current state
)  # fmt: skip

SANDBOXES_OPTIONS = (
    Option("list-json", FLAG, "Print a JSON array instead of a table."),
    *(BY_NAME[name] for name in (
        "api-key-file", "api-domain", "api-url", "ca-file", "proxy", "connect-timeout", "config", "quiet",
    )),
)  # fmt: skip

# What ssh needs to log in: for the commands that run it, and for config-ssh.
LOGIN_OPTIONS = (
    Option("user", USER, "User to log in as, on all hosts of this command.", metavar="USER"),
    Option("identity-file", PATH, "Private key to log in with. No other key is tried.", metavar="FILE"),
    Option("host-key-alias", ALIAS, "Name under which ssh stores the host key, for sandboxes that share the host key "
           "of their image. Applies to patterns, and to each host that you name.", metavar="ALIAS"),
)  # fmt: skip
# For a host of the config file only: its local port.
FORWARD_PORT = Option("forward-port", PORT, "Local port at which forward --all serves the host.", metavar="N")

ALL = {option.name: option for option in (*OPTIONS, *SHELL_OPTIONS, *LOGIN_OPTIONS, FORWARD_PORT)}


def parse_value(option: Option, word: object, origin: str | None = None) -> Value:
    """Return the value of ``word``. Raises UsageError.

    ``origin`` is where the word comes from, for errors; None: they use the option's name in Python.
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
        if not 0.0 <= number <= LONGEST or (number == 0.0 and option.kind != LIMIT):
            allowed = f"from 0 to {LONGEST:g}" if option.kind == LIMIT else f"above 0, up to {LONGEST:g}"
            raise wrong(f"a number of seconds {allowed}")
        return number
    if option.kind in _NUMBERS:
        text = str(word)
        lowest, highest, what = _NUMBERS[option.kind]
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and lowest <= int(text) <= highest):
            raise wrong(what)
        return int(text)
    if not isinstance(word, str):
        raise wrong("a string")
    if not word:
        raise unusable("the value is empty")
    if not _is_printable(option, word):
        # Without the word itself: a header or a proxy's URL may be a secret.
        raise unusable("the value has characters that are not printable")
    if option.kind == HEADERS:
        _check_header_line(option, word, origin)
    elif option.kind == ENVIRON and "=" not in word[1:]:
        raise unusable("write a variable as NAME=VALUE")
    elif option.kind in _MARKS:
        _check_marks(option, word, origin)
    elif option.choices and word not in option.choices:
        raise wrong(f"one of {', '.join(option.choices)}")
    elif option.kind == LETTER and word != "none" and len(word) != 1:
        raise wrong("one character, or 'none'")
    elif option.kind == PROXY and word.lower() != "none":
        from tunnel.client.proxy import parse_proxy

        parse_proxy(word, setting=option.setting, origin=origin)
    return expand_home(word, setting=option.setting, origin=origin) if option.kind == PATH else word


def _is_printable(option: Option, word: str) -> bool:
    """Return whether ``word`` has only characters that the option's value may have."""
    if option.kind == ENVIRON:  # a variable's value may have several lines
        name, _, value = word.partition("=")
        return name.isprintable() and "\0" not in value
    # The names of files are bytes, which may not be text in this locale (PEP 383).
    text = "".join(c for c in word if not "\udc80" <= c <= "\udcff") if option.kind == PATH else word
    return text.isprintable()


def split_header(line: str) -> tuple[str, str]:
    """Return name and value of a header written as ``Name: value``."""
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
        problem = f"{word!r} has characters other than letters, digits and {' '.join(marks)}"
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
