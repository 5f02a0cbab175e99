"""The exception tree, and the one table of codes: what can go wrong, its exit code and its text.

    TunnelError
    ├── LocalProtocolError     this program was about to break the protocol: a bug in it
    ├── RemoteProtocolError    the peer broke the protocol (``close_code``: the status code to close with)
    ├── UsageError             a setting, a file or a name is wrong (``setting``: which one)
    ├── DialError              the tunnel could not be opened
    │   ├── UpgradeRefused     … because an HTTP server answered with a status other than 101
    │   └── ProviderError      … because the API of the sandbox's provider refused or failed
    ├── ConnectionLost         an open tunnel, or an open stream of a terminal, broke
    └── TerminalError          the terminal service answered a call with an error (``connect_code``: its code there)

Every instance has a ``code``, a key of `CODES`, which is stable so that programs can rely on it. That table holds the
text and the exit code (from BSD's sysexits.h) of every code.

Settings have their Python names here (``ca_file``). A program whose users know other names, such as the command line
(``--ca-file``), sets these with `spell_settings`.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

USAGE = 2
UNREACHABLE = 69  # EX_UNAVAILABLE
INTERNAL = 70  # EX_SOFTWARE
IO_FAILED = 74  # EX_IOERR
TRY_LATER = 75  # EX_TEMPFAIL
PROTOCOL = 76  # EX_PROTOCOL
REFUSED = 77  # EX_NOPERM

# Code → exit code and text.
CODES: dict[str, tuple[int, str]] = {
    # Bad input. If it is about one setting, the text begins with the setting's name.
    "usage": (USAGE, "{problem}"),
    "config": (USAGE, "{path}: {problem}"),
    "file": (USAGE, "cannot use {path}: {reason}"),
    "exists": (USAGE, "{path} already exists"),
    "no-keys": (USAGE, "{problem}"),  # no key that somebody could log in with
    "file-changed": (
        TRY_LATER,
        "{path} was changed by another program in the meantime and was not written; try again",
    ),
    "url": (USAGE, "{url}: {problem}"),
    "host": (USAGE, "{host!r} cannot be part of a URL: {problem}"),
    "missing-package": (USAGE, '{package} is not installed: see "Optional packages" in docs/install.md'),
    # A program that a command runs.
    "no-program": (UNREACHABLE, "cannot run {program}: {reason}; {remedy}"),
    # Each hop on the way to the bridge.
    "dns": (UNREACHABLE, "cannot resolve {host}: {reason}"),
    "tcp-refused": (UNREACHABLE, "{address} refused the connection: nothing is listening there"),
    "tcp": (UNREACHABLE, "cannot connect to {address}: {reason}"),
    "tcp-timeout": (UNREACHABLE, "no connection to {address} within {seconds:g} s"),
    "proxy-unreachable": (UNREACHABLE, "cannot connect to proxy {proxy}: {reason}"),
    "proxy-auth": (REFUSED, "proxy {proxy} requires valid credentials: {reason}"),
    "proxy-refused": (UNREACHABLE, "proxy {proxy} did not connect to {target}: {reason}"),
    "proxy-target": (UNREACHABLE, "proxy {proxy} did not connect to {target}: {reason}"),
    "proxy-protocol": (PROTOCOL, "{proxy} does not speak {scheme}: {reason}"),
    "tls-untrusted": (REFUSED, "the certificate of {host} is not trusted: {reason}"),
    "tls-wrong-name": (REFUSED, "the certificate of {host} is not trusted: {reason}"),
    "tls-expired": (REFUSED, "the certificate of {host} is not trusted: {reason}"),
    "tls-refused": (REFUSED, "{host} refused this client: {reason}"),
    "tls-client-cert": (REFUSED, "{host} refused this client: {reason}"),  # it wants a certificate, or another one
    "tls-handshake": (PROTOCOL, "TLS with {host} failed: {reason}"),  # no reason given; it may want a certificate
    "tls": (PROTOCOL, "TLS with {host} failed: {reason}"),
    "answer-timeout": (TRY_LATER, "{hop} did not answer within {seconds:g} s"),
    "no-answer": (TRY_LATER, "{hop} sent interim responses, but no final one"),
    "hung-up": (UNREACHABLE, "{hop} closed the connection before it answered"),
    "resources": (TRY_LATER, "this machine cannot open a tunnel now: {reason}"),
    "memory": (TRY_LATER, "the tunnel is over: this machine is out of memory"),
    # The answer to the upgrade request.
    "not-http": (PROTOCOL, "{url} did not answer in HTTP: {reason}"),
    "not-websocket": (PROTOCOL, "{url} answered, but not as a WebSocket server: {reason}"),
    "redirect": (PROTOCOL, "{url} answered {status} and points to {location}; redirects are not followed"),
    "unauthorized": (REFUSED, "{url} answered {status}: {message}"),
    "forbidden": (REFUSED, "{url} answered {status}: {message}"),
    "not-found": (UNREACHABLE, "{url} answered {status}: {message}"),
    "bad-gateway": (UNREACHABLE, "{url} answered {status}: {message}"),
    "overloaded": (TRY_LATER, "{url} answered {status}: {message}"),
    "not-ready": (TRY_LATER, "{url} answered {status}: {message}"),
    "no-speed-test": (
        PROTOCOL,
        "{url} has no speed test: the bridge is another program or too old, or an edge hides it",
    ),
    "http-status": (PROTOCOL, "{url} answered {status}: {message}"),
    # The API of the sandbox's provider.
    "sandbox-unknown": (UNREACHABLE, "{api} has no sandbox {sandbox}: {message}"),
    "sandbox-paused": (TRY_LATER, "sandbox {sandbox} is paused"),
    "sandbox-busy": (TRY_LATER, "sandbox {sandbox} is changing state: {message}"),
    "api-key": (REFUSED, "{api} refused the API key from {origin}: {message}"),
    "api-quota": (TRY_LATER, "{api} answered 429: {message}"),
    "api-usage": (USAGE, "{api} rejected the request for sandbox {sandbox}: {message}"),
    "api-failed": (UNREACHABLE, "request to {api} failed: {problem}"),
    # The bridge.
    "listen": (UNREACHABLE, "cannot listen on {place}: {reason}"),
    # An open tunnel.
    "lost": (UNREACHABLE, "connection lost: {reason}"),
    "session-gone": (UNREACHABLE, "the session is over and cannot be resumed: {reason}"),
    "session-refused": (REFUSED, "the session is over: this client may not resume it: {reason}"),
    "session-expired": (TRY_LATER, "the session is over: it expired after {lasted} without a connection: {reason}"),
    "given-up": (TRY_LATER, "the session is over: gave up after {lasted} without a connection: {reason}"),
    "silent": (UNREACHABLE, "connection lost: nothing was received from the peer for {seconds:g} s"),
    "stalled": (TRY_LATER, "connection closed: the peer accepted no data for {seconds:g} s"),
    "sink-stalled": (TRY_LATER, "the target accepted no data for {seconds:g} s"),
    "no-tail": (TRY_LATER, "the client had finished sending, and the target sent nothing for {seconds:g} s"),
    "time-limit": (TRY_LATER, "the tunnel is over: a time limit passed at the peer{reason}"),
    "going-away": (TRY_LATER, "the session is over: the bridge is stopping{reason}"),
    "target-lost": (UNREACHABLE, "the target behind the bridge broke the connection{reason}"),
    "undelivered": (
        UNREACHABLE,
        "the target behind the bridge did not accept everything that was sent{reason}",
    ),
    "session-error": (PROTOCOL, "the session is over: {peer} ended it ({code}){reason}"),
    "closed": (PROTOCOL, "the peer closed the tunnel with code {code}{reason}"),
    "too-big": (
        PROTOCOL,
        "a message was too big for the bridge or an edge before it, which closed the tunnel with code 1009{reason}",
    ),
    "violation": (PROTOCOL, "{problem}"),
    "late-session": (PROTOCOL, "{problem}"),  # a session began when the tunnel was taken for a plain one
    # Terminals.
    "pty-unknown": (UNREACHABLE, "there is no process {process} at {place}"),
    "pty-argument": (USAGE, "{place} rejected the request: {message}"),
    "pty-unauthenticated": (REFUSED, "{place} refused access: {message}"),
    "pty-deadline": (TRY_LATER, "the time limit of the terminal or of the call has passed: {message}"),
    "pty-unavailable": (TRY_LATER, "{place} cannot do that now: {message}"),
    "pty-error": (PROTOCOL, "{place} answered {connect_code}: {message}"),
    "pty-lost": (
        UNREACHABLE,
        "the terminal cannot be reached: gave up after {lasted} without a connection to {place}: {reason}",
    ),
    "pty-refused": (REFUSED, "the connection to the terminal is over: this client may not resume it: {reason}"),
    "pty-gone": (UNREACHABLE, "the terminal ended while the connection to {place} was lost; how it ended is unknown"),
    "pty-gap": (UNREACHABLE, "the connection to {place} was lost, and {missing} of the output with it"),
    "pty-input-unsure": (UNREACHABLE, "it is unknown whether {place} received the input: {reason}"),
    "output": (UNREACHABLE, "cannot write to standard output: {reason}"),
    "input": (UNREACHABLE, "cannot read standard input: {reason}"),
    # What a command prints.
    "report": (IO_FAILED, "cannot write to standard output: {reason}"),
    "internal": (INTERNAL, "internal error: {problem}"),
}


class TunnelError(Exception):
    """A failure that is reported to the user in one line.

    ``code`` is a key of `CODES`; the fields fill its text. ``str(error)`` is that line, without the program's name and
    without control characters, which parts from a server may have.
    """

    def __init__(self, code: str, /, **fields: object) -> None:
        self.code = code
        self.exit_code, text = CODES[code]
        self.fields = fields
        super().__init__(printable(text.format(**fields)))


class LocalProtocolError(TunnelError):
    """This program was about to break the protocol, or used a protocol object out of turn."""

    def __init__(self, problem: str) -> None:
        super().__init__("internal", problem=problem)


class RemoteProtocolError(TunnelError):
    """The peer broke RFC 6455; ``close_code`` is the status code to close with (section 7.4.1)."""

    def __init__(self, problem: str, close_code: int = 1002, *, code: str = "violation") -> None:
        super().__init__(code, problem=problem)
        self.close_code = close_code


class UsageError(TunnelError):
    """A setting, a file or a name cannot be used.

    ``setting`` is the Python name of the wrong setting, if there is one. ``origin`` is where its value comes from, if
    that is known: an environment variable, a key of a config file, an option as it was typed.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        code: str = "usage",
        setting: str | None = None,
        origin: str | None = None,
        **fields: object,
    ) -> None:
        if code == "file":
            fields["path"] = _absolute(fields["path"])
        super().__init__(code, problem=problem, **fields)
        self.setting = setting
        self.origin = origin

    @property
    def problem(self) -> str:
        """The text without the name of the setting."""
        return super().__str__()

    def __str__(self) -> str:
        name = self.origin or (spelled(self.setting) if self.setting else "")
        return f"{printable(name)}: {self.problem}" if name else self.problem

    def name_origin(self, origins: Mapping[str, str]) -> None:
        """Set the origin from ``origins`` (setting → origin), unless it is known already."""
        if self.setting is not None:
            self.origin = self.origin or origins.get(self.setting)


