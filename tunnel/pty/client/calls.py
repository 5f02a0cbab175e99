"""The client's side of ``process.Process``, Sans-I/O: which requests to send, and what the answers mean.

Whether a call may be sent again when its answer is lost:

    List, Update, SendSignal   yes, they are idempotent
    SendInput                  to our service yes, as it recognises each piece of input by its key; to E2B's only if it
                               cannot have arrived, because input that arrives twice is worse than an error
    Start                      no; a Connect by its tag finds out whether it arrived (`tunnel.pty.client.stream`)
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunnel.errors import (
    ConnectionLost,
    ProviderError,
    RemoteProtocolError,
    TerminalError,
    TunnelError,
    UpgradeRefused,
)
from tunnel.net.backoff import backoff
from tunnel.protocol.upgrade import Response, refusal
from tunnel.pty.client.model import PtySize
from tunnel.pty.protocol import framing, messages

INPUT_LIMIT = 32 * 1024  # bytes of input in one call
SHELL = ("/bin/bash", "-i", "-l")
ENVIRONMENT = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
FIRST_DELAY, LONGEST_DELAY = 0.25, 10.0  # seconds between attempts; each is jittered down to half
OURS = "wstunnel-"  # every answer of our own service has a header with this prefix

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
TEMPORARY = ("unavailable", "resource_exhausted", "aborted")  # errors that may go away by themselves


@dataclass(frozen=True)
class Call:
    """One request: the method's name, its message and its own header fields.

    ``repeatable``: whether it may be sent again if its answer is lost; None: to our own service only.
    ``about`` is the process (its pid or tag) that error messages name. ``wakes``: it is a reason to wake
    a sandbox that is paused.
    """

    method: str
    message: framing.Object
    fields: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool | None = True
    about: messages.Selector = ""
    wakes: bool = True

    def with_fields(self, fields: Mapping[str, str]) -> Call:
        """Return this call with more header fields."""
        return replace(self, fields={**self.fields, **fields})


# --- unary calls


def send_input(pid: int, data: bytes) -> Call:
    """Type ``data``, at most `INPUT_LIMIT` bytes, on a terminal."""
    message = messages.input_request(pid, messages.Input("pty", data))
    return Call("SendInput", message, {messages.INPUT_KEY: secrets.token_hex(16)}, repeatable=None, about=pid)


def resize(pid: int, size: PtySize, *, keep: bool = False) -> Call:
    """Set a terminal's size; ``keep`` also asks our own service to keep it while no client is connected."""
    fields = {messages.ON_DISCONNECT: "keep"} if keep else {}
    message = messages.update_request(pid, messages.Size(size.cols, size.rows))
    return Call("Update", message, fields, about=pid, wakes=False)


def kill(selector: messages.Selector) -> Call:
    """Kill a process and everything it started."""
    return Call("SendSignal", messages.signal_request(selector, messages.SIGNALS["SIGNAL_SIGKILL"]), about=selector)


def list_processes() -> Call:
    """List the processes that the service runs."""
    return Call("List", {})


# --- streams


def new_tag() -> str:
    """Return a tag for a new process, by which it can be found if the answer to Start is lost."""
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

    ``grace`` asks our own service to kill it when no client has been connected for that many seconds.
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
    """Stream a process's output from the offset ``replay_from``, or from now on.

    ``process`` is the id of the process that is expected, because pids are reused.
    """
    fields = {}
    if replay_from is not None:
        fields[messages.REPLAY_FROM] = str(replay_from)
    if process is not None:
        fields[messages.PROCESS] = process
    return Call("Connect", messages.selector_request(selector), fields, about=selector)


# --- answers


def result(call: Call, answer: Response, endpoint: object) -> framing.Object:
    """Return the message of a successful answer to a unary call. Raises TunnelError for any other answer."""
    if answer.status != 200:
        raise error_of(answer, endpoint, call.about)
    try:
        return framing.decode(answer.body)
    except framing.Malformed as exc:
        raise violation(endpoint, exc) from exc


def processes(message: framing.Object, endpoint: object) -> list[messages.ProcessInfo]:
    """Return the processes in an answer to List. Raises RemoteProtocolError."""
    try:
        return messages.parse_list_reply(message)
    except framing.Malformed as exc:
        raise violation(endpoint, exc) from exc


