"""The exception tree, and the one table from the cause of a failure to its exit code and text.

    TunnelError
    ├── LocalProtocolError     we broke the rules of the wire: a bug in this program
    ├── RemoteProtocolError    the peer broke them (``close_code``: what RFC 6455 answers)
    ├── UsageError             an option, a variable, a file or a name is wrong
    ├── DialError              no tunnel came about
    │   └── UpgradeRefused     … because an HTTP server answered something else than 101
    ├── ConnectionLost         a tunnel, or a terminal's stream, that was open broke
    └── TerminalError          the terminal service answered a call with an error (``code``: that of Connect)

Every instance knows its ``cause``, a key of `CAUSES`. The text of each cause stands in that table and nowhere else, so
the table is all that a user can ever be shown, and the exit codes (those of BSD's sysexits.h) can be read beside it.
"""

from __future__ import annotations

USAGE = 2
UNREACHABLE = 69  # EX_UNAVAILABLE
INTERNAL = 70  # EX_SOFTWARE
IO_FAILED = 74  # EX_IOERR
TRY_LATER = 75  # EX_TEMPFAIL
PROTOCOL = 76  # EX_PROTOCOL
REFUSED = 77  # EX_NOPERM

CAUSES: dict[str, tuple[int, str]] = {
    # What the user wrote.
    "usage": (USAGE, "{problem}"),
    "config": (USAGE, "{path}: {problem}"),
    "file": (USAGE, "{option}: cannot use {path}: {reason}"),
    "file-changed": (TRY_LATER, "{path} was changed by another program meanwhile and is left as it is: try again"),
    "url": (USAGE, "{url}: {problem}"),
    "host": (USAGE, "{host!r} is no host name that could go into a URL: {problem}"),
    # The way to the bridge, hop by hop.
    "dns": (UNREACHABLE, "cannot resolve {host}: {reason}"),
    "tcp-refused": (UNREACHABLE, "{address} refused the connection: nothing listens there"),
    "tcp": (UNREACHABLE, "cannot connect to {address}: {reason}"),
    "tcp-timeout": (UNREACHABLE, "no connection to {address} within {seconds:g} s"),
    "proxy-auth": (REFUSED, "proxy {proxy} wants other credentials: {reason}"),
    "proxy-refused": (UNREACHABLE, "proxy {proxy} did not connect to {target}: {reason}"),
    "proxy-protocol": (PROTOCOL, "{proxy} does not speak {scheme}: {reason}"),
    "tls-untrusted": (REFUSED, "the certificate of {host} is not trusted: {reason}"),
    "tls-refused": (REFUSED, "{host} refuses this client: {reason}"),
    "tls": (PROTOCOL, "TLS with {host} failed: {reason}"),
    "answer-timeout": (TRY_LATER, "{hop} did not answer within {seconds:g} s"),
    "no-answer": (TRY_LATER, "{hop} did not answer: it sent nothing but interim responses"),
    "hung-up": (UNREACHABLE, "{hop} hung up before it answered"),
    "resources": (TRY_LATER, "this machine cannot open a tunnel now: {reason}"),
    # The answer to the upgrade request.
    "not-http": (PROTOCOL, "{url} does not answer as a web server does: {reason}"),
    "not-websocket": (PROTOCOL, "{url} answered, but not as a WebSocket server: {reason}"),
    "redirect": (PROTOCOL, "{url} answered {status} and points to {location}; redirects are not followed"),
    "unauthorized": (REFUSED, "{url} answered {status}: {message}"),
    "forbidden": (REFUSED, "{url} answered {status}: {message}"),
    "not-found": (UNREACHABLE, "{url} answered {status}: {message}"),
    "bad-gateway": (UNREACHABLE, "{url} answered {status}: {message}"),
    "overloaded": (TRY_LATER, "{url} answered {status}: {message}"),
    "no-speed-test": (PROTOCOL, "{url} has no speed test: the bridge is another program, or old, or an edge hides it"),
    "http-status": (PROTOCOL, "{url} answered {status}: {message}"),
    # The bridge.
    "listen": (UNREACHABLE, "cannot listen on {place}: {reason}"),
    # An open tunnel.
    "lost": (UNREACHABLE, "connection lost: {reason}"),
    "session-gone": (UNREACHABLE, "the session cannot be resumed: {reason}"),
    "given-up": (TRY_LATER, "no connection for {seconds:.0f} s, given up: {reason}"),
    "silent": (UNREACHABLE, "connection lost: nothing came from the peer for {seconds:g} s"),
    "stalled": (TRY_LATER, "connection given up: the peer took nothing for {seconds:g} s"),
    "sink-stalled": (TRY_LATER, "the target took nothing for {seconds:g} s"),
    "no-tail": (TRY_LATER, "the target was half-closed and then silent for {seconds:g} s"),
    "going-away": (TRY_LATER, "the bridge is stopping{reason}"),
    "target-lost": (UNREACHABLE, "the target behind the bridge broke the connection{reason}"),
    "undelivered": (
        UNREACHABLE,
        "the target behind the bridge did not take everything that was sent{reason}",
    ),
    "session-error": (PROTOCOL, "{peer} ended the session ({code}){reason}"),
    "closed": (PROTOCOL, "the peer closed the tunnel with code {code}{reason}"),
    "too-big": (
        PROTOCOL,
        "a message was too big for something on the way, which closed the tunnel with code 1009{reason}; "
        "--max-message makes them smaller",
    ),
    "violation": (PROTOCOL, "{problem}"),
    # Terminals.
    "pty-extra": (USAGE, "terminals need the package {package}: pip install 'wstunnel-py[pty]'"),
    "pty-unknown": (UNREACHABLE, "there is no process {process} at {place}"),
    "pty-argument": (USAGE, "{place} does not take that: {message}"),
    "pty-unauthenticated": (REFUSED, "{place} refuses us: {message}"),
    "pty-deadline": (TRY_LATER, "the terminal's time is over, or the call's: {message}"),
    "pty-unavailable": (TRY_LATER, "{place} cannot do that now: {message}"),
    "pty-error": (PROTOCOL, "{place} answered {code}: {message}"),
    "pty-lost": (UNREACHABLE, "connection to {place} lost, and not back within {seconds:g} s: {reason}"),
    "pty-gone": (UNREACHABLE, "the terminal ended while the connection to {place} was lost; how is not known"),
    "pty-gap": (UNREACHABLE, "the connection to {place} was lost, and {missing} of output with it"),
    "pty-input-unsure": (UNREACHABLE, "the input may have arrived at {place} or not: {reason}"),
    "output": (UNREACHABLE, "cannot write to standard output: {reason}"),
    "input": (UNREACHABLE, "cannot read standard input: {reason}"),
    # What a command prints.
    "report": (IO_FAILED, "cannot write to standard output: {reason}"),
    "internal": (INTERNAL, "internal error: {problem}"),
}


