"""Edges and proxies between a laptop and a sandbox: nginx and haproxy that route by Host over TLS, and CONNECT proxies.

The edges route ``8081-<id>.sandbox.test`` to the bridge of that sandbox, as E2B's edge does with its own domain. No
resolver knows that name here, so `NameProxy`, a CONNECT proxy of a few lines, stands in for the DNS: it takes every
name below ``sandbox.test`` for 127.0.0.1. All else is the real programs.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.bed.nginx import UPGRADE, nginx
from tests.bed.processes import Bed, Process, program
from tests.bed.targets import LIMIT, Target

DOMAIN = "sandbox.test"
NOT_FOUND = "The sandbox was not found"


@dataclass(frozen=True)
class Edge:
    """A running edge. ``url`` is the template for the client's ``--url``, ``ca_file`` what its certificate hangs on."""

    url: str
    ca_file: Path
    process: Process


class Authority:
    """A certificate authority for the edges of a test, with one certificate for all their names."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ca_file = folder / "ca.pem"
        self.certificate = folder / "certificate.pem"  # with the key in it, as haproxy wants it
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        leaf = authority.issue_cert(f"*.{DOMAIN}", "127.0.0.1")
        leaf.private_key_and_cert_chain_pem.write_to_path(self.certificate)


def start_nginx(bed: Bed, authority: Authority, bridges: Mapping[str, int]) -> Edge:
    """``bridges``: the port of each sandbox's bridge by the sandbox's id."""
    folder = bed.folder / "nginx"
    folder.mkdir()
    routes = "\n".join(f"{name} 127.0.0.1:{port};" for name, port in bridges.items())

    def command(port: int) -> tuple[str, ...]:
        return nginx(
            folder,
            f"""
            map $sandbox $bridge {{
              {routes}
              default "";
            }}
            server {{
              listen 127.0.0.1:{port} ssl;
              server_name ~^8081-(?<sandbox>[a-z0-9-]+)\\.{DOMAIN}$;
              ssl_certificate {authority.certificate};
              ssl_certificate_key {authority.certificate};
              location / {{
                default_type application/json;
                if ($bridge = "") {{
                  return 502 '{{"sandboxId":"$sandbox","message":"{NOT_FOUND}","code":502}}';
                }}
                proxy_pass http://$bridge;
                {UPGRADE}
              }}
            }}
            """,
        )

    process, port = bed.start_on_free_port(command)
    return Edge(_template(port), authority.ca_file, process)


def start_haproxy(bed: Bed, authority: Authority, bridges: Mapping[str, int]) -> Edge:
    """``bridges``: the port of each sandbox's bridge by the sandbox's id."""
    routes = "\n".join(f"use_backend {name} if {{ var(txn.sandbox) -m str {name} }}" for name in bridges)
    backends = "\n".join(f"backend {name}\n server bridge 127.0.0.1:{port}" for name, port in bridges.items())
    found = " ".join(bridges)
    body = f'{{\\"sandboxId\\":\\"%[var(txn.sandbox)]\\",\\"message\\":\\"{NOT_FOUND}\\",\\"code\\":502}}'

    def command(port: int) -> tuple[str, ...]:
        config = bed.folder / "haproxy.cfg"
        config.write_text(
            f"""\
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend edge
  bind 127.0.0.1:{port} ssl crt {authority.certificate}
  http-request set-var(txn.sandbox) req.hdr(host),field(1,:),regsub(^8081-,),regsub(\\.{DOMAIN}$,)
  acl known var(txn.sandbox) -m str {found}
  http-request return status 502 content-type application/json lf-string "{body}" unless known
  {routes}
{backends}
"""
        )
        return (program("haproxy"), "-db", "-f", str(config))

    process, port = bed.start_on_free_port(command)
    return Edge(_template(port), authority.ca_file, process)


EDGES = {"nginx": start_nginx, "haproxy": start_haproxy}


def _template(port: int) -> str:
    return f"wss://{{port}}-{{host}}.{DOMAIN}:{port}"


def start_tinyproxy(bed: Bed, names: NameProxy) -> str:
    """Start a real CONNECT proxy, which asks ``names`` for the sandboxes; return its URL."""

    def command(port: int) -> tuple[str, ...]:
        config = bed.folder / "tinyproxy.conf"
        config.write_text(
            f"""\
            Port {port}
            Listen 127.0.0.1
            Timeout 600
            MaxClients 100
            LogLevel Connect
            Upstream http 127.0.0.1:{names.port} ".{DOMAIN}"
            """
        )
        return (program("tinyproxy"), "-d", "-c", str(config))

    _, port = bed.start_on_free_port(command)
    return f"http://127.0.0.1:{port}"


def start_microsocks(bed: Bed) -> str:
    """Start a real SOCKS5 proxy; return its URL."""
    _, port = bed.start_on_free_port(lambda port: (program("microsocks"), "-i", "127.0.0.1", "-p", str(port)))
    return f"socks5h://127.0.0.1:{port}"


class NameProxy(Target):
    """A CONNECT proxy in the place of the DNS: names below ``domain`` are 127.0.0.1."""

    def __init__(self, domain: str = DOMAIN) -> None:
        super().__init__(self._connect)
        self._domain = domain

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _connect(self, client: socket.socket) -> None:
        with client.makefile("rb", buffering=0) as head:  # unbuffered: what follows the head is not ours to read
            request = head.readline(1000).decode()
            while head.readline(1000).strip():
                pass
        if not request:
            return  # somebody only looked whether the port is open
        method, authority, _ = request.split()
        name, _, port = authority.rpartition(":")
        if method != "CONNECT" or not name.endswith(f".{self._domain}"):
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", int(port)), timeout=LIMIT) as edge:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(edge, client))
            back.start()
            _copy(client, edge)
            back.join(LIMIT)


class StartingEdge(Target):
    """An edge whose sandbox is not up: it answers each request with the next of ``statuses``, the last one for ever.

    Once ``bridge``, a port, is set, and all statuses were seen, it passes connections on.
    """

    def __init__(self, *statuses: str, headers: str = "") -> None:
        super().__init__(self._connect)
        self._statuses = list(statuses)
        self._headers = headers
        self.bridge: int | None = None
        self.answers = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def _connect(self, client: socket.socket) -> None:
        if self.bridge is None or self.answers < len(self._statuses):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                data = client.recv(65536)
                if not data:
                    return  # it hung up in the middle of its request
                head += data
            status = self._statuses[min(self.answers, len(self._statuses) - 1)]
            self.answers += 1
            client.sendall(f"HTTP/1.1 {status}\r\n{self._headers}Content-Length: 0\r\n\r\n".encode())
            return
        with socket.create_connection(("127.0.0.1", self.bridge), timeout=LIMIT) as bridge:
            back = threading.Thread(target=_copy, args=(bridge, client))
            back.start()
            _copy(client, bridge)
            back.join(LIMIT)


class BufferingEdge(Target):
    """An edge before the bridge at ``bridge`` that lets heads pass, and then only whole blocks of ``size`` bytes."""

    def __init__(self, bridge: int, *, up: bool = True, down: bool = True, size: int = 4096) -> None:
        super().__init__(self._connect)
        self._bridge = bridge
        self._up, self._down = (size if up else 1), (size if down else 1)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def _connect(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._bridge), timeout=LIMIT) as bridge:
            back = threading.Thread(target=_copy_blocks, args=(bridge, client, self._down))
            back.start()
            _copy_blocks(client, bridge, self._up)
            back.join(LIMIT)


def _copy_blocks(source: socket.socket, sink: socket.socket, size: int) -> None:
    held = b""
    with contextlib.suppress(OSError):
        while not held.endswith(b"\r\n\r\n") and (byte := source.recv(1)):
            held += byte
        sink.sendall(held)
        held = b""
        for chunk in iter(lambda: source.recv(1 << 16), b""):
            held += chunk
            whole = len(held) // size * size
            sink.sendall(held[:whole])
            held = held[whole:]
        sink.sendall(held)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):  # either end may break: then the other's end is all there is to tell
        for chunk in iter(lambda: source.recv(1 << 16), b""):
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
