"""The calls of ``process.Process`` as a client makes them, without I/O: what is sent, and what an answer means.

Whether a call whose answer got lost may be sent again is said here, in one place:

    List, Update, SendSignal   yes: twice is as once
    SendInput                  to our service, which knows each piece of input by its key; to E2B's only if it cannot
                               have arrived, as input that comes twice is worse than an error
    Start                      no, but a Connect by its tag finds out what became of it (`tunnel.pty.client.stream`)
"""

from __future__ import annotations

import base64
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunnel.errors import ConnectionLost, RemoteProtocolError, TerminalError, TunnelError, UpgradeRefused
from tunnel.protocol.upgrade import Response, refusal
from tunnel.pty.client.model import PtySize
from tunnel.pty.protocol import framing, messages

INPUT_LIMIT = 32 * 1024  # bytes of input in one call
SHELL = ("/bin/bash", "-i", "-l")
ENVIRONMENT = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
FIRST_DELAY, LONGEST_DELAY = 0.25, 10.0  # seconds between attempts
OURS = "wstunnel-"  # how some header of every answer of our service begins

_CODES = {
    "not_found": "pty-unknown",
    "invalid_argument": "pty-argument",
    "out_of_range": "pty-argument",
    "unauthenticated": "pty-unauthenticated",
    "permission_denied": "pty-unauthenticated",
    "deadline_exceeded": "pty-deadline",
    "unavailable": "pty-unavailable",
    "resource_exhausted": "pty-unavailable",
    "aborted": "pty-unavailable",
}
PASSING = ("unavailable", "resource_exhausted", "aborted")  # errors that say: not now

_jitter = random.SystemRandom().uniform


@dataclass(frozen=True)
class Call:
    """One request: the method's name, its message, and header fields of its own.

    ``repeatable`` tells whether it may be sent again when its answer got lost; None: to our service only. ``about`` is
    the process (its pid or tag) that errors are about.
    """

    method: str
    message: framing.Object
    fields: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool | None = True
    about: messages.Selector = ""

    def with_fields(self, fields: Mapping[str, str]) -> Call:
        """Return this call with more header fields."""
        return replace(self, fields={**self.fields, **fields})


# ---- unary calls


def send_input(pid: int, data: bytes) -> Call:
    """Type ``data``, at most `INPUT_LIMIT` bytes, on a terminal."""
    message = messages.input_request(pid, messages.Input("pty", data))
    return Call("SendInput", message, {messages.INPUT_KEY: secrets.token_hex(16)}, repeatable=None, about=pid)


def resize(pid: int, size: PtySize, *, keep: bool = False) -> Call:
    """Set a terminal's size; ``keep`` also asks our service to let it live on when nobody is connected."""
    fields = {messages.ON_DISCONNECT: "keep"} if keep else {}
    return Call("Update", messages.update_request(pid, messages.Size(size.cols, size.rows)), fields, about=pid)


def kill(selector: messages.Selector) -> Call:
    return Call("SendSignal", messages.signal_request(selector, messages.SIGNALS["SIGNAL_SIGKILL"]), about=selector)


def list_processes() -> Call:
    return Call("List", {})


# ---- streams


def new_tag() -> str:
    """Return a tag for a process to be started, by which it is found if the answer to Start gets lost."""
    return f"wstunnel-py-{secrets.token_hex(8)}"


def start(
    size: PtySize,
    tag: str,
    *,
    command: Sequence[str] | None = None,
    envs: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    grace: float | None = None,
) -> Call:
    """Start a terminal with ``command`` (an interactive login bash if it is None) and stream its output.

    ``grace`` asks our service to kill it when nobody has been connected for so many seconds.
    """
    cmd, *args = command or SHELL
    request = messages.StartRequest(
        cmd, tuple(args), {**ENVIRONMENT, **(envs or {})}, cwd, messages.Size(size.cols, size.rows), tag
    )
    fields = {}
    if user is not None:
        fields["Authorization"] = "Basic " + base64.b64encode(f"{user}:".encode()).decode()
    if grace is not None:
        fields[messages.ON_DISCONNECT] = f"kill; grace={round(grace)}"
    return Call("Start", messages.start_request(request), fields, repeatable=False, about=tag)


