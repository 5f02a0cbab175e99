"""The gateways of templates/gateway, started from the very files that people deploy.

Only what must differ on a machine that runs tests is replaced: port, domain, paths, users. The domain is one below
``localhost``, which leads to loopback without a name server.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import trustme

from tests.bed.processes import Bed, Process, descendants, free_port, program, ticks, wait_for_port
from tests.pty.beds import alive
from tests.server.clients import LIMIT, Answer

TEMPLATES = Path(__file__).parents[2] / "templates"
DOMAIN = "sandbox.localhost"


class Certificates:
    """A throw-away authority, and a certificate for every sandbox of `DOMAIN`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        authority = trustme.CA()
        leaf = authority.issue_cert(f"*.{DOMAIN}")
        self.ca_file = folder / "ca.pem"
        self.chain, self.key, self.both = (folder / name for name in ("fullchain.pem", "privkey.pem", "sandboxes.pem"))
        authority.cert_pem.write_to_path(self.ca_file)
        leaf.private_key_pem.write_to_path(self.key)
        leaf.private_key_and_cert_chain_pem.write_to_path(self.both)
        self.chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))


class Gateway(ABC):
    """One gateway on a free port of loopback.

    ``changes`` are replacements in the template's main file beside those that any test needs. ``upstreams`` has the
    address (``127.0.0.1:4711``) of each port of a sandbox (``8081-one``); ``settings`` are lines for the map's end.
    """

    source: Path  # the template's main file
    routes = "{service} {address}"  # a line of sandboxes.map
    ready = ""  # a line of its log that says it can be told things, where the open port does not
    zone: str  # the line there that lets the DNS tell
    short_drain: ClassVar[Mapping[str, str]]  # what makes a reload end old tunnels soon

    def __init__(
        self,
        bed: Bed,
        folder: Path,
        certificates: Certificates,
        upstreams: Mapping[str, str],
        *,
        changes: Mapping[str, str] | None = None,
        default: str = "",
    ) -> None:
        self.bed = bed
        self.folder = folder
        self.certificates = certificates
        self.port = free_port()
        self.config = folder / self.source.name
        shutil.copytree(self.source.parent, folder, dirs_exist_ok=True)
        (folder / "tls").mkdir()
        for path in (certificates.chain, certificates.key, certificates.both):
            shutil.copy(path, folder / "tls")
        text = self.source.read_text()
        for old, new in {**self.replacements(), **(changes or {})}.items():
            assert old in text, f"{self.source} has no {old!r} any more"
            text = text.replace(old, new)
        self.config.write_text(text)
        self.write_map(upstreams, default)
        self.process = self._start()

    @property
    def url(self) -> str:
        """The template for the client's ``--url``."""
        return f"wss://{{port}}-{{host}}.{DOMAIN}:{self.port}"

    @property
    def map(self) -> Path:
        return self.folder / "sandboxes.map"

    def write_map(self, upstreams: Mapping[str, str], default: str = "") -> None:
        lines = [self.routes.format(service=service, address=address) for service, address in upstreams.items()]
        if default:
            assert default in self.map.read_text(), f"the template does not show {default!r}"
            lines.append(default)
        self.map.write_text("\n".join(lines) + "\n")

    @abstractmethod
    def replacements(self) -> dict[str, str]:
        """What is replaced in the main file."""

    @abstractmethod
    def command(self) -> tuple[str, ...]:
        """How the gateway is started in the foreground."""

    @abstractmethod
    def reload(self) -> None:
        """Let the gateway read its files again, as `systemctl reload` does; return when the new ones are in force."""

    def crash(self) -> None:
        """Kill it with all that it started, and start it again."""
        family = [self.process.pid, *descendants(self.process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):  # it has gone with its parent
                os.kill(pid, signal.SIGKILL)
        self.process.wait(LIMIT)
        for _ in ticks(LIMIT):  # until the port is free
            if not any(map(alive, family)):
                break
        self.process = self._start()

    def ask(self, host: str, *lines: str, path: str = "/", upgrade: bool = True) -> Answer:
        """Send one request for ``host``, with more header ``lines``, and return the answer."""
        head = [f"GET {path} HTTP/1.1", f"Host: {host}", *lines]
        if upgrade:
            head += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
            head += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        else:
            head += ["Connection: close"]
        return self.ask_raw("\r\n".join([*head, "", ""]).encode())

    def ask_raw(self, data: bytes) -> Answer:
        """Send ``data`` as it is. The TLS certificate is checked for a sandbox's name, whatever is asked for."""
        with self.connect() as connection:
            connection.sendall(data)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def connect(self, alpn: tuple[str, ...] = ()) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.certificates.ca_file))
        if alpn:
            context.set_alpn_protocols(alpn)
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)
        return context.wrap_socket(sock, server_hostname=f"8081-one.{DOMAIN}")

    def _start(self) -> Process:
        process = self.bed.start(*self.command(), env={"HOME": str(self.folder), **self.environment()})
        wait_for_port(self.port, process)
        if self.ready:
            process.wait_for_line(self.ready)
        return process

    def environment(self) -> dict[str, str]:
        return {}

    def access_log(self) -> str:
        """What the gateway has written about requests, and about failures."""
        return self.process.log()


