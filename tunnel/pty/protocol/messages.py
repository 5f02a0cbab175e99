"""The messages of E2B's service process.Process, as JSON objects and as Python types.

Both ends use it: clients build requests and parse events, the service parses requests and builds events. JSON follows
proto3's mapping: lowerCamelCase names, oneofs flattened, bytes in base64, defaults omitted, unknown fields ignored.
Every parser raises Malformed for a message that it cannot accept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tunnel.pty.protocol.fields import (
    as_text,
    base64,
    read_array,
    read_boolean,
    read_bytes,
    read_integer,
    read_object,
    read_text,
)
from tunnel.pty.protocol.framing import ConnectError, Malformed, Object, as_object

PREFIX = "/process.Process/"  # the path of a method without its name
ACCESS_TOKEN = "X-Access-Token"  # noqa: S105 - the name of a header
KEEPALIVE = "Keepalive-Ping-Interval"  # of Start and Connect: seconds

# Headers that this project adds; E2B's clients do not send them and ignore them in answers.
REPLAY_FROM = "Wstunnel-Replay-From"  # request of Connect: the offset of the first byte to send
OFFSET = "Wstunnel-Offset"  # reply to Start and Connect: the offset of the first byte that follows
LIVE = "Wstunnel-Live"  # reply to both: the offset at which live output begins; bytes before it are a replay
# Reply to both: a unique id of the process, because pids are reused. Request of Connect: the id that is expected.
PROCESS = "Wstunnel-Process"
SERVICE = "Wstunnel-Service"  # every reply: the version of these extensions
ON_DISCONNECT = "Wstunnel-On-Disconnect"  # request of Start: "kill; grace=<seconds>"; of Update: "keep"
ONCE = "Wstunnel-Once"  # request of Start: "tag"; a process with the same tag is followed, and none is started
INPUT_KEY = "Wstunnel-Input"  # request of SendInput: a key; input with a known key is not taken again

TAG_LIMIT = 1024  # characters
SIZE_LIMIT = 65535  # columns or rows; struct winsize has 16 bits for each

Selector = int | str  # the pid of a process, or its tag
InputKind = Literal["pty", "stdin"]
OutputKind = Literal["pty", "stdout", "stderr"]
SIGNALS = {"SIGNAL_SIGTERM": 15, "SIGNAL_SIGKILL": 9}  # names and numbers of the enum process.Signal


# --- Requests


@dataclass(frozen=True, slots=True)
class Size:
    """A terminal's size in characters."""

    cols: int
    rows: int


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A process to start: on a pty if ``size`` is set, else on pipes, without one for input unless ``stdin``."""

    cmd: str
    args: tuple[str, ...] = ()
    envs: Mapping[str, str] | None = None
    cwd: str | None = None
    size: Size | None = None
    tag: str | None = None
    stdin: bool = True


@dataclass(frozen=True, slots=True)
class Input:
    """Input for a process, and whether the sender takes its input for a pty or a pipe."""

    kind: InputKind
    data: bytes


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A running process, as List returns it."""

    pid: int
    cmd: str
    args: tuple[str, ...] = ()
    envs: Mapping[str, str] | None = None
    cwd: str | None = None
    tag: str | None = None


def start_request(request: StartRequest) -> Object:
    """Return the message of Start."""
    message: dict[str, object] = {"process": _config(request.cmd, request.args, request.envs, request.cwd)}
    if request.size is not None:
        message["pty"] = _pty(request.size)
    if request.tag is not None:
        message["tag"] = request.tag
    if not request.stdin:
        message["stdin"] = False
    return message


def parse_start_request(message: Object) -> StartRequest:
    """Return the process that a message of Start describes."""
    cmd, args, envs, cwd = _parse_config(message)
    if not cmd:
        raise Malformed("process.cmd is missing")
    for text in (cmd, *args, *envs, *envs.values(), cwd or ""):
        if "\0" in text:
            raise Malformed("commands, arguments, variables and paths must not contain NUL")
    for name in envs:
        if not name or "=" in name:
            raise Malformed(f"{name[:100]!r} is not a valid variable name")
    tag = read_text(message, "tag") or None
    if tag is not None and len(tag) > TAG_LIMIT:
        raise Malformed(f"a tag may have at most {TAG_LIMIT} characters")
    pty = message.get("pty")
    size = None
    if pty is not None:
        size = _parse_size(as_object(pty, "pty"), unknown=True) or Size(80, 24)
    return StartRequest(cmd, args, envs, cwd, size, tag=tag, stdin=read_boolean(message, "stdin", default=True))


