"""Dialling the target: TCP and Unix sockets, several addresses, and every way in which it can fail."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed.processes import free_port
from tests.bed.targets import Target as Listening
from tests.bed.tunnels import Bridge
from tests.conftest import StartBridge
from tests.server.clients import ask, open_tunnel
from tunnel.errors import DialError, UsageError
from tunnel.net.address import Client
from tunnel.server.address_target import parse_target

CLIENT = Client("192.0.2.1:1234", "192.0.2.1")


def dial(address: str, seconds: float = 10) -> bytes:
    """Dial ``address`` and return what an echo there answers."""

    async def talk() -> bytes:
        sock = await parse_target(address).dial(seconds, CLIENT)
        with sock:
            assert sock.getblocking() is False
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, b"hello")
            return await loop.sock_recv(sock, 100)

    return asyncio.run(talk())


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port that answers no more connections, as if packets were dropped: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))  # a test opens it at another address, too
        listener.listen(0)
        address = listener.getsockname()
        waiting = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(address)
            waiting.append(sock)
        yield address[1]
        for sock in waiting:
            sock.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A resolver for ``*.test`` in the place of the system's: fill in the addresses of each name."""
    table: dict[str, list[str]] = {}
    system = socket.getaddrinfo

    def resolve(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host not in table or options.get("flags") == socket.AI_NUMERICHOST:
            return system(host, port, *args, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in table[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return table


def test_a_tcp_target_is_dialled_by_address(echo_target: Listening) -> None:
    assert dial(f"127.0.0.1:{echo_target.port}") == b"hello"


def test_a_name_is_resolved_and_its_addresses_tried_in_turn(
    echo_target: Listening, names: dict[str, list[str]]
) -> None:
    names["box.test"] = ["127.0.0.2", "127.0.0.1"]
    assert dial(f"box.test:{echo_target.port}") == b"hello"


def test_an_address_that_does_not_answer_leaves_time_for_the_next(full_port: int, names: dict[str, list[str]]) -> None:
    with socket.create_server(("127.0.0.2", full_port)):
        names["box.test"] = ["127.0.0.1", "127.0.0.2"]

        async def connect() -> None:
            (await parse_target(f"box.test:{full_port}").dial(6, CLIENT)).close()

        asyncio.run(connect())


def test_when_no_address_answers_each_is_reported(names: dict[str, list[str]]) -> None:
    names["box.test"] = ["127.0.0.1", "127.0.0.2"]
    port = free_port()
    with pytest.raises(DialError) as failure:
        dial(f"box.test:{port}")
    assert str(failure.value) == (
        f"cannot connect to box.test:{port}: 127.0.0.1:{port}: Connection refused, 127.0.0.2:{port}: Connection refused"
    )


def test_a_port_without_a_listener_is_refused() -> None:
    port = free_port()
    with pytest.raises(DialError, match=f"127.0.0.1:{port} refused the connection: nothing is listening there"):
        dial(f"127.0.0.1:{port}")


def test_a_target_that_does_not_answer_is_given_up_in_time(full_port: int) -> None:
    started = time.monotonic()
    with pytest.raises(DialError, match=re.escape(f"no connection to 127.0.0.1:{full_port} within 0.3 s")):
        dial(f"127.0.0.1:{full_port}", 0.3)
    assert time.monotonic() - started < 30  # the system itself gives up after two minutes


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".test"])
def test_a_name_without_an_address_is_reported(host: str) -> None:
    with pytest.raises(DialError, match=f"cannot resolve {host}: "):
        dial(f"{host}:22")


def test_a_unix_target_is_dialled(short_folder: Path) -> None:
    path = short_folder / "target"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()
        await writer.wait_closed()

    async def talk() -> bytes:
        async with await asyncio.start_unix_server(answer, path):
            loop = asyncio.get_running_loop()
            with await parse_target(f"unix:{path}").dial(10, CLIENT) as sock:
                await loop.sock_sendall(sock, b"hello")
                return await loop.sock_recv(sock, 100)

    assert asyncio.run(talk()) == b"hello"


def test_a_unix_target_that_is_not_there_is_reported(short_folder: Path) -> None:
    with pytest.raises(DialError, match=f"cannot connect to unix:{short_folder}/none: No such file or directory"):
        dial(f"unix:{short_folder}/none")


def test_a_unix_target_with_a_full_backlog_is_waited_for(short_folder: Path) -> None:
    path = f"{short_folder}/busy"

    async def connect() -> None:
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
            listener.bind(path)
            listener.listen(0)
            first.connect(path)
            with pytest.raises(DialError, match=f"no connection to unix:{path} within 0.2 s"):
                await parse_target(f"unix:{path}").dial(0.2, CLIENT)
            asyncio.get_running_loop().call_later(0.2, lambda: listener.accept()[0].close())
            (await parse_target(f"unix:{path}").dial(10, CLIENT)).close()

    asyncio.run(connect())


@pytest.mark.parametrize("text", ["127.0.0.1:0", ":22", "embedded", "unix:"])
def test_a_target_needs_a_place_to_go_to(text: str) -> None:
    with pytest.raises(UsageError, match="target: "):
        parse_target(text)


def test_a_client_is_told_why_the_target_was_not_reached(start: StartBridge, full_port: int) -> None:
    port = free_port()
    refused = ask(start("--target", f"127.0.0.1:{port}").url)
    assert refused.status == 502
    assert refused.headers["wstunnel-error"] == "target-unreachable"
    assert refused.json == {
        "error": "target-unreachable",
        "message": f"the target cannot be reached: 127.0.0.1:{port} refused the connection: nothing is listening there",
    }
    silent = ask(start("--target", f"127.0.0.1:{full_port}", "--dial-timeout", "0.3").url)
    assert silent.status == 504
    assert silent.json == {
        "error": "target-timeout",
        "message": f"the target cannot be reached: no connection to 127.0.0.1:{full_port} within 0.3 s",
    }


def test_a_bridge_connects_to_a_unix_target(start: StartBridge, short_folder: Path) -> None:
    path = f"{short_folder}/target"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        bridge: Bridge = start("--target", f"unix:{path}")
        with open_tunnel(bridge.url) as tunnel:
            connection, _ = listener.accept()
            with connection:
                tunnel.send(b"hello")
                assert connection.recv(100) == b"hello"
                connection.sendall(b"back")
                assert tunnel.recv(timeout=20) == b"back"
    bridge.process.wait_for_line(f"tunnel client=127.0.0.1:[0-9]+ target=unix:{path} bytes_in=5 bytes_out=4 ")


def test_a_bridge_comes_back_when_its_target_does(start: StartBridge) -> None:
    port = free_port()
    bridge = start("--target", f"127.0.0.1:{port}")
    assert ask(bridge.url).status == 502
    with socket.create_server(("127.0.0.1", port)) as listener, open_tunnel(bridge.url) as tunnel:
        tunnel.send(b"hello")
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b"hello"
