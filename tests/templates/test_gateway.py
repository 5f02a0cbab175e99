"""The gateways of templates/gateway, by the real nginx, haproxy and Caddy, in front of three sandboxes."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import subprocess
from pathlib import Path

import pytest

from tests.bed.edges import NameProxy
from tests.bed.processes import Bed, Process, free_port, program, ticks
from tests.bed.targets import Target, checksum
from tests.bed.tunnels import OURS, start_bridge
from tests.pty.beds import start_service
from tests.server.clients import LIMIT, open_tunnel, port_of
from tests.templates.conftest import Sandbox, StartGateway, client
from tests.templates.gateways import DOMAIN, GATEWAYS, Gateway

NOT_FOUND = "there is no such sandbox"
CLOSED = "nothing listens on this port of the sandbox"


# ---- routing


def test_each_name_is_routed_to_its_own_sandbox(bed: Bed, gateway: Gateway, sandboxes: list[Sandbox]) -> None:
    for sandbox in sandboxes:  # ssh checks that the host key is that of this one
        config = sandbox.ssh_config(bed, gateway)
        found = bed.check("ssh", "-F", str(config), sandbox.id, "echo $SSH_CONNECTION").text
        assert found.split()[3] == str(sandbox.sshd.port)


@pytest.mark.parametrize("kind", ["nginx", "haproxy"], indirect=True)  # Caddy has no way to say it
def test_names_are_the_same_in_capitals(gateway: Gateway, sandboxes: list[Sandbox]) -> None:
    assert gateway.ask(f"8081-ONE.{DOMAIN}".upper()).status == 101


NO_SANDBOXES = (
    f"8081-four.{DOMAIN}",
    f"one.{DOMAIN}",
    f"80810-one.{DOMAIN}",
    f"8081-one.{DOMAIN}.evil.test",
    f"8081-one.evil.{DOMAIN}",
    f"evil.8081-one.{DOMAIN}",
    f"8081-one{DOMAIN}",
    f"8081-localhost.{DOMAIN}",
    f"8081-127.0.0.1.{DOMAIN}",
    f"8081--one.{DOMAIN}",
    "8081-one.sandboxXlocalhost",
    "localhost",
    "127.0.0.1",
)


def test_a_name_that_is_no_sandbox_is_not_found(gateway: Gateway) -> None:
    answers = {host: gateway.ask(host) for host in NO_SANDBOXES}
    told = {host: (answer.status, answer.json["message"]) for host, answer in answers.items()}
    assert told == dict.fromkeys(NO_SANDBOXES, (404, NOT_FOUND))
    assert {answer.headers["content-type"] for answer in answers.values()} == {"application/json"}


def test_a_request_without_a_name_is_refused(gateway: Gateway) -> None:
    assert gateway.ask("").status in (400, 404)


def test_a_port_that_is_not_allowed_is_not_found_even_if_it_is_in_the_map(
    start_gateway: StartGateway, sandboxes: list[Sandbox]
) -> None:
    gateway = start_gateway({f"{port}-one": sandboxes[0].address for port in ("22", "8080", "8081")})
    assert [gateway.ask(f"{port}-one.{DOMAIN}").status for port in ("22", "8080", "8081")] == [404, 404, 101]


def test_no_request_reaches_what_is_not_in_the_map(gateway: Gateway) -> None:
    reached = []
    with Target(lambda connection: reached.append(connection.recv(100))) as target:
        place = f"127.0.0.1:{target.port}"
        for line in (f"GET http://{place}/", f"GET //{place}/", f"GET @{place}/", f"CONNECT {place}"):
            for host in (f"8081-one.{DOMAIN}", place, f"8081-one.{DOMAIN}@{place}"):
                head = (f"{line} HTTP/1.1", f"Host: {host}", "Connection: close", "", "")
                assert 400 <= gateway.ask_raw("\r\n".join(head).encode()).status < 500
    assert reached == []


def test_a_second_host_field_changes_nothing(gateway: Gateway) -> None:
    answer = gateway.ask(f"8081-four.{DOMAIN}", f"Host: 8081-one.{DOMAIN}")
    assert answer.status in (400, 404)


def test_a_change_of_the_map_is_in_force_after_a_reload(start_gateway: StartGateway, sandboxes: list[Sandbox]) -> None:
    gateway = start_gateway({"8081-one": sandboxes[0].address})
    gateway.write_map({"8081-two": sandboxes[1].address})
    gateway.reload()
    for _ in ticks(LIMIT):  # haproxy's old process may take a connection or two that came before
        statuses = [gateway.ask(f"8081-{name}.{DOMAIN}").status for name in ("one", "two")]
        if statuses == [404, 101]:
            break
    assert statuses == [404, 101]


# ---- a zone of the DNS instead of the map


def start_dns(bed: Bed) -> tuple[Process, int]:
    """A real name server that knows two sandboxes, and a name outside their zone."""
    records = ("one.sandbox.internal", "asleep.sandbox.internal", "db.internal", "one.evil.test")
    return bed.start_on_free_port(
        lambda port: (
            *(program("dnsmasq"), "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--log-queries"),
            *("--listen-address=127.0.0.1", "--bind-interfaces", f"--port={port}", "--local=/internal/", "--user="),
            *(f"--host-record={name},127.0.0.1" for name in records),
        )
    )


ZONE = {  # what to change for a zone, beside the map: the name server, and what is commented out
    "nginx": {"include resolver*.conf;": "resolver 127.0.0.1:{dns} ipv6=off;"},
    "haproxy": {
        "    # http-request": "    http-request",
        "parse-resolv-conf": "nameserver dns 127.0.0.1:{dns}",
    },
    "caddy": {"versions 1.1": "versions 1.1\n resolvers 127.0.0.1:{dns}"},
}


def test_a_zone_of_the_dns_can_tell_where_sandboxes_are(
    bed: Bed, kind: str, start_gateway: StartGateway, sandboxes: list[Sandbox]
) -> None:
    names, dns = start_dns(bed)
    port = sandboxes[0].address.partition(":")[2]
    changes = {old: new.replace("{dns}", str(dns)) for old, new in ZONE[kind].items()}
    closed = free_port()
    gateway = start_gateway({}, changes={**changes, "8081|49983": f"{port}|{closed}"}, default=GATEWAYS[kind].zone)
    finished = bed.run(*client(gateway, "--port", port), "one", stdin=b"SSH-2.0-x\r\n")
    assert finished.stdout.startswith(b"SSH-2.0-OpenSSH")
    for name, status, message in (("four", 404, NOT_FOUND), ("db", 404, NOT_FOUND), ("db.internal", 404, NOT_FOUND)):
        answer = gateway.ask(f"{port}-{name}.{DOMAIN}")
        assert (answer.status, answer.json["message"]) == (status, message)
    answer = gateway.ask(f"{closed}-asleep.{DOMAIN}")
    assert (answer.status, answer.json["message"]) == (502, CLOSED)
    asked = set(re.findall(r"query\[\w+\] (\S+)", names.log()))
    assert asked == {f"{name}.sandbox.internal" for name in ("one", "four", "db", "asleep")}


# ---- what the client says


def test_an_unknown_sandbox_is_reported_in_one_line(bed: Bed, gateway: Gateway) -> None:
    finished = bed.run(*client(gateway), "four")
    line = f"wstunnel-py: wss://8081-four.{DOMAIN}:{gateway.port} answered 404: {NOT_FOUND}; "
    assert finished.status == 69 and finished.stderr.startswith(line) and finished.stderr.count("\n") == 1


def test_a_closed_port_is_reported_in_one_line(bed: Bed, start_gateway: StartGateway) -> None:
    gateway = start_gateway({"8081-asleep": f"127.0.0.1:{free_port()}"})
    finished = bed.run(*client(gateway), "asleep")
    line = f"wstunnel-py: wss://8081-asleep.{DOMAIN}:{gateway.port} answered 502: {CLOSED}; "
    assert finished.status == 69 and finished.stderr.startswith(line) and finished.stderr.count("\n") == 1


def test_a_sandbox_that_does_not_answer_is_reported_in_one_line(
    bed: Bed, kind: str, start_gateway: StartGateway
) -> None:
    """Its port is open, since a kernel answers for a program that is stopped: until its queue is full."""
    old = {"nginx": "proxy_connect_timeout 5s", "haproxy": "timeout connect 5s", "caddy": "dial_timeout 5s"}[kind]
    with socket.create_server(("127.0.0.1", 0), backlog=0) as stopped:
        port = stopped.getsockname()[1]
        with contextlib.ExitStack() as stack:
            for _ in range(8):  # more than the queue holds
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            gateway = start_gateway({"8081-one": f"127.0.0.1:{port}"}, changes={old: old.replace("5s", "1s")})
            finished = bed.run(*client(gateway), "one")
    assert finished.status in (69, 75)  # 502 or, where it is told apart, 504
    assert finished.stderr.count("\n") == 1
    assert CLOSED in finished.stderr or "the sandbox does not answer" in finished.stderr


def test_what_a_bridge_answers_passes_unchanged(bed: Bed, start_gateway: StartGateway) -> None:
    token = bed.folder / "token"
    token.write_text("secret\n")
    addresses = {
        f"8081-{name}": f"127.0.0.1:{port_of(start_bridge(bed, 'ours', free_port(), *options).url)}"
        for name, options in {"no-sshd": (), "locked": ("--token-file", str(token))}.items()
    }
    gateway = start_gateway(addresses)
    for name, status, code, error in (("no-sshd", 502, 69, "target"), ("locked", 401, 77, "unauthorized")):
        answer = gateway.ask(f"8081-{name}.{DOMAIN}")
        assert (answer.status, answer.headers["wstunnel-error"]) == (status, answer.json["error"])
        assert answer.json["error"].startswith(error)
        finished = bed.run(*client(gateway), name)
        assert finished.status == code
        assert answer.json["message"] in finished.stderr


def test_a_bridge_that_is_full_says_so_itself(
    bed: Bed, kind: str, start_gateway: StartGateway, sandboxes: list[Sandbox]
) -> None:
    """503 is the gateway's own word for closed ports in haproxy, which makes a 502 of it, but not of this one."""
    bridge = start_bridge(bed, "ours", sandboxes[0].sshd.port, "--max-tunnels", "1")
    gateway = start_gateway({"8081-full": f"127.0.0.1:{port_of(bridge.url)}"})
    with open_tunnel(bridge.url) as tunnel:
        tunnel.send(b"SSH-2.0-test\r\n")  # one that sends nothing would be evicted
        for _ in ticks(LIMIT):
            finished = bed.run(*client(gateway), "full")
            if finished.status == 75:
                break
    assert finished.status == 75
    assert "answered 503" in finished.stderr and "--max-tunnels" in finished.stderr


