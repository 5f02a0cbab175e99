"""The table of the client's options, which feeds the command line, the environment and the config file alike.

An option is called ``--ca-file`` on the command line, ``WSTUNNEL_PY_CA_FILE`` in the environment and ``ca-file`` in the
config file. This room turns words into values and knows which word was wrong; what the values mean is in `settings`.
"""

from __future__ import annotations

import os

from tunnel.protocol.errors import UsageError
from tunnel.protocol.upgrade import check_header

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
    def variable(self) -> str:
        """The environment variable that gives this option."""
        return ENVIRONMENT + self.name.upper().replace("-", "_")


OPTIONS = (
    Option("url", TEXT, "URL of the bridge; {host} and {port} are filled in.", metavar="TEMPLATE"),
    Option("port", PORT, "Port of the bridge, for {port} in the template.", metavar="N", default=8081),
    Option("header", HEADERS, "Add a header to the upgrade request; may be repeated.", metavar="'NAME: VALUE'",
           short="H"),
    Option("token-file", PATH, "File with the bearer token that the bridge wants; WSTUNNEL_PY_TOKEN may hold the token "
           "itself.", metavar="FILE"),
    Option("ca-file", PATH, "Trust the certificates in this PEM file instead of the system's.", metavar="FILE"),
    Option("client-cert", PATH, "Certificate to show to the server, PEM; may hold the key too.", metavar="FILE"),
    Option("client-key", PATH, "Key of --client-cert.", metavar="FILE"),
    Option("insecure", FLAG, "Do not check the server's certificate. Anyone on the way can read along."),
    Option("proxy", PROXY, "http://, socks5:// or socks5h:// proxy, or 'none'; otherwise the usual variables decide. "
           "Other users can read a password on a command line: rather put such a URL into the environment.",
           metavar="URL"),
    Option("connect-timeout", SECONDS, "Limit for DNS, TCP, proxy, TLS and upgrade together.", metavar="SECONDS",
           default=15.0),
    Option("ping-interval", SECONDS, "Ping after this much silence.", metavar="SECONDS", default=20.0),
    Option("ping-timeout", SECONDS, "Give up when a ping brings no sign of life for this long.", metavar="SECONDS",
           default=60.0),
    Option("no-resume", FLAG, "End with the connection, rather than to get it back without ssh noticing."),
    Option("reconnect-for", SECONDS, "How long to try to get a lost connection back; the bridge may allow less.",
           metavar="SECONDS", default=600.0),
    Option("ipv4", FLAG, "Use IPv4 only.", short="4"),
    Option("ipv6", FLAG, "Use IPv6 only.", short="6"),
    Option("config", PATH, "Read this config file instead of the usual one.", metavar="FILE"),
    Option("log-file", PATH, "Append what -v shows to this file.", metavar="FILE"),
    Option("quiet", FLAG, "Print no warnings and hints.", short="q"),
    Option("verbose", FLAG, "Explain each step on standard error, with timings.", short="v"),
    Option("stdin-thread", FLAG, "Read standard input in a thread, as on Windows.", hidden=True),
)  # fmt: skip

BY_NAME = {option.name: option for option in OPTIONS}
BY_SHORT = {option.short: option for option in OPTIONS if option.short}


def parse_value(option: Option, word: object, origin: str) -> Value:
    """Return the value that ``word`` stands for; ``origin`` (an option, variable or key) goes into the UsageError."""

    def wrong(what: str) -> UsageError:
        return UsageError(f"{origin}: {word!r} is not {what}")

    if option.kind == FLAG:
        if isinstance(word, bool):
            return word
        if not isinstance(word, str) or word.lower() not in _TRUE + _FALSE:
            raise wrong("yes or no")
        return word.lower() in _TRUE
    if option.kind == SECONDS:
        try:
            number = float(word) if isinstance(word, (str, int, float)) and not isinstance(word, bool) else -1.0
        except (ValueError, OverflowError):
            number = -1.0
        if not 0.0 < number <= LONGEST:
            raise wrong(f"a number of seconds above 0, up to {LONGEST:g}")
        return number
    if option.kind == PORT:
        text = str(word)
        if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
            raise wrong("a port number from 1 to 65535")
        return int(text)
    if not isinstance(word, str):
        raise wrong("text")
    if not word:
        raise UsageError(f"{origin} is set, but empty")
    if not word.isprintable():
        # The word itself stays out of the message, as a header or a proxy's URL may be a secret.
        raise UsageError(f"{origin} has characters that are not printable")
    if option.kind == HEADERS:
        _check_header_line(word, origin)
    elif option.kind == PROXY and word.lower() != "none":
        from tunnel.client.proxy import parse_proxy

        parse_proxy(word, origin)
    return os.path.expanduser(word) if option.kind == PATH else word


def split_header(line: str) -> tuple[str, str]:
    """Return name and value of a header that is written ``Name: value``."""
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _check_header_line(line: str, origin: str) -> None:
    if ":" not in line:
        raise UsageError(f"{origin}: a header is written 'Name: value'")
    try:
        check_header(*split_header(line))
    except UsageError as exc:
        raise UsageError(f"{origin}: {exc}") from exc


def parse_command_line(words: Sequence[str]) -> tuple[dict[str, Value], list[str]]:
    """Return the options (name → value) and the operands of a command line in the GNU style. Raises UsageError."""
    values: dict[str, Value] = {}
    operands: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            operands += rest
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            option = BY_NAME.get(name)
            negated = BY_NAME.get(name.removeprefix("no-"))
            if option is not None:
                _take(values, option, f"--{name}", value if equals else None, rest)
            elif negated is not None and negated.kind == FLAG and not equals:
                values[negated.name] = False
            else:
                near = suggestion(name, [option.name for option in OPTIONS if not option.hidden], "--")
                raise UsageError(f"there is no option --{name}{near}; see wstunnel-py connect --help")
        elif word.startswith("-") and len(word) > 1:
            _take_short(values, word[1:], rest)
        else:
            operands.append(word)
    return values, operands


def _take_short(values: dict[str, Value], letters: str, rest: list[str]) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        option = BY_SHORT.get(letter)
        if option is None:
            raise UsageError(f"there is no option -{letter}; see wstunnel-py connect --help")
        if option.kind == FLAG:
            _take(values, option, f"-{letter}", None, rest)
        else:
            _take(values, option, f"-{letter}", letters or None, rest)
            return


def _take(values: dict[str, Value], option: Option, origin: str, word: str | None, rest: list[str]) -> None:
    if option.kind == FLAG:
        if word is not None:
            raise UsageError(f"{origin} takes no value")
        values[option.name] = True
        return
    if word is None:
        if not rest:
            raise UsageError(f"{origin} needs a value: {option.metavar}")
        word = rest.pop(0)
    value = parse_value(option, word, origin)
    if option.kind == HEADERS:
        earlier = values.setdefault(option.name, [])
        if isinstance(earlier, list):
            earlier.append(str(value))
    else:
        values[option.name] = value


def suggestion(name: str, known: list[str], prefix: str = "") -> str:
    """Return a remark on which of the ``known`` names was meant by ``name``, if one is near; else nothing."""
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
