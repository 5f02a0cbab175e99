"""A small cloud that answers as E2B's OpenAPI description (e2b-dev/E2B, spec/openapi.yml) says: API and edge.

E2B's own SDKs pass against it (`test_sdk`), so its answers can be trusted. Faults are put into `Cloud.faults`.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.bed.processes import Bed
from tests.bed.tunnels import Bridge, start_bridge
from tests.provider.edge import Edge
from tests.provider.machines import BRIDGE, KILLED, PAUSED, PAUSING, RUNNING, Clockwork, Machine

KEY = "e2b_" + "0123456789abcdef0123" * 2
ENVD_VERSION = "0.6.13"
Answer = tuple[int, Any]


@dataclass(frozen=True)
class Request:
    """What was asked: method, path with query, JSON; ``headers`` in lower case."""

    method: str
    path: str
    body: Any
    headers: dict[str, str] = field(repr=False)


@dataclass
class Fault:
    """What happens to requests whose method and path ``match``, ``times`` times: first ``delay`` seconds pass.

    Then ``raw`` is sent in the place of an answer, or ``status`` with ``body`` (JSON, or bytes as they are); with
    neither the request is answered as ever.
    """

    match: str = ""
    status: int = 0
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    raw: bytes | None = None
    times: float = float("inf")


class Cloud:
    """API and edge; ``domain`` is what the edge's names are below, with its port. Leaving the block ends all."""

    def __init__(self, bed: Bed, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self._bed = bed
        self._target_port = target_port
        self.machines: dict[str, Machine] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.errors: list[str] = []  # mistakes of this server itself
        self.keys = {KEY}
        self._common: Bridge | None = None
        self.longest = 86400.0  # seconds that a sandbox may live
        self.wake_seconds = 0.0  # that a sandbox takes to wake
        self.lock = threading.RLock()
        self.edge = Edge(self.machines.get, lambda machine: machine.resume(300), tls)
        self.domain = (
            f"cloud.localhost:{self.edge.port}"  # as its certificate has it; a wildcard needs two labels behind it
        )
        self._server = _Server(self, tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._clockwork = Clockwork(self.machines, self.lock)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clockwork.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for machine in self.machines.values():
            machine.kill()
        self.edge.close()
        assert self.errors == [] or error is not None, self.errors

    def environment(self, key: str = KEY) -> dict[str, str]:
        """The variables by which E2B's SDKs and ours find this cloud."""
        return {"E2B_API_KEY": key, "E2B_API_URL": self.url, "E2B_DOMAIN": self.domain}

    def create(self, *, real: bool = False, template: str = "ssh-ready", **request: Any) -> Machine:
        """Make a sandbox; ``request`` are the fields of NewSandbox.

        One that is not ``real`` has its bridge in common with others: it takes no connections while it does not run.
        """
        machine = Machine(template, {"timeout": 300, **request}, longest=self.longest)
        if real:
            machine.boot(self._bed, self._target_port, self.domain)
        else:
            machine.ports = {BRIDGE: self._common_port()}
        machine.begin(float(request.get("timeout", 300)))
        with self.lock:
            self.machines[machine.id] = machine
        return machine

    def _common_port(self) -> int:
        with self.lock:
            if self._common is None:
                self._common = start_bridge(self._bed, "ours", self._target_port)
            return int(self._common.url.rpartition(":")[2])

    def asked(self, pattern: str) -> list[Request]:
        """The requests so far whose method and path ``pattern`` finds."""
        return [each for each in self.requests if re.search(pattern, f"{each.method} {each.path}")]

    # ---- what the API does

    def fault(self, request: Request) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.match, f"{request.method} {request.path}"):
                    fault.times -= 1
                    return fault
        return None

    def answer(self, request: Request) -> tuple[int, Any, dict[str, str]]:
        if request.headers.get("x-api-key") not in self.keys:
            return 401, _error(401, "Unauthorized, please check your credentials."), {}
        parts = urlsplit(request.path)
        if re.fullmatch(r"(/v\d)?/sandboxes", parts.path):
            if request.method == "GET":
                return self._list(parse_qs(parts.query))
            machine = self.create(real=True, template=request.body["templateID"], **_without_template(request.body))
            return 201, self._described(machine), {}
        found = re.fullmatch(r"(?:/v\d)?/sandboxes/([^/]+)(?:/(\w+))?", parts.path)
        if found is None:
            return 404, _error(404, "no such path"), {}
        machine_or_none = self.machines.get(found[1].partition("-")[0])
        if machine_or_none is None or machine_or_none.state == KILLED:
            text = f"Sandbox \"{found[1]}\" doesn't exist or you don't have access to it"
            return 404, _error(404, text), {}
        return *self._act(request, machine_or_none, found[2]), {}

    def _act(self, request: Request, machine: Machine, action: str | None) -> Answer:
        match request.method, action:
            case "GET", None:
                return 200, self._detailed(machine)
            case "DELETE", None:
                with self.lock:
                    machine.kill()
                return 204, None
            case "POST", "pause":
                if machine.state != RUNNING:
                    return 409, _error(409, f"Error pausing sandbox - sandbox '{machine.id}' is already paused")
                with self.lock:
                    machine.pause()
                return 204, None
            case "POST", "timeout":
                if machine.state != RUNNING:
                    return 404, _error(404, f"Sandbox \"{machine.id}\" doesn't exist or you don't have access to it")
                machine.extend(request.body["timeout"], shorter=True)
                return 204, None
            case "POST", "connect":
                return self._connect(machine, request.body)
        return 405, _error(405, "no such action")

    def _connect(self, machine: Machine, body: Any) -> Answer:
        if not isinstance(body, dict) or not isinstance(body.get("timeout"), int) or body["timeout"] < 0:
            return 400, _error(400, "Error when parsing request: timeout")
        if body["timeout"] > self.longest:
            return 400, _error(400, f"Timeout cannot be greater than {self.longest / 3600:.0f} hours")
        if machine.state == PAUSING:
            return 409, _error(409, f'Sandbox "{machine.id}" is being paused')
        if machine.state == PAUSED:
            time.sleep(self.wake_seconds)
            with self.lock:
                machine.longest = self.longest
                machine.resume(body["timeout"])
            return 201, self._described(machine)
        with self.lock:
            if not machine.extend(body["timeout"]):
                return 400, _error(400, "Max instance length exceeded")
        return 200, self._described(machine)

    def _list(self, query: dict[str, list[str]]) -> tuple[int, Any, dict[str, str]]:
        states = query.get("state", ["running"])[0].split(",")
        machines = [each for each in self.machines.values() if each.state in states]
        machines.sort(key=lambda each: each.started, reverse=True)
        begin, limit = int(query.get("nextToken", ["0"])[0]), int(query.get("limit", ["100"])[0])
        page = machines[begin : begin + limit]
        headers = {"X-Next-Token": str(begin + limit)} if begin + limit < len(machines) else {}
        return 200, [self._detailed(each, listed=True) for each in page], headers

    def _described(self, machine: Machine) -> dict[str, Any]:
        described = {
            "templateID": machine.template,
            "alias": machine.template,
            "sandboxID": machine.id,
            "clientID": "6532622b",
            "envdVersion": ENVD_VERSION,
            "envdAccessToken": machine.envd_token,
            "domain": self.domain,
        }
        return {**described, "trafficAccessToken": machine.traffic_token if machine.is_private else None}

    def _detailed(self, machine: Machine, *, listed: bool = False) -> dict[str, Any]:
        details = self._described(machine)
        del details["trafficAccessToken"]
        if listed:
            del details["envdAccessToken"], details["domain"]
        more = {"cpuCount": 2, "memoryMB": 512, "diskSizeMB": 1024, "metadata": machine.metadata}
        state = PAUSED if machine.state == PAUSING else machine.state
        return {**details, **more, "startedAt": _date(machine.started), "endAt": _date(machine.ends), "state": state}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cloud: Cloud, tls: ssl.SSLContext | None) -> None:
        self.cloud = cloud
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # a client has hung up
            self.cloud.errors.append(repr(error))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _answer(self) -> None:
        cloud = self.server.cloud
        data = self._read_body()
        fields = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, json.loads(data) if data else None, fields)
        cloud.requests.append(request)
        fault = cloud.fault(request)
        if fault is not None:
            time.sleep(fault.delay)
            if fault.raw is not None:
                self.wfile.write(fault.raw)
                self.close_connection = True
                return
        if fault is not None and fault.status:
            status, body, headers = fault.status, fault.body, fault.headers
        else:
            status, body, headers = cloud.answer(request)
        text = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response_only(status)
        self.send_header("Date", formatdate(usegmt=True))
        if status != 204:
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text if status != 204 else b"")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    do_GET = do_POST = do_DELETE = _answer  # the names that http.server looks for

    def log_message(self, *_: object) -> None:
        pass


def _error(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "message": message}


def _without_template(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "templateID"}


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