# ---- secure by default


def test_the_bridge_gets_the_clients_address_from_the_gateway_and_not_from_the_client(
    gateway: Gateway, sandboxes: list[Sandbox]
) -> None:
    mark = secrets.token_hex(8)
    gateway.ask(f"8081-two.{DOMAIN}", "X-Forwarded-For: 203.0.113.7", path=f"/{mark}", upgrade=False)
    line = sandboxes[1].bridge.process.wait_for_line(r".* forwarded=\S+")[0]
    assert "forwarded=127.0.0.1" in line and "203.0.113.7" not in sandboxes[1].bridge.process.log()


def test_no_secret_gets_into_the_log(start_gateway: StartGateway, sandboxes: list[Sandbox]) -> None:
    gateway = start_gateway({"8081-one": sandboxes[0].address, "8081-asleep": f"127.0.0.1:{free_port()}"})
    for name in ("one", "asleep", "four"):
        gateway.ask(
            f"8081-{name}.{DOMAIN}",
            *("Authorization: Bearer SECRET-1", "Cookie: a=SECRET-2", "e2b-traffic-access-token: SECRET-3"),
            *("Wstunnel-Resume: id=SECRET-4", "X-Access-Token: SECRET-5"),
            path=f"/path-of-{name}?token=SECRET-6",
        )
    for _ in ticks(LIMIT):  # each is logged by the process that has answered it
        log = gateway.access_log()
        if all(f"path-of-{name}" in log for name in ("asleep", "four")):
            break
    assert all(f"path-of-{name}" in log for name in ("asleep", "four"))
    assert "SECRET" not in log


