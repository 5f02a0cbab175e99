"""Measures the costs of a tunnel on this machine, with a real bridge, an nginx with TLS and ssh sessions.

Memory is the proportional set size, which counts shared memory once; time is the processes' CPU time.
"""

from __future__ import annotations

import asyncio
import base64
import os
import platform
import ssl
import subprocess
import time
from pathlib import Path

from benchlib.lab import BenchError, Lab
from benchlib.links import pss
from benchlib.machine import processor
from benchlib.peers import PEERS, ours
from simulatelib.fleet import Costs
from tests.bed.processes import descendants, free_port

TUNNELS = 1000
SESSIONS = 20
_AT_ONCE = 20
_LIMIT = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")
_REQUEST = """\
GET / HTTP/1.1\r
Host: bridge\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Version: 13\r
Sec-WebSocket-Key: {key}\r
Sec-WebSocket-Protocol: binary, v1.resume.wstunnel-py\r
\r
"""
_GREETING = b"\x82\x01\n"  # of the target: a binary message of one byte
_ACK = b"\x81\x85\0\0\0\0ack 1"  # that it has arrived, in a text message with a key of zeros


class Group:
    """A process and its descendants."""

    def __init__(self, leader: int) -> None:
        self.pids = [leader, *descendants(leader)]

    def memory(self) -> float:
        """Bytes of the proportional set size."""
        return float(sum(map(pss, self.pids)))

    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids)

    def seconds(self) -> float:
        ticks = 0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS


def measure() -> Costs:
    """Measure everything; takes some ten seconds. Raises BenchError."""
    with Lab(tls=True) as lab:
        port = free_port()
        serve = [*ours(), "serve", "--listen", f"127.0.0.1:{port}", "--target", f"127.0.0.1:{lab.target_port}"]
        bridge_process = lab.start(
            "the bridge", [*serve, "--max-tunnels", str(2 * TUNNELS), "--resume-memory", "100000"], port
        )
        gateway_process, edge = lab.edge(port)
        bridge, gateway = Group(bridge_process.pid), Group(gateway_process.pid)
        context = ssl.create_default_context(cafile=str(lab.authority.ca_file))
        return asyncio.run(_measure(lab, bridge, gateway, edge, context))


async def _measure(lab: Lab, bridge: Group, gateway: Group, port: int, context: ssl.SSLContext) -> Costs:
    opened = await _open(50, port, context)  # the first ones load what is loaded once
    await asyncio.sleep(0.5)
    before = [(group.memory(), group.descriptors(), group.seconds()) for group in (bridge, gateway)]
    opened += await _open(TUNNELS, port, context)
    await asyncio.sleep(0.5)
    after = [(group.memory(), group.descriptors(), group.seconds()) for group in (bridge, gateway)]
    (bridge_memory, bridge_fds, bridge_cpu), (gateway_memory, gateway_fds, gateway_cpu) = (
        [(late - early) / TUNNELS for early, late in zip(*pair, strict=True)]
        for pair in zip(before, after, strict=True)
    )
    for writer in opened:
        writer.transport.abort()
    return Costs(
        machine=f"{os.cpu_count()} cores of {processor()}, Linux, Python {platform.python_version()}",
        bridge_bytes=round(before[0][0] - 50 * bridge_memory),
        bridge_tunnel_bytes=round(bridge_memory),
        bridge_descriptors=round(before[0][1] - 50 * bridge_fds),
        bridge_tunnel_descriptors=round(bridge_fds, 2),
        bridge_dial_seconds=round(bridge_cpu, 6),
        sshd_session_bytes=round(_ssh_sessions(lab)),
        gateway_bytes=round(before[1][0] - 50 * gateway_memory),
        gateway_tunnel_bytes=round(gateway_memory),
        gateway_tunnel_descriptors=round(gateway_fds, 2),
        gateway_dial_seconds=round(gateway_cpu, 6),
    )


async def _open(count: int, port: int, context: ssl.SSLContext) -> list[asyncio.StreamWriter]:
    """Open tunnels as the client does, some at a time, and leave them idle."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one() -> asyncio.StreamWriter:
        async with gate, asyncio.timeout(_LIMIT):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(_REQUEST.format(key=base64.b64encode(os.urandom(16)).decode()).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                raise BenchError(f"the bridge answered {head.splitlines()[0]!r}")
            await reader.readuntil(b"session ")  # it is a session, not a plain tunnel
            await reader.readuntil(_GREETING)
            writer.write(_ACK)
            return writer

    return await asyncio.gather(*(one() for _ in range(count)))


def _ssh_sessions(lab: Lab) -> float:
    """Return the bytes of sshd for each idle session, without the programs that the session runs."""
    lab.open(PEERS["direct"])
    sshd = lab.sshd.process.pid
    alone = Group(sshd).memory()
    clients = [
        subprocess.Popen(
            lab.ssh(PEERS["direct"], "echo ready; exec sleep 60"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=lab.env,
        )
        for _ in range(SESSIONS)
    ]
    try:
        for client in clients:
            assert client.stdout is not None
            if client.stdout.readline() != b"ready\n":
                raise BenchError("ssh: no session")
        time.sleep(0.5)
        group = Group(sshd)
        group.pids = [pid for pid in group.pids if b"sshd" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return (group.memory() - alone) / SESSIONS
    finally:
        for client in clients:
            client.terminate()
            client.communicate(timeout=10)
