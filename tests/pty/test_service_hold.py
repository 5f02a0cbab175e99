"""A service that pauses before a restart, and continues if there is none."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from aiohttp import web

from tests.pty.raw import LIMIT, Raw
from tunnel.pty.server import service as service_module
from tunnel.pty.server.connection import Connection
from tunnel.pty.server.service import TerminalService
from tunnel.server.settings import TerminalSettings


def with_service(test: Callable[[TerminalService, Raw], Awaitable[None]]) -> None:
    async def work() -> None:
        async with TerminalService(TerminalSettings(pty="127.0.0.1:0")) as service:
            with Raw(service.urls[0]) as raw:
                await test(service, raw)

    asyncio.run(work())


def connections_of(service: TerminalService) -> list[Connection]:
    return cast(list[Connection], cast(web.Server, service._runner.server).connections)


def test_a_call_is_answered_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "HOLD_LIMIT", LIMIT)  # not too short for the call on a busy machine

    async def test(service: TerminalService, raw: Raw) -> None:
        script = "trap '' TERM; echo ready; while :; do sleep 1; done"
        stream = await asyncio.to_thread(raw.terminal, "/bin/sh", "-c", script)
        await asyncio.to_thread(stream.wait_for, b"ready")
        call = asyncio.create_task(asyncio.to_thread(raw.kill, stream.pid, "SIGNAL_SIGTERM"))
        for _ in range(2000):
            if any(each.is_answering for each in connections_of(service)):
                break
            await asyncio.sleep(0.005)
        await service.hold()
        assert not any(each.is_answering for each in connections_of(service))
        service.go_on()
        assert (await call).status == 200

    with_service(test)


def test_a_stream_goes_on_and_does_not_hold_it_up() -> None:
    async def test(service: TerminalService, raw: Raw) -> None:
        stream = await asyncio.to_thread(raw.terminal, "/bin/sh", "-c", "stty -echo; echo ready; exec cat")
        await asyncio.to_thread(stream.wait_for, b"ready")
        assert [each.is_answering for each in connections_of(service)] == [False]
        await service.hold()
        service.go_on()
        await asyncio.to_thread(raw.send, stream.pid, b"still\n")
        await asyncio.to_thread(stream.wait_for, b"still")

    with_service(test)


def test_an_idle_connection_is_closed_and_a_new_one_waits() -> None:
    async def test(service: TerminalService, raw: Raw) -> None:
        kept = http.client.HTTPConnection(raw.address, timeout=LIMIT)

        def ask() -> int:
            kept.request("GET", "/health")
            response = kept.getresponse()
            response.read()
            return response.status

        assert await asyncio.to_thread(ask) == 204
        sock = kept.sock
        await service.hold()
        assert await asyncio.to_thread(sock.recv, 1) == b""
        waiting = asyncio.create_task(asyncio.to_thread(raw.request, "GET", "/health"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        service.go_on()
        async with asyncio.timeout(LIMIT):
            assert (await waiting).status == 204
        kept.close()

    with_service(test)