class TunnelError(Exception):
    """A failure that a user is told of in one line.

    ``cause`` is a key of `CAUSES`; the fields fill its text. ``str(error)`` is that line, without control characters
    (parts of it may come from a server) and without the program's name.
    """

    def __init__(self, cause: str, **fields: object) -> None:
        self.cause = cause
        self.exit_code, text = CAUSES[cause]
        self.fields = fields
        super().__init__(printable(text.format(**fields)))


class LocalProtocolError(TunnelError):
    """This program was about to break the protocol, or used a protocol object out of turn."""

    def __init__(self, problem: str) -> None:
        super().__init__("internal", problem=problem)


class RemoteProtocolError(TunnelError):
    """The peer broke RFC 6455; ``close_code`` is the status code to close with (section 7.4.1)."""

    def __init__(self, problem: str, close_code: int = 1002) -> None:
        super().__init__("violation", problem=problem)
        self.close_code = close_code


class UsageError(TunnelError):
    """An option, an environment variable, a config file or a name cannot be used."""

    def __init__(self, problem: str, *, cause: str = "usage", **fields: object) -> None:
        super().__init__(cause, problem=problem, **fields)


class DialError(TunnelError):
    """No tunnel came about: the cause names the hop that failed."""


class UpgradeRefused(DialError):
    """An HTTP server answered the upgrade request with another status than 101.

    ``status`` is the HTTP status code, ``headers`` the answer's fields as (lower-case name, value).
    """

    def __init__(self, cause: str, *, status: int, headers: tuple[tuple[str, str], ...] = (), **fields: object) -> None:
        super().__init__(cause, status=status, **fields)
        self.status = status
        self.headers = headers


class ConnectionLost(TunnelError):
    """A tunnel that was open broke, or its peer ended it for a reason other than being done."""


class TerminalError(TunnelError):
    """The terminal service answered a call, or ended a stream, with an error.

    ``code`` is Connect's name for it (``not_found``, ``invalid_argument``, ``deadline_exceeded``, …).
    """

    def __init__(self, cause: str, *, code: str, **fields: object) -> None:
        super().__init__(cause, code=code, **fields)
        self.code = code


# What this process sends and must not show, should a peer send it back; the oldest first.
_secrets: dict[str, None] = {}
_SHORTEST_SECRET = 4  # characters; a shorter text would be found everywhere
_UNMISTAKABLE = 12  # characters of a secret that is looked for inside of words, too
_MAX_SECRETS = 512  # a program that opens tunnels for ever forgets the oldest
_INSTEAD = "[secret]"


def keep_secret(text: str) -> None:
    """Let `printable`, and so every error, show a mark in the place of ``text``, unless that is very short."""
    if len(text) >= _SHORTEST_SECRET:
        _secrets.pop(text, None)
        _secrets[text] = None
    while len(_secrets) > _MAX_SECRETS:
        del _secrets[next(iter(_secrets))]


def redacted(text: str) -> str:
    """Return ``text`` without the secrets that `keep_secret` knows."""
    # The longest first, as one may be a part of another.
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
    """Return text fit for one line on a terminal or in a log: no control characters and no secret of ours.

    It has at most ``limit`` characters.
    """
    # Secrets go first: a line that is cut could end with a part of one.
    line = " ".join("".join(c if c.isprintable() else " " for c in redacted(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
