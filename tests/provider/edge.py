"""The edge of the test cloud: routes by Host, checks the traffic token, and refuses as E2B's proxy does.

Its answers are those of e2b-dev/infra (packages/shared/pkg/proxy): JSON with sandboxId, message and code, or a page for
who looks like a browser. After the head of its first request a connection is passed on as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import threading
from collections.abc import Callable
from typing import Any

from tests.provider.machines import DAEMON, PAUSED, PAUSING, RUNNING, Machine

TOKEN = "e2b-traffic-access-token"
_BROWSER = re.compile(r"(?i)mozilla|chrome|safari|firefox|edge|opera|msie")
_REASONS = {400: "Bad Request", 403: "Forbidden", 409: "Conflict", 429: "Too Many Requests", 502: "Bad Gateway"}


class Refused(Exception):
    def __init__(self, status: int, sandbox: str, message: str, **more: object) -> None:
        self.status = status
        self.body = {"sandboxId": sandbox, "message": message, **more, "code": status}


class Edge:
    """Runs in a thread; ``find`` returns the sandbox with an id, ``wake`` resumes one whose traffic may do so.

    ``requests`` are the heads that came, with what was answered: (port, status), 101 for what was passed on.
    """

    def __init__(
        self, find: Callable[[str], Machine | None], wake: Callable[[Machine], None], tls: ssl.SSLContext | None
    ) -> None:
        self._find = find
        self._wake = wake
        self._tls = tls
        self.heads: list[str] = []
        self.answers: list[tuple[int, int]] = []
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        started.wait(20)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls))
        self.port: int = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        while tasks := asyncio.all_tasks(self._loop):
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(tasks))
        self._loop.run_until_complete(asyncio.sleep(0.05))  # until the connections are closed, too
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            fields = dict(re.findall(r"(?m)^([^:\r\n]+): *([^\r\n]*)", head.lower()))
            original = dict(re.findall(r"(?m)^([^:\r\n]+): *([^\r\n]*)", head))
            tokens = {name.lower(): value for name, value in original.items()}
            port = 0
            try:
                port, machine = await asyncio.to_thread(self._route, fields, tokens.get(TOKEN))
                back_reader, back_writer = await self._connect(machine, port)
            except Refused as exc:
                self.answers.append((port, exc.status))
                writer.write(_answer(exc, fields))
                await writer.drain()
                return
            self.answers.append((port, 101))
            await self._relay(head.encode("latin-1"), (reader, writer), (back_reader, back_writer), machine)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # somebody has hung up
        finally:
            with contextlib.suppress(Exception):
                writer.close()

    def _route(self, fields: dict[str, str], token: str | None) -> tuple[int, Machine]:
        host = fields.get("host", "")
        if re.match(r"[\d.]+(:|$)|localhost(:|$)|sandbox\.", host) and "e2b-sandbox-id" in fields:
            sandbox, port = fields["e2b-sandbox-id"], fields.get("e2b-sandbox-port", "")
        else:
            port, _, sandbox = host.partition(".")[0].partition("-")
            sandbox = sandbox.partition("-")[0]
        if not port.isdigit():
            raise Refused(400, sandbox, "Invalid host")
        machine = self._find(sandbox)
        if machine is not None and machine.state == PAUSING:
            raise Refused(409, sandbox, "The sandbox is still transitioning. Try again in a moment.")
        if machine is not None and machine.state == PAUSED and machine.auto_resume:
            self._wake(machine)
        if machine is None or machine.state != RUNNING:
            raise Refused(502, sandbox, "The sandbox was not found")
        if machine.is_private and int(port) != DAEMON and token != machine.traffic_token:
            problem = (
                f"Token header '{TOKEN}' is missing"
                if token is None
                else f"Provided token in header '{TOKEN}' is invalid"
            )
            raise Refused(403, sandbox, f"Sandbox is secured with traffic access token. {problem}")
        if len(machine.cut) >= machine.connection_limit:
            text = f"The sandbox has too many concurrent incoming connections (limit: {machine.connection_limit})"
            raise Refused(429, sandbox, text, connectionLimit=machine.connection_limit)
        return int(port), machine

    async def _connect(self, machine: Machine, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_connection("127.0.0.1", machine.ports.get(port, 1))
        except OSError:
            text = "The sandbox is running but port is not open"
            raise Refused(502, machine.id, text, port=port) from None

    async def _relay(
        self,
        head: bytes,
        front: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        back: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        machine: Machine,
    ) -> None:
        back[1].write(head)
        tasks = [self._loop.create_task(_copy(front[0], back[1])), self._loop.create_task(_copy(back[0], front[1]))]

        def abort() -> None:
            for task in tasks:
                task.cancel()
            for writer in (front[1], back[1]):
                writer.transport.abort()

        def cut() -> None:
            self._loop.call_soon_threadsafe(abort)

        machine.cut.add(cut)
        if machine.state != RUNNING:
            abort()  # it was cut off while this connection was being made
        try:
            await asyncio.wait(tasks)
        finally:
            machine.cut.discard(cut)
            abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(Exception):
        writer.write_eof() if writer.can_write_eof() else writer.close()


def _answer(refused: Refused, fields: dict[str, str]) -> bytes:
    wants_json = "application/json" in fields.get("accept", "") and "text/html" not in fields.get("accept", "")
    if _BROWSER.search(fields.get("user-agent", "")) and not wants_json and "x-requested-with" not in fields:
        kind, body = "text/html; charset=utf-8", f"<!DOCTYPE html><h1>{refused.body['message']}</h1>"
    else:
        kind, body = "application/json; charset=utf-8", json.dumps(refused.body)
    head = f"HTTP/1.1 {refused.status} {_REASONS[refused.status]}\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n{body}".encode()
