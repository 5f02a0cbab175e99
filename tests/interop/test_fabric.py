"""Fabric through our tunnel: our client as its gateway, which it starts like a ProxyCommand, and a socket of ours."""

from __future__ import annotations

import contextlib
import getpass
import io
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fabric  # type: ignore[import-untyped]

import tunnel
from tests.bed.processes import free_port, ticks
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, checksum, echo, read_exactly
from tests.bed.tunnels import Route
from tests.interop.test_python_clients import LIMIT


@contextlib.contextmanager
def connect(sshd: Sshd, *, gateway: str | None = None, **arguments: Any) -> Iterator[fabric.Connection]:
    """A connection that knows the host's key. It is opened when it is used, as Fabric does it."""
    login = {key: value for key, value in sshd.paramiko.items() if key not in ("username", "timeout")}
    connection = fabric.Connection(
        "bed",
        user=getpass.getuser(),
        gateway=gateway,
        connect_timeout=LIMIT,
        connect_kwargs={**login, **arguments},
    )
    connection.client.load_host_keys(str(sshd.folder / "known_hosts"))
    try:
        yield connection
    finally:
        transport = connection.transport
        connection.close()
        if transport is not None:
            transport.join(LIMIT)
            if gateway is not None:
                transport.sock.process.communicate(timeout=LIMIT)


def ask(port: int, data: bytes) -> bytes:
    """What comes back from the loopback port, which Fabric opens in a thread of its own, in a moment."""
    for _ in ticks(LIMIT):
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), LIMIT) as sock:
            sock.settimeout(LIMIT)
            sock.sendall(data)
            return read_exactly(sock, len(data))  # not to the end: Fabric passes no half-close on
    raise AssertionError(f"port {port} was not opened")


def test_fabric_runs_copies_and_forwards_with_our_client_as_its_gateway(
    proxy_command: tuple[str, ...], sshd: Sshd, samples: list[Path], tmp_path: Path
) -> None:
    with connect(sshd, gateway=shlex.join(proxy_command)) as connection, Target(echo) as target:
        result = connection.run("echo out; echo err >&2; exit 7", hide=True, warn=True, in_stream=False)
        assert (result.stdout, result.stderr, result.exited) == ("out\n", "err\n", 7)
        result = connection.run(
            "tty && read word && echo got $word", hide=True, pty=True, in_stream=io.StringIO("it\n")
        )
        assert "/dev/pts/" in result.stdout
        assert "got it" in result.stdout

        for sample in samples[:5]:
            far, near = tmp_path / f"far-{sample.name}", tmp_path / f"near-{sample.name}"
            connection.put(str(sample), str(far))
            connection.get(str(far), str(near))
            assert checksum(far.read_bytes()) == checksum(near.read_bytes()) == checksum(sample.read_bytes())

        data = samples[-1].read_bytes()[:300_000]
        for forward in (connection.forward_local, connection.forward_remote):
            port = free_port()
            with forward(port, target.port):
                assert checksum(ask(port, data)) == checksum(data)


def test_fabric_runs_over_a_socket_of_ours(server: Route, sshd: Sshd) -> None:
    sock = tunnel.open_socket(server.bridge.url)
    with connect(sshd, sock=sock) as connection:
        assert connection.run("echo $((6 * 7))", hide=True, in_stream=False).stdout == "42\n"
    assert sock.fileno() == -1