def selector_request(selector: Selector) -> dict[str, object]:
    """Return the request of Connect and CloseStdin, which is also a part of all others about one process."""
    return {"process": {"pid": selector} if isinstance(selector, int) else {"tag": selector}}


def parse_selector(message: Object) -> Selector:
    """Return the process that a request names. Raises ConnectError (``unimplemented``) if it names none."""
    process = read_object(message, "process")
    if process.get("pid") is not None:
        return read_integer(process, "pid")
    tag = read_text(process, "tag")
    if not tag:
        raise ConnectError("unimplemented", "the request names no process: pid or tag is required")
    return tag


def update_request(selector: Selector, size: Size) -> Object:
    """Return the message of Update, which resizes a terminal."""
    return {**selector_request(selector), "pty": _pty(size)}


def parse_update_request(message: Object) -> tuple[Selector, Size | None]:
    """Return the process and its new size, None if the message has none."""
    pty = message.get("pty")
    return parse_selector(message), None if pty is None else _parse_size(as_object(pty, "pty"))


def input_request(selector: Selector, given: Input) -> Object:
    """Return the message of SendInput."""
    return {**selector_request(selector), "input": _input(given)}


def parse_input_request(message: Object) -> tuple[Selector, Input]:
    """Return the process and its input."""
    return parse_selector(message), _parse_input(message)


def signal_request(selector: Selector, number: int) -> Object:
    """Return the request that sends signal ``number``, which is 15 or 9. Raises KeyError for others."""
    return {**selector_request(selector), "signal": {number: name for name, number in SIGNALS.items()}[number]}


def parse_signal_request(message: Object) -> tuple[Selector, int]:
    """Return the process and the number of the signal."""
    selector = parse_selector(message)
    signal = message.get("signal")
    if isinstance(signal, str):
        number = 0 if signal == "SIGNAL_UNSPECIFIED" else SIGNALS.get(signal)
    elif isinstance(signal, int) and not isinstance(signal, bool) and 0 <= signal < 1 << 31:
        number = signal
    else:
        number = 0 if signal is None else None
    if number is None:
        raise Malformed("signal is neither the name nor the number of a signal")
    if number not in SIGNALS.values():
        raise ConnectError("unimplemented", "the signal must be SIGNAL_SIGTERM or SIGNAL_SIGKILL")
    return selector, number


def parse_stream_message(message: Object) -> Selector | Input | None:
    """Return the content of a message of StreamInput: the process (``Selector``), input, or None for a keepalive."""
    if message.get("start") is not None:
        return parse_selector(as_object(message["start"], "start"))
    if message.get("data") is not None:
        return _parse_input(as_object(message["data"], "data"))
    if message.get("keepalive") is not None:
        as_object(message["keepalive"], "keepalive")
        return None
    raise ConnectError("unimplemented", "a message of StreamInput must be start, data or keepalive")


def list_reply(processes: Iterable[ProcessInfo]) -> Object:
    """Return the reply of List."""
    found = []
    for each in processes:
        entry: dict[str, object] = {"config": _config(each.cmd, each.args, each.envs, each.cwd), "pid": each.pid}
        if each.tag is not None:
            entry["tag"] = each.tag
        found.append(entry)
    return {"processes": found} if found else {}


def parse_list_reply(message: Object) -> list[ProcessInfo]:
    """Return the processes in a reply of List."""
    found = []
    for each in read_array(message, "processes"):
        entry = as_object(each, "processes")
        cmd, args, envs, cwd = _parse_config(entry, "config")
        found.append(ProcessInfo(read_integer(entry, "pid"), cmd, args, envs, cwd, read_text(entry, "tag") or None))
    return found


# --- Events, the messages of the replies of Start and Connect


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of every reply."""

    pid: int


@dataclass(frozen=True, slots=True)
class Output:
    """Output of the process."""

    kind: OutputKind
    data: bytes


@dataclass(frozen=True, slots=True)
class Restore:
    """What puts a terminal into the state that it had where a replay begins. These bytes have no offsets.

    Only a client that asked for a replay gets it, before the output, if the replay begins later than it asked.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Keepalive:
    """There was no output for a while; the stream is alive."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event. If a signal ended the process, ``exit_code`` is -1 and ``exited`` is false."""

    exit_code: int = 0
    exited: bool = True
    status: str = "exit status 0"
    error: str | None = None

    @classmethod
    def of(cls, returncode: int) -> Ended:
        """Return the event for a return code as `subprocess` has it: negative for a signal."""
        if returncode >= 0:
            status = f"exit status {returncode}"
            return cls(returncode, True, status, status if returncode else None)
        status = f"signal: {SIGNAL_TEXTS.get(-returncode, f'signal {-returncode}')}"
        return cls(-1, False, status, status)