def test_a_head_that_is_too_long_is_refused(gateway: Gateway) -> None:
    try:
        status = gateway.ask(f"8081-one.{DOMAIN}", *(f"X-{n}: {'x' * 4000}" for n in range(10))).status
    except OSError:
        status = 400  # it hung up before it had read all that
    assert 400 <= status < 500
    assert gateway.ask(f"8081-one.{DOMAIN}").status == 101


def test_connections_speak_http_1_which_websockets_are_made_for(gateway: Gateway) -> None:
    with gateway.connect(alpn=("h2", "http/1.1")) as connection:
        assert connection.selected_alpn_protocol() in (None, "http/1.1")
    with gateway.connect() as connection:
        assert connection.version() == "TLSv1.3"


def test_no_answer_reveals_the_version_of_the_gateway(gateway: Gateway) -> None:
    for name in ("one", "four"):
        assert gateway.ask(f"8081-{name}.{DOMAIN}", upgrade=False).headers.get("server", "nginx") == "nginx"


# ---- terminals


def test_terminals_are_reached_by_their_port(bed: Bed, start_gateway: StartGateway) -> None:
    token = bed.folder / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    service = start_service(bed, "--pty-token-file", str(token), "--pty-host", f"*.{DOMAIN}")
    gateway = start_gateway({"49983-one": f"127.0.0.1:{port_of(service.url)}"})
    url = gateway.url.replace("wss", "https")
    with NameProxy(DOMAIN) as names:
        words = ("--url", url, "--ca-file", str(gateway.certificates.ca_file), "--proxy", names.url)
        options = (
            "--token-file",
            str(token),
            "one",
            "--",
            "/bin/sh",
            "-c",
            "echo begun; sleep 1; echo sum-$((40+2)); exit 7",
        )
        finished = bed.run(*OURS, "shell", *words, *options)
    assert (finished.status, finished.stderr) == (7, "")
    assert b"sum-42" in finished.stdout