class Nginx(Gateway):
    source = TEMPLATES / "gateway/nginx/nginx.conf"
    routes = "{service} {address};"
    short_drain: ClassVar[Mapping[str, str]] = {"worker_shutdown_timeout 1h": "worker_shutdown_timeout 1s"}
    zone = "default $id.sandbox.internal:$port;"

    def replacements(self) -> dict[str, str]:
        temporary = "".join(
            f"{module}_temp_path {self.folder}/{module};" for module in ("fastcgi", "uwsgi", "scgi", "proxy")
        )
        return {
            "user www-data;": "user www-data;" if os.geteuid() == 0 else "",
            "/run/nginx.pid": f"{self.folder}/pid",
            "/var/log/nginx/": f"{self.folder}/",
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            r"sandbox\.example\.com": DOMAIN.replace(".", r"\."),
            "http {\n": f"http {{ client_body_temp_path {self.folder}/body; {temporary}\n",
        }

    def command(self) -> tuple[str, ...]:
        return (program("nginx"), "-p", str(self.folder), "-e", "stderr", "-c", str(self.config), "-g", "daemon off;")

    def reload(self) -> None:
        old = set(descendants(self.process.pid))
        self.process.send_signal(signal.SIGHUP)
        for _ in ticks(LIMIT):
            if set(descendants(self.process.pid)) - old:
                return
        raise AssertionError("nginx has no new workers")

    def access_log(self) -> str:
        return "".join((self.folder / name).read_text() for name in ("access.log", "error.log")) + self.process.log()


class Haproxy(Gateway):
    source = TEMPLATES / "gateway/haproxy/haproxy.cfg"
    short_drain: ClassVar[Mapping[str, str]] = {"hard-stop-after 1h": "hard-stop-after 1s"}
    zone = ""
    ready = "Loading success"

    def replacements(self) -> dict[str, str]:
        root = os.geteuid() == 0
        return {
            "    user haproxy\n": "    user haproxy\n" if root else "",
            "    group haproxy\n": "    group haproxy\n" if root else "",
            "/run/haproxy/admin.sock": f"{self.folder}/admin.sock",
            "bind :443": f"bind 127.0.0.1:{self.port}",
            r"sandbox\.example\.com": DOMAIN.replace(".", r"\."),
        }

    def command(self) -> tuple[str, ...]:
        return (program("haproxy"), "-W", "-db", "-f", str(self.config))

    def reload(self) -> None:
        old = self.process.log().count(self.ready)
        for _ in range(10):
            self.process.send_signal(signal.SIGUSR2)  # which 2.6 does not hear in the moment after it has started
            for _ in ticks(2):
                if self.process.log().count(self.ready) > old:
                    return
        raise AssertionError("haproxy has not loaded its files again")


class Caddy(Gateway):
    source = TEMPLATES / "gateway/caddy/Caddyfile"
    short_drain: ClassVar[Mapping[str, str]] = {
        "stream_close_delay 1h": "stream_close_delay 1s"
    }  # 2.6 waits for nothing
    zone = "default {re.service.3}.sandbox.internal:{re.service.2}"

    def replacements(self) -> dict[str, str]:
        return {
            "/var/lib/caddy/admin.sock": f"{self.folder}/admin.sock",
            "/etc/caddy/tls/": f"{self.folder}/tls/",
            ":443 {\n": f":{self.port} {{\n\tbind 127.0.0.1\n",
            r"sandbox\.example\.com": DOMAIN.replace(".", r"\."),
            "default_sni sandbox.example.com": f"default_sni {DOMAIN}",
        }

    def command(self) -> tuple[str, ...]:
        return (program("caddy"), "run", "--config", str(self.config))

    def environment(self) -> dict[str, str]:
        adapted = self.bed.run(program("caddy"), "adapt", "--config", str(self.config))
        return {"STREAMS": ""} if "stream_close_delay" in adapted.stderr else {}  # before Caddy 2.7

    def reload(self) -> None:
        self.bed.check(program("caddy"), "reload", "--force", "--config", str(self.config), env=self.environment())


GATEWAYS: dict[str, type[Nginx | Haproxy | Caddy]] = {"nginx": Nginx, "haproxy": Haproxy, "caddy": Caddy}