Event = Started | Restore | Output | Keepalive | Ended

# Names of Linux signals in Go's runtime, which E2B's daemon sends.
SIGNAL_TEXTS = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    10: "user defined signal 1",
    11: "segmentation fault",
    12: "user defined signal 2",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
}


def event_message(event: Event) -> Object:
    """Return a message of a stream."""
    match event:
        case Started(pid):
            body: Object = {"start": {"pid": pid}}
        case Output(kind, data):
            body = {"data": {kind: base64(data)}}
        case Restore(data):
            body = {"restore": {"pty": base64(data)}}
        case Keepalive():
            body = {"keepalive": {}}
        case Ended(exit_code, exited, status, error):
            end: dict[str, object] = {}
            if exit_code:
                end["exitCode"] = exit_code
            if exited:
                end["exited"] = True
            end["status"] = status
            if error:
                end["error"] = error
            body = {"end": end}
    return {"event": body}


def parse_event_message(message: Object) -> Event | None:
    """Return the event, None for an unknown kind; raises Malformed."""
    event = read_object(message, "event")
    if event.get("start") is not None:
        return Started(read_integer(as_object(event["start"], "start"), "pid"))
    if event.get("data") is not None:
        data = as_object(event["data"], "data")
        kinds: tuple[OutputKind, ...] = ("pty", "stdout", "stderr")
        for kind in kinds:
            if data.get(kind) is not None:
                return Output(kind, read_bytes(data, kind))
        return None
    if event.get("restore") is not None:
        return Restore(read_bytes(as_object(event["restore"], "restore"), "pty"))
    if event.get("keepalive") is not None:
        return Keepalive()
    if event.get("end") is not None:
        end = as_object(event["end"], "end")
        return Ended(
            read_integer(end, "exitCode", minimum=-(1 << 31)),
            read_boolean(end, "exited", default=False),
            read_text(end, "status") or "",
            read_text(end, "error") or None,
        )
    return None


# --- Parts


def _config(cmd: str, args: Iterable[str], envs: Mapping[str, str] | None, cwd: str | None) -> Object:
    config: dict[str, object] = {"cmd": cmd}
    if args := list(args):
        config["args"] = args
    if envs:
        config["envs"] = dict(envs)
    if cwd is not None:
        config["cwd"] = cwd
    return config


def _parse_config(message: Object, name: str = "process") -> tuple[str, tuple[str, ...], dict[str, str], str | None]:
    config = read_object(message, name)
    args = tuple(as_text(each, "args") for each in read_array(config, "args"))
    envs = read_object(config, "envs")
    return (
        read_text(config, "cmd") or "",
        args,
        {as_text(name, "a name in envs"): as_text(value, f"envs[{name[:100]!r}]") for name, value in envs.items()},
        read_text(config, "cwd") or None,
    )


def _pty(size: Size) -> Object:
    return {"size": {"cols": size.cols, "rows": size.rows}}


def _parse_size(pty: Object, *, unknown: bool = False) -> Size | None:
    if pty.get("size") is None:
        return None
    fields = as_object(pty["size"], "size")
    size = Size(read_integer(fields, "cols"), read_integer(fields, "rows"))
    if unknown and size == Size(0, 0):
        return None  # E2B's CLI sends this when its own terminal has no size, as in scripts and editors
    if not (1 <= size.cols <= SIZE_LIMIT and 1 <= size.rows <= SIZE_LIMIT):
        raise Malformed(f"a terminal cannot have {size.cols} x {size.rows} characters: 1 to {SIZE_LIMIT} each")
    return size


def _input(given: Input) -> Object:
    return {given.kind: base64(given.data)}


def _parse_input(message: Object) -> Input:
    fields = read_object(message, "input")
    if fields.get("pty") is not None:
        return Input("pty", read_bytes(fields, "pty"))
    if fields.get("stdin") is not None:
        return Input("stdin", read_bytes(fields, "stdin"))
    raise ConnectError("unimplemented", "the request has no input: pty or stdin is required")