def _absolute(path: object) -> object:
    """Return the absolute path of a file, which shows the folder in which a relative one was searched."""
    try:
        return os.path.abspath(path) if isinstance(path, str) else path
    except OSError:
        return path  # the working directory no longer exists


class DialError(TunnelError):
    """The tunnel could not be opened: the text names the hop that failed."""


class UpgradeRefused(DialError):
    """An HTTP server answered the upgrade request with a status other than 101.

    ``status`` is the HTTP status code, ``headers`` the answer's fields as (lower-case name, value).
    """

    def __init__(
        self, code: str, /, *, status: int, headers: tuple[tuple[str, str], ...] = (), **fields: object
    ) -> None:
        super().__init__(code, status=status, **fields)
        self.status = status
        self.headers = headers


class ProviderError(DialError):
    """The API of the sandbox's provider refused or failed, or it reports that the sandbox cannot be reached.

    ``status`` is the HTTP status code, 0 without an answer; ``headers`` are its fields as (lower-case name, value).
    """

    def __init__(
        self, code: str, /, *, status: int = 0, headers: tuple[tuple[str, str], ...] = (), **fields: object
    ) -> None:
        super().__init__(code, **fields)
        self.status = status
        self.headers = headers


class ConnectionLost(TunnelError):
    """An open tunnel broke, or its peer ended it before everything was transferred."""