def error_of(answer: Response, endpoint: object, about: messages.Selector) -> TunnelError:
    """Return the error for an answer other than 200, whether the service sent it or an edge in front of it."""
    if not is_of_service(answer):
        return refusal(answer, str(endpoint))
    return service_error(framing.parse_error(answer.status, answer.body), endpoint, about)


def is_of_service(answer: Response) -> bool:
    """Return whether an answer other than 200 comes from a service, not from an edge in front of it."""
    try:
        return isinstance(framing.decode(answer.body).get("code"), str)  # E2B's edge sends a number
    except framing.Malformed:
        return False


def may_have_passed(answer: Response) -> bool:
    """Return whether an answer of an edge means that the service, which may have received the call, did not answer."""
    if answer.status not in (500, 502, 504) or is_of_service(answer):
        return False
    try:
        return "sandboxId" not in framing.decode(answer.body)  # with it, E2B's edge reports that nothing is listening
    except framing.Malformed:
        return True


def service_error(error: framing.ConnectError, endpoint: object, about: messages.Selector = "") -> TerminalError:
    """Return the exception for an error of the Connect protocol."""
    code, message = _CODES.get(error.code, "pty-error"), error.message or error.code
    return TerminalError(code, connect_code=error.code, message=message, place=endpoint, process=about)


def violation(endpoint: object, problem: framing.ConnectError) -> RemoteProtocolError:
    """Return the error for an answer that breaks the protocol."""
    return RemoteProtocolError(f"{endpoint} did not answer like a terminal service: {problem.message}")


def is_unknown(error: TunnelError) -> bool:
    """Return whether ``error`` says that there is no such process."""
    return isinstance(error, TerminalError) and error.connect_code == "not_found"


def is_refusal(error: TunnelError) -> bool:
    """Return whether a service or an edge refuses our credentials."""
    if isinstance(error, TerminalError):
        return error.code == "pty-unauthenticated"
    return isinstance(error, UpgradeRefused) and error.status in (401, 403)


def is_asleep(error: TunnelError | None) -> bool:
    """Return whether an error says that the sandbox is paused."""
    return error is not None and error.code == "sandbox-paused"


def is_temporary(error: TunnelError) -> bool:
    """Return whether a service, an edge or the sandbox's provider says that it cannot do this right now."""
    if isinstance(error, TerminalError):
        return error.connect_code in TEMPORARY
    if isinstance(error, ProviderError):
        return error.code in ("api-failed", "api-quota", "sandbox-busy")
    return isinstance(error, UpgradeRefused) and not is_refusal(error)


def is_ours(answer: Response) -> bool:
    """Return whether our own service has answered."""
    return any(name.startswith(OURS) for name, _ in answer.headers)


def retry_delay(failures: int) -> float:
    """Return the seconds to wait before the next attempt, after ``failures`` earlier ones in a row."""
    return backoff(failures, first=FIRST_DELAY, longest=LONGEST_DELAY)


class Attempts:
    """The attempts at one unary call. A service that cannot be reached is tried for ``retry_for`` seconds.

    A connection that breaks is always worth a second attempt: it may have been an idle one that was kept open.
    """

    def __init__(self, call: Call, endpoint: object, *, now: float, retry_for: float = 0.0) -> None:
        self._call = call
        self._endpoint = endpoint
        self._until = now + retry_for
        self._failures = 0

    def again(self, error: TunnelError, *, now: float, arrived: bool, ours: bool) -> float:
        """Return the seconds to wait before trying again after ``error``; raise the error for the user if it is final.

        ``arrived``: whether the service may have received the call; ``ours``: whether it is known to be our own.
        """
        is_refused = isinstance(error, TerminalError | UpgradeRefused | ProviderError)
        if is_refused and (not is_temporary(error) or now >= self._until):
            raise error
        if arrived and not (ours if self._call.repeatable is None else self._call.repeatable):
            raise ConnectionLost("pty-input-unsure", place=self._endpoint, reason=error) from error
        if now >= self._until and not (isinstance(error, ConnectionLost) and self._failures == 0):
            raise error
        self._failures += 1
        return retry_delay(self._failures - 1)
