"""A client of the terminal service that knows only HTTP and envelopes, so it can send malformed requests."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

LIMIT = 40.0  # seconds that anything may take, on a busy machine

Message = dict[str, Any]


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of the error, if there is one."""
        return self.json.get("code") if self.body.startswith(b"{") else None


def envelope(message: object) -> bytes:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack(">BI", 0, len(data)) + data


@dataclass
class Stream:
    """A reply of Start or Connect. ``output``, ``ended`` and ``error`` contain what has arrived so far."""

    connection: http.client.HTTPConnection
    response: http.client.HTTPResponse
    output: bytearray = field(default_factory=bytearray)
    kinds: dict[str, bytearray] = field(default_factory=dict)
    pid: int = 0
    keepalives: int = 0
    ended: Message | None = None
    error: Message | None = None
    finished: bool = False

    @property
    def offset(self) -> int:
        return int(self.response.headers["Wstunnel-Offset"])

    def step(self) -> Message | None:
        """Read one envelope and return its event, None for the last envelope."""
        head = self._exactly(5)
        flags, length = struct.unpack(">BI", head)
        message = json.loads(self._exactly(length))
        if flags == 2:
            self.finished = True
            self.error = message.get("error")
            return None
        event: Message = message["event"]
        if "start" in event:
            self.pid = event["start"]["pid"]
        if "keepalive" in event:
            self.keepalives += 1
        for kind, data in event.get("data", {}).items():
            decoded = base64.b64decode(data)
            self.output += decoded
            self.kinds.setdefault(kind, bytearray()).extend(decoded)
        self.ended = event.get("end", self.ended)
        return event

    def wait_for(self, wanted: bytes) -> None:
        """Read until the output contains ``wanted``."""
        while wanted not in self.output:
            assert not self.finished, f"no {wanted!r} in {bytes(self.output[-2000:])!r}"
            self.step()

    def finish(self) -> Stream:
        """Read to the end."""
        while not self.finished:
            self.step()
        return self

    def close(self) -> None:
        self.response.close()
        self.connection.close()

    def _exactly(self, size: int) -> bytes:
        data = self.response.read(size)
        assert len(data) == size, f"the stream broke off: {data!r} instead of {size} bytes"
        return data


class Raw:
    """``token`` and ``headers`` are sent with every request."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.address = urlsplit(url).netloc
        self.headers = dict(headers or {})
        self._streams: list[Stream] = []

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.close()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection(self.address, timeout=LIMIT)
        with contextlib.closing(connection):
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())

    def call(self, method: str, message: object, headers: Mapping[str, str] | None = None) -> Reply:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        given = {"Content-Type": "application/json", "Connect-Protocol-Version": "1", **(headers or {})}
        return self.request("POST", f"/process.Process/{method}", body, given)

    def open(
        self,
        method: str,
        message: object,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
        limit: float = LIMIT,
    ) -> Stream:
        """Open a stream and return it when its first event or its end has arrived."""
        connection = http.client.HTTPConnection(self.address, timeout=limit)
        given = {**self.headers, "Content-Type": "application/connect+json", "Connect-Protocol-Version": "1"}
        body = message if isinstance(message, bytes) else envelope(message)
        pieces = (body[i : i + 3] for i in range(0, len(body), 3))
        connection.request(
            "POST",
            f"/process.Process/{method}",
            pieces if chunked else body,
            {**given, **(headers or {})},
            encode_chunked=chunked,
        )
        stream = Stream(connection, connection.getresponse())
        self._streams.append(stream)
        assert stream.response.status == 200, stream.response.read()
        stream.step()
        return stream

    # --- Common requests

    def terminal(self, *command: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Stream:
        return self.open("Start", terminal(*command, **fields), headers)

    def pipes(self, *command: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Stream:
        process, rest = _process(command, fields)
        return self.open("Start", {"process": process, **rest}, headers)

    def connect(self, pid: int, headers: Mapping[str, str] | None = None) -> Stream:
        return self.open("Connect", {"process": {"pid": pid}}, headers)

    def send(self, pid: int, data: bytes, kind: str = "pty", headers: Mapping[str, str] | None = None) -> Reply:
        return self.call("SendInput", input_message(pid, data, kind), headers)

    def kill(self, pid: int, signal: str = "SIGNAL_SIGKILL") -> Reply:
        return self.call("SendSignal", {"process": {"pid": pid}, "signal": signal})

    def pids(self) -> list[int]:
        return [each["pid"] for each in self.call("List", {}).json.get("processes", [])]


def terminal(*command: str, cols: int = 80, rows: int = 24, **fields: Any) -> Message:
    """Return the request that starts ``command`` on a terminal."""
    process, rest = _process(command, fields)
    return {"process": process, "pty": {"size": {"cols": cols, "rows": rows}}, **rest}


def input_message(pid: int, data: bytes, kind: str = "pty") -> Message:
    return {"process": {"pid": pid}, "input": {kind: base64.b64encode(data).decode()}}


def eventually(condition: Any, seconds: float = LIMIT) -> bool:
    """Return whether ``condition()`` becomes true within ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _process(command: tuple[str, ...], fields: Message) -> tuple[Message, Message]:
    cmd, *args = command
    process = {"cmd": cmd, "args": args}
    rest = dict(fields)
    for name in ("envs", "cwd"):
        if name in rest:
            process[name] = rest.pop(name)
    return process, rest