class TerminalError(TunnelError):
    """The terminal service answered a call, or ended a stream, with an error.

    ``connect_code`` is Connect's name for it (``not_found``, ``invalid_argument``, ``deadline_exceeded``, …).
    """

    def __init__(self, code: str, /, *, connect_code: str, **fields: object) -> None:
        super().__init__(code, connect_code=connect_code, **fields)
        self.connect_code = connect_code


# ---- names of settings

_spell: Callable[[str], str] = str


def spell_settings(spell: Callable[[str], str] = str) -> None:
    """Set how texts of this process name a setting: ``spell`` returns the shown name for a Python name."""
    global _spell
    _spell = spell


def spelled(setting: str) -> str:
    """Return the name of a setting (``ca_file``) in texts of this process."""
    return _spell(setting)


# ---- optional packages

# Packages that may be missing: those of an extra, and those that the single file does not contain.
OPTIONAL_PACKAGES = frozenset(
    ("aiohttp", "asyncssh", "click", "cryptography", "httpx", "idna", "paramiko", "socksio", "uvloop", "websockets")
)


class optional_packages:  # it is used like a function
    """A context that turns the import error of one of `OPTIONAL_PACKAGES` into a UsageError that names the remedy.

    ``setting`` is the setting that needs the package, if there is one.
    """

    def __init__(self, setting: str | None = None) -> None:
        self._setting = setting

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if (
            isinstance(exc, ModuleNotFoundError)
            and (package := (exc.name or "").partition(".")[0]) in OPTIONAL_PACKAGES
        ):
            raise missing_package(package, self._setting) from exc