# ---- a gateway that is reloaded or breaks while a file is copied


@pytest.mark.parametrize("how", ["reload", "crash"])
@pytest.mark.parametrize(
    "size",
    [20_000_000, pytest.param(200_000_000, marks=[pytest.mark.full, pytest.mark.timeout(600)])],
    ids=lambda size: f"{size // 1_000_000} MB",
)
def test_a_copy_outlives_the_gateway(
    bed: Bed, kind: str, start_gateway: StartGateway, sandboxes: list[Sandbox], size: int, how: str
) -> None:
    """The gateway ends its connections, those of a reload after a second, and is back at once: ssh does not notice."""
    sandbox = sandboxes[0]
    gateway = start_gateway({"8081-one": sandbox.address}, changes=GATEWAYS[kind].short_drain)
    config = sandbox.ssh_config(bed, gateway)
    sample, copy = bed.folder / "sample", bed.folder / "copy"
    sample.write_bytes(secrets.token_bytes(size))
    seen = sandbox.bridge.process.log().count(" resumed ")
    # One of them up, the other down; slow enough to be in the middle of it for as long as a gateway may take.
    near, far = (f"one:{sample}", str(copy)) if how == "crash" else (str(sample), f"one:{copy}")
    scp = bed.start("scp", "-F", str(config), "-q", "-l", str(size * 8 // 1000 // 10), near, far)
    wait_for_size(copy, size // 20, scp)
    gateway.reload() if how == "reload" else gateway.crash()
    for _ in ticks(LIMIT):
        if sandbox.bridge.process.log().count(" resumed ") > seen:
            break
    assert copy.stat().st_size < size and scp.status is None, "the copy was done too soon"
    assert scp.wait(size / 1_000_000 + 30) == 0
    assert scp.err.read_text() == ""
    assert checksum(copy.read_bytes()) == checksum(sample.read_bytes())
    assert sandbox.bridge.process.log().count(" resumed ") > seen


@pytest.mark.parametrize("kind", ["nginx", "haproxy"], indirect=True)  # Debian's Caddy ends tunnels at once
def test_a_reload_leaves_tunnels_of_other_clients_alone_for_an_hour(
    bed: Bed, gateway: Gateway, sandboxes: list[Sandbox]
) -> None:
    sshd = sandboxes[0].sshd
    config = sshd.write_client_config(bed.folder / "ssh_config", (*client(gateway, "--no-resume"), "%h"))
    session = bed.start("ssh", "-F", str(config), "one", "echo before; read word; echo $word", stdin=subprocess.PIPE)
    session.wait_for_line("before")
    gateway.reload()
    assert bed.check("ssh", "-F", str(config), "one", "echo new").text == "new\n"
    session.feed(b"after\n")
    assert session.wait(LIMIT) == 0
    assert session.out.read_text() == "before\nafter\n"


def wait_for_size(path: Path, size: int, writer: Process) -> None:
    for _ in ticks(60):
        if path.exists() and path.stat().st_size >= size:
            return
        assert writer.status is None, writer.log()
    raise AssertionError(f"{path} does not grow")
