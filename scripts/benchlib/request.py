"""How long a client takes until its upgrade request is out: from its start until a listener has the whole request.

What it is compared with is an interpreter that imports what a client cannot do without, from its start to its end.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from contextlib import ExitStack

from benchlib.lab import BenchError, Lab, end_group, last_line
from benchlib.links import OPEN_LIMIT, between_pipes, cpu_seconds
from benchlib.peers import Endpoint, Peer

IMPORTS = "import socket, selectors"


def request(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    """Measure ``peer``'s client; for ``direct``, which has none, the interpreter."""
    return until_request(lab, peer) if peer.client else interpreter(lab)


def interpreter(lab: Lab) -> dict[str, float]:
    command = [lab.python, "-I", "-c", IMPORTS + ", ssl" * lab.tls]
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], command, lab.env)
    _, status, usage = os.wait4(pid, 0)
    took = time.perf_counter() - started
    if status:
        raise BenchError(f"the interpreter: exit status {os.waitstatus_to_exitcode(status)}")
    return {"request": took, "request-cpu": usage.ru_utime + usage.ru_stime}


def until_request(lab: Lab, peer: Peer) -> dict[str, float]:
    """Start a client against a listener of our own, and end it once its request is there.

    With TLS, both halves of the handshake are in it: the listener's takes its share of the time, not of the CPU.
    """
    assert peer.client is not None
    context = lab.server_context() if lab.tls else None
    log = lab.directory / "client.log"
    with ExitStack() as life:
        listener = life.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(OPEN_LIMIT)
        endpoint = Endpoint("wss" if lab.tls else "ws", listener.getsockname()[1], lab.target_port)
        command = peer.client(endpoint)
        started = time.perf_counter()
        client = between_pipes(lab, command, log)
        assert client.stdin is not None and client.stdout is not None
        life.callback(end_group, client)
        life.enter_context(client.stdin)
        life.enter_context(client.stdout)
        try:
            connection = listener.accept()[0]
            connection.settimeout(OPEN_LIMIT)
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            life.enter_context(connection)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    raise BenchError("it hung up before its request was out")
                head += piece
            took = time.perf_counter() - started
            cpu = cpu_seconds(client)
        except (OSError, ssl.SSLError, BenchError) as error:
            raise BenchError(f"{error} (client: {last_line(log.read_text(errors='replace'))})") from error
        client.send_signal(signal.SIGKILL)
        return {"request": took, "request-cpu": cpu}
