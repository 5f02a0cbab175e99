"""The one table of the client's options, and how the command line and the environment are read by it.

The config file (`tunnel.client.config`) and ``--help`` are made from the same table. By hand rather than by argparse or
click: those cost a ProxyCommand more time than all the rest of its start.
"""

from __future__ import annotations

import os
import sys

from tunnel.protocol.errors import UsageError
from tunnel.protocol.upgrade import check_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

PREFIX = "WSTUNNEL_PY_"
TEXT, PORT, SECONDS, FLAG, PATH, HEADER, PROXY = "text", "port", "seconds", "flag", "path", "header", "proxy"
LONGEST = 86400.0  # seconds
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class Option:
    """One row of the table; ``name`` is its long name and its key in the config file."""

    __slots__ = ("default", "hidden", "in_config", "kind", "metavar", "name", "short", "text")

    def __init__(
        self,
        name: str,
        kind: str,
        metavar: str,
        text: str,
        *,
        short: str = "",
        default: str | float | bool | None = None,
        in_config: bool = True,
        hidden: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.metavar = metavar
        self.text = text
        self.short = short
        self.default = default
        self.in_config = in_config
        self.hidden = hidden

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.attribute.upper()

    @property
    def attribute(self) -> str:
        """The name of its value in `tunnel.client.settings.Settings`."""
        return self.name.replace("-", "_")

    def read(self, raw: object, origin: str) -> Any:
        """Return the value that ``raw`` (text, or TOML's own type) stands for.

        Raises UsageError, which begins with ``origin``: the option, the variable, or the file and key.
        """
        if self.kind == FLAG:
            return _read_flag(raw, origin)
        if self.kind == PORT:
            return _read_port(raw, origin)
        if self.kind == SECONDS:
            return _read_seconds(raw, origin)
        if not isinstance(raw, str) or not raw or not all(c >= " " and c != "\x7f" for c in raw):
            raise UsageError(f"{origin}: a line of text is wanted here")
        if self.kind == PATH:
            return os.path.expanduser(raw)
        if self.kind == PROXY:
            if raw.lower() == "none":
                return None
            from tunnel.client.proxy import parse_proxy

            return parse_proxy(raw, origin)
        return raw


OPTIONS = (
    Option("url", TEXT, "TEMPLATE", "URL of the bridge; {host} stands for HOST, {port} for --port."),
    Option("port", PORT, "PORT", "Port of the bridge, for {port} in the URL.", default=8081),
    Option("header", HEADER, "'NAME: VALUE'", "Send this header with the handshake; may be repeated.", short="H"),
    Option("token-file", PATH, "FILE", f"Send the token in FILE as Bearer; {PREFIX}TOKEN may hold the token itself."),
    Option("ca-file", PATH, "FILE", "Trust the authorities in this PEM file, instead of the system's."),
    Option("client-cert", PATH, "FILE", "Show this certificate (PEM) to the server."),
    Option("client-key", PATH, "FILE", "The key of --client-cert, if it is not in the same file."),
    Option("insecure", FLAG, "", "Do not verify the server's certificate.", default=False),
    Option(
        "proxy",
        PROXY,
        "URL",
        "Go through this proxy (http://, socks5://, socks5h://), whatever NO_PROXY says; 'none' for no proxy. Other "
        "users of this machine can read a password on a command line: keep it in the environment or the config file. "
        "[default: HTTPS_PROXY or ALL_PROXY for wss://, HTTP_PROXY or ALL_PROXY for ws://]",
    ),
    Option("connect-timeout", SECONDS, "SECONDS", "Limit for all steps until the tunnel is open.", default=15.0),
    Option("ping-interval", SECONDS, "SECONDS", "Ping the bridge after so much silence.", default=20.0),
    Option("ping-timeout", SECONDS, "SECONDS", "Give up when a ping brings nothing for so long.", default=60.0),
    Option("ipv4", FLAG, "", "Use IPv4 only.", short="4", default=False),
    Option("ipv6", FLAG, "", "Use IPv6 only.", short="6", default=False),
    Option("verbose", FLAG, "", "Tell each step and its time on standard error.", short="v", default=False),
    Option("quiet", FLAG, "", "Print no warnings and hints.", short="q", default=False),
    Option("log-file", PATH, "FILE", "Append the steps of --verbose to FILE."),
    Option("config", PATH, "FILE", "Read this config file instead of the usual one.", in_config=False),
    Option(
        "stdin-thread",
        FLAG,
        "",
        "Let a thread read standard input, as on Windows.",
        default=sys.platform == "win32",
        in_config=False,
        hidden=True,
    ),
)
BY_NAME = {option.name: option for option in OPTIONS}
_BY_SHORT = {option.short: option for option in OPTIONS if option.short}


class Source:
    """What one place says of the options: the command line, the environment, or a table of the config file.

    ``values`` holds a value by option name, ``origins`` what an error about it begins with, ``headers`` the pairs of
    name and value. ``title`` names the place.
    """

    __slots__ = ("headers", "origins", "title", "values")

    def __init__(self, title: str) -> None:
        self.title = title
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.headers: list[tuple[str, str]] = []

    def put(self, option: Option, raw: object, origin: str) -> None:
        """Set an option. Raises UsageError."""
        if option.kind == HEADER:
            name, colon, value = str(raw).partition(":")
            if not colon:
                # The text itself stays out of the message: it may be the secret.
                raise UsageError(f"{origin}: a header is written 'Name: value'")
            self.put_header(name.strip(), value.strip(), origin)
        else:
            self.values[option.name] = option.read(raw, origin)
            self.origins[option.name] = origin

    def put_header(self, name: str, value: str, origin: str) -> None:
        """Add a header. Raises UsageError when no request could carry it."""
        try:
            check_header(name, value)
        except UsageError as exc:
            raise UsageError(f"{origin}: {exc}") from exc
        self.headers.append((name, value))


def read_arguments(arguments: Sequence[str]) -> tuple[Source, list[str]]:
    """Return what the options among ``arguments`` say, and the operands (GNU's way: both in any order, ``--`` ends
    the options). Raises UsageError.
    """
    source, operands = Source("the command line"), []
    rest = list(reversed(arguments))
    while rest:
        argument = rest.pop()
        if argument == "--":
            return source, operands + rest[::-1]
        if argument.startswith("--"):
            _read_long(source, argument, rest)
        elif argument.startswith("-") and argument != "-":
            _read_short(source, argument, rest)
        else:
            operands.append(argument)
    return source, operands


def _read_long(source: Source, argument: str, rest: list[str]) -> None:
    given, equals, value = argument.partition("=")
    option = BY_NAME.get(given[2:])
    if option is None:
        negated = BY_NAME.get(given.removeprefix("--no-"))
        if negated is None or negated.kind != FLAG or equals:
            known = [f"--{option.name}" for option in OPTIONS if not option.hidden]
            raise UsageError(f"there is no option {given}{suggestion(given, known)}")
        source.put(negated, False, given)
    elif option.kind == FLAG:
        if equals:
            raise UsageError(f"{given} takes no value")
        source.put(option, True, given)
    else:
        source.put(option, value if equals else _next(given, rest), given)


def _read_short(source: Source, argument: str, rest: list[str]) -> None:
    for at, letter in enumerate(argument[1:], 1):
        option = _BY_SHORT.get(letter)
        if option is None:
            raise UsageError(f"there is no option -{letter}" + (f" (in {argument})" if len(argument) > 2 else ""))
        if option.kind != FLAG:
            source.put(option, argument[at + 1 :] or _next(f"-{letter}", rest), f"-{letter}")
            return
        source.put(option, True, f"-{letter}")


def _next(given: str, rest: list[str]) -> str:
    if not rest:
        raise UsageError(f"{given} needs a value behind it")
    return rest.pop()


def read_environment(environ: Mapping[str, str]) -> Source:
    """Return what the variables WSTUNNEL_PY_… say; an empty one says nothing. Raises UsageError."""
    source = Source("the environment")
    for option in OPTIONS:
        raw = environ.get(option.variable)
        if not raw:
            continue
        for line in raw.splitlines() if option.kind == HEADER else (raw,):
            source.put(option, line, option.variable)
    if token := environ.get(PREFIX + "TOKEN"):
        source.values["token"] = token.strip()
        source.origins["token"] = PREFIX + "TOKEN"
    return source


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return a remark on what of ``known`` was probably meant by ``given``; empty if nothing is near."""
    import difflib

    near = difflib.get_close_matches(given, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _read_flag(raw: object, origin: str) -> bool:
    value = _WORDS.get(raw.lower()) if isinstance(raw, str) else raw
    if not isinstance(value, bool):
        raise UsageError(f"{origin}: {raw!r} is neither true nor false")
    return value


def _read_port(raw: object, origin: str) -> int:
    value = int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) <= 5 else raw
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise UsageError(f"{origin}: {raw!r} is no port number from 1 to 65535")
    return value


def _read_seconds(raw: object, origin: str) -> float:
    value = 0.0
    try:
        if isinstance(raw, str | int | float) and not isinstance(raw, bool):
            value = float(raw)
    except (ValueError, OverflowError):
        pass  # 0 is out of bounds, too
    if not 0 < value <= LONGEST:
        raise UsageError(f"{origin}: {raw!r} is no number of seconds above 0 and up to {LONGEST:g}")
    return value