def require_package(package: str, setting: str | None = None) -> None:
    """Raise UsageError if one of `OPTIONAL_PACKAGES`, which will be imported later, is not installed."""
    import importlib.util

    try:
        found = importlib.util.find_spec(package)
    except ValueError:  # its import is blocked: sys.modules has None, or a module without a spec
        found = None
    if found is None:
        raise missing_package(package, setting)


def missing_package(package: str, setting: str | None = None) -> UsageError:
    """Return the error for one of `OPTIONAL_PACKAGES` that is not installed."""
    return UsageError(code="missing-package", setting=setting, package=package)


# ---- secrets

# Secrets that this process sends, and must not show if a peer sends them back; the oldest first.
_secrets: dict[str, None] = {}
_SHORTEST_SECRET = 4  # characters; a shorter text would be found everywhere
_UNMISTAKABLE = 12  # characters; a secret of at least this length is also found inside words
_MAX_SECRETS = 512  # bounds the memory of a program that opens tunnels forever
_INSTEAD = "[secret]"


def keep_secret(text: str) -> None:
    """Make `printable`, and so every error, replace ``text`` with a mark, unless it is very short."""
    if len(text) >= _SHORTEST_SECRET:
        _secrets.pop(text, None)
        _secrets[text] = None
    while len(_secrets) > _MAX_SECRETS:
        del _secrets[next(iter(_secrets))]


def redacted(text: str) -> str:
    """Return ``text`` without the secrets that `keep_secret` knows."""
    # The longest first, as one secret may be a part of another.
    for secret in sorted(_secrets, key=len, reverse=True):
        at = text.find(secret)
        while at >= 0:
            end = at + len(secret)
            if len(secret) >= _UNMISTAKABLE or not (text[at - 1 : at].isalnum() or text[end : end + 1].isalnum()):
                text = text[:at] + _INSTEAD + text[end:]
                end = at + len(_INSTEAD)
            at = text.find(secret, end)
    return text


def printable(text: str, limit: int = 500) -> str:
    """Return ``text`` as one line for a terminal or a log: at most ``limit`` characters, no control characters.

    Our own secrets are replaced.
    """
    # Secrets are replaced before the line is cut: it could end with a part of one.
    line = " ".join("".join(c if c.isprintable() else " " for c in redacted(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