def connect(selector: messages.Selector, *, replay_from: int | None = None, process: str | None = None) -> Call:
    """Stream a process's output: from the offset ``replay_from`` on, or what comes from now on.

    ``process`` insists on the process with this id, as pids are reused.
    """
    fields = {}
    if replay_from is not None:
        fields[messages.REPLAY_FROM] = str(replay_from)
    if process is not None:
        fields[messages.PROCESS] = process
    return Call("Connect", messages.selector_request(selector), fields, about=selector)


# ---- answers


def result(call: Call, answer: Response, place: object) -> framing.Object:
    """Return the message of the answer to a unary call. Raises TunnelError for any other answer."""
    if answer.status != 200:
        raise error_of(answer, place, call.about)
    try:
        return framing.decode(answer.body)
    except framing.Malformed as exc:
        raise violation(place, exc) from exc


def processes(message: framing.Object, place: object) -> list[messages.ProcessInfo]:
    """Return what an answer to List says. Raises RemoteProtocolError."""
    try:
        return messages.parse_list_reply(message)
    except framing.Malformed as exc:
        raise violation(place, exc) from exc


def error_of(answer: Response, place: object, about: messages.Selector) -> TunnelError:
    """Return the error that an answer other than 200 stands for: the service's own, or that of something before it."""
    try:
        own = isinstance(framing.decode(answer.body).get("code"), str)  # E2B's edge has a number there
    except framing.Malformed:
        own = False
    if not own:
        return refusal(answer, str(place))
    return service_error(framing.parse_error(answer.status, answer.body), place, about)


def service_error(error: framing.ConnectError, place: object, about: messages.Selector = "") -> TerminalError:
    """Return the error of ours for one of Connect's."""
    code = _CODES.get(error.code, "pty-error")
    return TerminalError(code, connect_code=error.code, message=error.message or error.code, place=place, process=about)


def violation(place: object, problem: framing.ConnectError) -> RemoteProtocolError:
    """Return the error for what no terminal service says."""
    return RemoteProtocolError(f"{place} does not speak as a terminal service does: {problem.message}")


def is_unknown(error: TunnelError) -> bool:
    """Return whether ``error`` says that there is no such process."""
    return isinstance(error, TerminalError) and error.connect_code == "not_found"


def is_refusal(error: TunnelError) -> bool:
    """Return whether ``error`` is a service's or an edge's word that we may not come in."""
    if isinstance(error, TerminalError):
        return error.code == "pty-unauthenticated"
    return isinstance(error, UpgradeRefused) and error.status in (401, 403)


def is_passing(error: TunnelError) -> bool:
    """Return whether ``error`` is a service's or an edge's word that it cannot be done right now."""
    if isinstance(error, TerminalError):
        return error.connect_code in PASSING
    return isinstance(error, UpgradeRefused) and not is_refusal(error)


def is_ours(answer: Response) -> bool:
    """Return whether our own service has answered."""
    return any(name.startswith(OURS) for name, _ in answer.headers)


class Backoff:
    """Growing delays between attempts, jittered, so that many clients do not come back at the same moment."""

    def __init__(self) -> None:
        self._next = FIRST_DELAY

    def delay(self) -> float:
        """Return how many seconds to wait before the next attempt."""
        delay, self._next = self._next, min(self._next * 2, LONGEST_DELAY)
        return delay * _jitter(0.5, 1.0)


class Attempts:
    """The attempts at one unary call. ``patience`` is for how many seconds a service that cannot be reached is tried.

    A connection that breaks just when it is used again, as kept ones do, is always worth a second attempt.
    """

    def __init__(self, call: Call, place: object, *, now: float, patience: float = 0.0) -> None:
        self._call = call
        self._place = place
        self._until = now + patience
        self._backoff = Backoff()
        self._count = 1

    def again(self, error: TunnelError, *, now: float, arrived: bool, ours: bool) -> float:
        """Return after how many seconds to try again what failed with ``error``; raises what the user is told if never.

        ``arrived`` tells whether the service may have got the call, ``ours`` whether it is known to be our service.
        """
        if isinstance(error, TerminalError | UpgradeRefused):
            # An answer: what it refuses was not done.
            if not is_passing(error) or now >= self._until:
                raise error
        elif arrived and not (ours if self._call.repeatable is None else self._call.repeatable):
            raise ConnectionLost("pty-input-unsure", place=self._place, reason=error) from error
        elif now >= self._until and not (isinstance(error, ConnectionLost) and self._count == 1):
            raise error
        self._count += 1
        return self._backoff.delay()
