"""doctor names the hop that fails, on paths that really fail."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.bed.edges import BufferingEdge
from tests.bed.processes import Bed, Finished, free_port
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, read_to_end
from tests.bed.tunnels import OURS, start_bridge
from tests.client.conftest import read_head
from tests.faults.link import Cut, Link, Plan
from tests.pty.typist import Typist
from tunnel.ssh.speed_test import SECONDS

UNDER_WAY = 32 << 20  # bytes: the window of a session, and the buffers of kernels
FORBIDDEN = b'{"message": "the traffic token is missing"}'


def doctor(bed: Bed, *words: str) -> Finished:
    return bed.run(*OURS, "doctor", *words)


def failure(done: Finished) -> tuple[str, str]:
    """The hop that failed, and the text about it; all hops before it must have succeeded."""
    *good, bad, advice = done.text.splitlines()
    assert all(line.startswith(("✓ ", "! ", " ")) for line in good)
    assert bad.startswith("✗ ") and advice.startswith(" ")
    return bad.split()[1], f"{bad}\n{advice}"


def test_doctor_reports_every_hop_of_a_working_path(bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    done = doctor(bed, bridge.url)
    assert done.status == 0 and done.stderr == ""
    assert [line.split()[:2] for line in done.text.splitlines()] == [
        ["✓", hop] for hop in ("url", "dns", "tcp", "upgrade", "resume", "ssh")
    ]
    assert "SSH-2.0-OpenSSH" in done.text and "survives lost connections" in done.text
    bridge.process.wait_for_line("tunnel client=")


def test_doctor_reports_the_same_as_json(bed: Bed, sshd: Sshd) -> None:
    report = json.loads(doctor(bed, "--json", "--no-resume", start_bridge(bed, "ours", sshd.port).url).stdout)
    assert report["ok"] is True
    hops = {finding["hop"]: finding for finding in report["hops"]}
    assert hops["ssh"]["ok"] and hops["ssh"]["seconds"] > 0
    assert "--no-resume" in hops["resume"]["text"]
    bad = json.loads(doctor(bed, "--json", "ws://127.0.0.1:1").stdout)
    assert bad["ok"] is False and bad["hops"][-1]["hop"] == "tcp" and bad["hops"][-1]["exit_code"] == 69


def test_the_throughput_is_measured_on_request(bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    report = json.loads(doctor(bed, "--json", "--throughput", bridge.url).stdout)
    assert report["ok"] is True
    finding = report["hops"][-1]
    found = re.fullmatch(r"([\d.]+) MB/s down, ([\d.]+) MB/s up, round trip ([\d.]+) ms .*", finding["text"])
    assert finding["hop"] == "throughput" and found and all(float(number) > 0 for number in found.groups())
    # What is shown is what has gone through the tunnel: in 3 s or somewhat more, but for what the doctor has not taken.
    down = bridge.process.wait_for_line(r"target=speed-test bytes_in=7 bytes_out=(\d+) seconds=([\d.]+)")
    up = bridge.process.wait_for_line(r"target=speed-test bytes_in=(\d\d\d+) bytes_out=\d+ seconds=([\d.]+)")
    for match, rate, under_way in ((down, found[1], UNDER_WAY), (up, found[2], 0)):
        moved, seconds = int(match[1]), float(match[2])
        assert (moved - under_way) / (seconds + 1) * 0.95 < float(rate) * 1e6 < moved / SECONDS * 1.05


def test_the_throughput_is_shown_as_it_is_measured(bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    with Typist(*OURS, "doctor", "--throughput", bridge.url) as typist:
        typist.see("download")
        typist.see("upload")
        typist.see("MB/s")
        typist.see("throughput")
        assert typist.wait() == 0


def test_doctor_reports_a_bridge_without_a_speed_test(bed: Bed, sshd: Sshd) -> None:
    done = doctor(bed, "--throughput", start_bridge(bed, "websocat", sshd.port).url)
    hop, said = failure(done)
    assert hop == "throughput" and "no speed test" in said and done.status == 76


def test_doctor_reports_a_speed_test_that_breaks_off(bed: Bed, sshd: Sshd) -> None:
    port = int(start_bridge(bed, "ours", sshd.port).url.rpartition(":")[2])
    # No other connection of the doctor's carries as much as the speed test's, however slow they are.
    with Link(port, plan=lambda _: Plan(Cut(100_000, "down", "rst"), Cut(100_000, "up", "rst"))) as link:
        done = doctor(bed, "--throughput", link.url)
    assert done.status == 69
    assert "✗ throughput" in done.text and "connection lost" in done.text


def test_a_plain_websocat_is_good_enough_and_said_to_be_plain(bed: Bed, sshd: Sshd) -> None:
    done = doctor(bed, start_bridge(bed, "websocat", sshd.port).url)
    assert done.status == 0 and "a plain tunnel" in done.text and "SSH-2.0" in done.text
    assert re.search(r"^! resume .* a plain tunnel\n +It ends when its connection is lost\.", done.text, re.MULTILINE)


def test_doctor_marks_a_tunnel_for_which_no_session_was_requested(bed: Bed, sshd: Sshd) -> None:
    done = doctor(bed, "--no-resume", start_bridge(bed, "ours", sshd.port).url)
    assert done.status == 0 and re.search(r"^! resume .* not requested \(--no-resume\)$", done.text, re.MULTILINE)


def test_doctor_blames_the_name_lookup_for_an_unknown_name(bed: Bed) -> None:
    done = doctor(bed, "wss://no-such-name.invalid")
    assert failure(done)[0] == "dns" and done.status == 69


def test_doctor_blames_tcp_for_a_closed_port(bed: Bed) -> None:
    done = doctor(bed, f"ws://127.0.0.1:{free_port()}")
    hop, said = failure(done)
    assert hop == "tcp" and "nothing is listening there" in said and "wstunnel-py serve" in said and done.status == 69


def test_doctor_suggests_ws_for_a_server_without_tls(bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    done = doctor(bed, bridge.url.replace("ws://", "wss://"))
    hop, said = failure(done)
    assert hop == "tls" and "ws://" in said and done.status == 76


def test_doctor_blames_tls_for_an_expired_certificate(bed: Bed, sshd: Sshd, tmp_path: Path) -> None:
    authority = trustme.CA()
    expired = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf = authority.issue_cert("127.0.0.1", not_after=expired)
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "leaf.pem")
    bridge = start_bridge(bed, "ours", sshd.port, "--tls-cert", str(tmp_path / "leaf.pem"))
    done = doctor(bed, "--ca-file", str(tmp_path / "ca.pem"), bridge.url)
    hop, said = failure(done)
    assert hop == "tls" and "expired" in said and done.status == 77


def test_a_certificate_that_is_not_checked_is_said_to_be_so(bed: Bed, sshd: Sshd, tmp_path: Path) -> None:
    trustme.CA().issue_cert("other.test").private_key_and_cert_chain_pem.write_to_path(tmp_path / "leaf.pem")
    bridge = start_bridge(bed, "ours", sshd.port, "--tls-cert", str(tmp_path / "leaf.pem"))
    done = doctor(bed, "--insecure", bridge.url)
    assert done.status == 0
    assert re.search(r"^! tls .*, whose certificate was not checked \(--insecure\)\n +Anyone", done.text, re.MULTILINE)
    hops = json.loads(doctor(bed, "--json", "--insecure", bridge.url).stdout)["hops"]
    assert [hop["code"] for hop in hops if hop["hop"] == "tls"] == ["insecure"]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_certificate_for_another_name_is_not_reported_as_untrusted(
    bed: Bed, sshd: Sshd, tmp_path: Path, trusted: bool
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("other.test").private_key_and_cert_chain_pem.write_to_path(tmp_path / "leaf.pem")
    bridge = start_bridge(bed, "ours", sshd.port, "--tls-cert", str(tmp_path / "leaf.pem"))
    done = doctor(bed, *(("--ca-file", str(tmp_path / "ca.pem")) if trusted else ()), bridge.url)
    hop, said = failure(done)
    assert hop == "tls" and done.status == 77
    assert ("Use a name that the certificate has" in said) == trusted
    assert ("--ca-file" in said) != trusted


# ---- proxies


def test_a_proxy_that_is_not_there_is_blamed_and_not_the_bridge(bed: Bed) -> None:
    place = f"http://127.0.0.1:{free_port()}"
    option = doctor(bed, "--proxy", place, "wss://box.test")
    environment = bed.run(*OURS, "doctor", "wss://box.test", env={"https_proxy": place})
    for done, name in ((option, "--proxy"), (environment, "https_proxy")):
        hop, said = failure(done)
        assert hop == "proxy" and done.status == 69
        assert f"cannot connect to proxy {place}: " in said and "The bridge was not tried." in said
        assert f"The proxy comes from {name}; --proxy none connects without one." in said
        assert "wstunnel-py serve" not in said


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("403 Forbidden", "does not allow this name or port"),
        ("502 Bad Gateway", "cannot reach that name or port"),
        ("407 Proxy Authentication Required", "user and password"),
    ],
)
def test_doctor_blames_the_proxy_for_its_refusals(bed: Bed, status: str, advice: str) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    with Target(refuse) as target:
        hop, said = failure(doctor(bed, "--proxy", f"http://127.0.0.1:{target.port}", "wss://box.test"))
    assert hop == "proxy" and advice in said


def test_doctor_blames_a_silent_proxy(bed: Bed) -> None:
    with Target(read_to_end) as target:
        words = ("--connect-timeout", "1", "--proxy", f"http://127.0.0.1:{target.port}")
        hop, said = failure(doctor(bed, *words, "wss://box.test"))
    assert hop == "proxy" and "The bridge was not tried." in said


# ---- credentials


def test_doctor_says_whether_the_token_is_missing_or_wrong(bed: Bed, sshd: Sshd, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for file, token in ((theirs, "open-sesame"), (ours, "a-wrong-one")):
        file.write_text(token)
        file.chmod(0o600)
    url = start_bridge(bed, "ours", sshd.port, "--token-file", str(theirs)).url
    for words, advice in (
        ([], "The bridge requires a token: --token-file FILE."),
        (["--token-file", str(ours)], f"It received the token in {ours} (--token-file)."),
    ):
        done = doctor(bed, *words, url)
        hop, said = failure(done)
        assert hop == "upgrade" and done.status == 77
        assert said.endswith(f" {advice}") and "wrong-one" not in said


def test_doctor_names_a_port_that_is_missing_and_a_target_that_is_down(bed: Bed) -> None:
    _, said = failure(doctor(bed, "ws://127.0.0.1"))
    assert said.endswith(" The URL has no port, so 80 was tried; serve listens on 8081 by default.")
    hop, said = failure(doctor(bed, start_bridge(bed, "ours", 1).url))
    assert hop == "upgrade"
    assert said.endswith(" Start the SSH server there, or give the bridge another target: serve --target.")
    assert "sandbox" not in said


def test_doctor_suggests_the_host_that_was_meant(bed: Bed, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[hosts.build]\nurl = "ws://127.0.0.1:1"\n')
    _, said = failure(doctor(bed, "--config", str(config), "--url", "ws://{host}.invalid", "buidl"))
    assert said.endswith(f" Did you mean build, a host of {config}?")


@pytest.mark.parametrize("option", ["--ca-file", "--client-cert"])
def test_a_file_that_tls_cannot_use_fails_at_tls_and_not_at_the_url(bed: Bed, tmp_path: Path, option: str) -> None:
    key = tmp_path / "ca.key"
    trustme.CA().private_key_pem.write_to_path(key)
    done = doctor(bed, option, str(key), "wss://127.0.0.1:1")
    *good, bad = done.text.splitlines()
    assert [line.split()[:2] for line in good] == [["✓", "url"]] and bad.split()[:2] == ["✗", "tls"]
    assert bad.endswith(f"{option}: cannot use {key}: it contains no PEM certificate")


def test_doctor_reports_an_edge_that_requires_a_traffic_token(bed: Bed) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        head = f"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {len(FORBIDDEN)}\r\n\r\n"
        connection.sendall(head.encode() + FORBIDDEN)

    with Target(refuse) as target:
        done = doctor(bed, f"ws://127.0.0.1:{target.port}")
    hop, said = failure(done)
    assert hop == "upgrade" and "the traffic token is missing" in said and "e2b-traffic-access-token" in said
    assert done.status == 77


def test_doctor_reports_a_bridge_whose_target_refuses(bed: Bed) -> None:
    port = free_port()
    done = doctor(bed, start_bridge(bed, "ours", port).url)
    hop, said = failure(done)
    assert hop == "upgrade" and f"127.0.0.1:{port} refused" in said and done.status == 69


def say_and_end(said: bytes) -> Callable[[socket.socket], None]:
    """A server that says something and ends; what comes is read, as closing with unread data would be a reset."""

    def script(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            read_to_end(connection)

    return script


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n", b""])
def test_doctor_reports_a_target_that_is_not_an_ssh_server(bed: Bed, greeting: bytes) -> None:
    with Target(say_and_end(greeting)) as target:
        done = doctor(bed, start_bridge(bed, "ours", target.port).url)
    hop, said = failure(done)
    assert hop == "ssh" and "no SSH server" in said and done.status == 69


@pytest.mark.parametrize("bridge_of", ["ours", "websocat"])
@pytest.mark.parametrize("way", ["both", "down", "up"])
def test_an_edge_that_buffers_is_blamed_and_not_sshd(bed: Bed, sshd: Sshd, bridge_of: str, way: str) -> None:
    bridge = start_bridge(bed, bridge_of, sshd.port)
    port = int(bridge.url.rpartition(":")[2])
    with BufferingEdge(port, up=way != "down", down=way != "up") as edge:
        done = doctor(bed, edge.url)
    hop, said = failure(done)
    assert hop == "ssh" and done.status == 69
    assert "an edge buffers: it holds messages back until about" in said
    assert "sshd is not the cause" in said and "is sshd running" not in said


def test_an_edge_that_buffers_much_is_blamed_too(bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    with BufferingEdge(int(bridge.url.rpartition(":")[2]), size=64 << 10) as edge:
        hop, said = failure(doctor(bed, edge.url))
    assert hop == "ssh" and "an edge buffers" in said and "128 KiB" in said


def test_a_silent_server_is_not_taken_for_an_edge_that_buffers(bed: Bed) -> None:
    with Target(read_to_end) as target:
        done = doctor(bed, start_bridge(bed, "ours", target.port).url)
    hop, said = failure(done)
    assert hop == "ssh" and "no SSH server answers: nothing was received" in said


def test_a_server_that_sends_only_its_banner_counts_as_an_ssh_server(bed: Bed) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-slow\r\n")
        read_to_end(connection)

    with Target(greet) as target:
        done = doctor(bed, start_bridge(bed, "ours", target.port).url)
    assert done.status == 0 and "SSH-2.0-slow" in done.text


def test_doctor_reports_a_server_that_never_answers(bed: Bed) -> None:
    with Target(read_to_end) as target:
        done = doctor(bed, "--connect-timeout", "1", f"ws://127.0.0.1:{target.port}")
    assert failure(done)[0] == "upgrade" and done.status == 75


def test_doctor_reports_a_bad_option_and_a_missing_host(bed: Bed) -> None:
    done = doctor(bed, "--token-file", "/no/such/file", "wss://box.example")
    assert done.text.startswith("✗ url") and done.status == 2
    assert doctor(bed).stderr == "wstunnel-py: HOST is missing; usage: wstunnel-py doctor [OPTIONS] HOST\n"


# ---- what may be a secret


HIDDEN = b"sec-websocket-protocol"


def copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def hide_the_subprotocol(bridge_port: int) -> Callable[[socket.socket], None]:
    """An edge that passes everything on but the name of the subprotocol that the bridge has chosen."""

    def script(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", bridge_port)) as bridge:
            bridge.sendall(read_head(client))
            head = read_head(bridge).split(b"\r\n")
            client.sendall(b"\r\n".join(line for line in head if not line.lower().startswith(HIDDEN)))
            back = threading.Thread(target=copy, args=(client, bridge))
            back.start()
            copy(bridge, client)
            back.join(20)

    return script


def test_a_session_that_an_edge_hides_is_used_and_its_secrets_stay(bed: Bed, sshd: Sshd, tmp_path: Path) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    log = tmp_path / "log"
    with Target(hide_the_subprotocol(int(bridge.url.rpartition(":")[2]))) as edge:
        url = f"ws://127.0.0.1:{edge.port}"
        done = [
            doctor(bed, url),
            doctor(bed, "--json", url),
            bed.run(*OURS, "connect", "-v", "--log-file", str(log), url, stdin=b""),
            bed.run(*OURS, "websocat", "-v", "-b", "-", url, stdin=b""),
        ]
    for each in done:
        shown = each.text + each.stderr
        assert each.status == 0
        assert not re.search(r"[0-9a-f]{32}|id=|key=", shown), shown
    assert not re.search(r"[0-9a-f]{32}", log.read_text())
    assert "survives lost connections, although" in done[0].text and "SSH-2.0" in done[0].text
    assert all(each.stdout.startswith(b"SSH-2.0-") for each in done[2:])


KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "said",
    [
        f"session id={KEY[:32]} key={KEY} window=16777216 retain=3600",
        f"hello\tsession id={KEY[:32]} key={KEY}",
        f"x {KEY}",
        f"token={KEY[:20]}",
        "x" * 200,
    ],
)
def test_only_the_beginning_of_an_invalid_banner_is_shown(bed: Bed, said: str) -> None:
    with Target(say_and_end(said.encode() + b"\r\n")) as target:
        for words in (["--no-resume"], [], ["--json"]):
            done = doctor(bed, *words, start_bridge(bed, "websocat", target.port).url)
            assert done.status == 69 and ("answers: it sent " in done.text or "--no-resume" in done.text)
            assert KEY[:20] not in done.text and "x" * 30 not in done.text


def test_a_banner_that_drips_is_not_waited_for_to_its_end(bed: Bed) -> None:
    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for _ in range(60):
                connection.sendall(b"x")
                time.sleep(1)

    with Target(drip) as target:
        began = time.monotonic()
        done = doctor(bed, start_bridge(bed, "ours", target.port).url)
        assert failure(done)[0] == "ssh" and time.monotonic() - began < 40
