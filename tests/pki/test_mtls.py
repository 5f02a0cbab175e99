"""TLS that both ends check, with what ``certs`` makes: real ssh, openssl and nginx, and each way to fail."""

from __future__ import annotations

import os
import re
import signal
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bed.nginx import UPGRADE, nginx
from tests.bed.processes import Bed, Finished, ticks
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.conftest import StartBridge
from tests.pki.conftest import PKI, certs, make_pki
from tests.server.clients import assert_echo, dial, open_tunnel


def connect(bed: Bed, url: str, *options: str) -> Finished:
    return bed.run(*OURS, "connect", *options, "--", url, stdin=b"hello")


def localhost(bridge: Bridge) -> str:
    return bridge.url.replace("127.0.0.1", "localhost")


def refusal(finished: Finished, status: int = 77) -> str:
    """The one line of a client that was refused."""
    assert (finished.status, finished.stdout) == (status, b"")
    assert finished.stderr.count("\n") == 1
    return finished.stderr.removeprefix("wstunnel-py: ").strip()


def was_shown(options: Sequence[str]) -> str:
    """The part about the certificate in the line of a refused client."""
    return f"; it was shown {options[1]} (--client-cert)"


# ---- what works


def test_ssh_passes_when_each_end_knows_the_other(bed: Bed, sshd: Sshd, made: PKI) -> None:
    bridge = start_bridge(bed, "ours", sshd.port, *made.serve)
    bridge.process.wait_for_line("auth: client certificate")
    command = (*OURS, "connect", *made.trust, *made.show(), localhost(bridge))
    config = sshd.write_client_config(bed.folder / "ssh_config", command)
    data = os.urandom(300_000)
    assert bed.check("ssh", "-F", str(config), "box", "cat", stdin=data).stdout == data
    assert "warning" not in bridge.process.log()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_every_name_of_the_certificate_is_good(bed: Bed, start: StartBridge, made: PKI, host: str) -> None:
    url = start(*made.serve_alone).url.replace("127.0.0.1", host)
    assert connect(bed, url, *made.trust).stdout == b"hello"


def test_the_key_beside_the_certificate_needs_no_option(bed: Bed, start: StartBridge, made: PKI) -> None:
    words = (*made.trust, "--client-cert", f"{made.folder}/alice.pem")
    assert connect(bed, localhost(start(*made.serve)), *words).stdout == b"hello"


def test_openssl_reaches_the_bridge_and_finds_nothing_wrong(bed: Bed, start: StartBridge, made: PKI) -> None:
    port = start(*made.serve).url.rpartition(":")[2]
    files = ("-CAfile", str(made.ca_file), "-cert", f"{made.folder}/alice.pem", "-key", f"{made.folder}/alice.key")
    words = ("-connect", f"127.0.0.1:{port}", "-verify_hostname", "localhost", "-verify_return_error", "-x509_strict")
    shown = bed.check("openssl", "s_client", *words, *files, stdin=b"").text
    assert "Verify return code: 0 (ok)" in shown


# ---- who is refused


def test_a_client_without_a_certificate_is_refused(bed: Bed, start: StartBridge, made: PKI) -> None:
    bridge = start(*made.serve)
    line = "localhost refused this client: it requires a client certificate; see --client-cert"
    assert refusal(connect(bed, localhost(bridge), *made.trust)) == line
    bridge.process.wait_for_line("refused client=.* error=tls")


def test_a_client_certificate_of_another_authority_is_refused(
    bed: Bed, start: StartBridge, made: PKI, tmp_path: Path
) -> None:
    other = make_pki(bed, tmp_path / "other")
    line = "localhost refused this client: it does not know the CA of the client certificate"
    shown = other.show()
    assert refusal(connect(bed, localhost(start(*made.serve)), *made.trust, *shown)) == line + was_shown(shown)


def test_an_expired_client_certificate_is_refused(bed: Bed, start: StartBridge, made: PKI, old: PKI) -> None:
    bridge = start(*made.serve_alone, "--tls-client-ca", str(old.ca_file))
    line = "localhost refused this client: the client certificate has expired"
    shown = old.show("alice")
    assert refusal(connect(bed, localhost(bridge), *made.trust, *shown)) == line + was_shown(shown)
    assert connect(bed, localhost(bridge), *made.trust, *old.show("bob")).stdout == b"hello"


def test_a_certificate_for_bridges_is_refused_from_a_client(bed: Bed, start: StartBridge, made: PKI) -> None:
    url = localhost(start(*made.serve))
    line = "localhost refused this client: the client certificate is not for clients"
    shown = made.show("localhost")
    assert refusal(connect(bed, url, *made.trust, *shown)) == line + was_shown(shown)


def test_a_certificate_for_clients_is_refused_from_a_bridge(bed: Bed, start: StartBridge, made: PKI) -> None:
    bridge = start("--tls-cert", f"{made.folder}/alice.pem", "--tls-key", f"{made.folder}/alice.key")
    line = refusal(connect(bed, localhost(bridge), *made.trust))
    assert line.startswith("the certificate of localhost is not trusted: unsuitable certificate purpose")


def test_an_expired_bridge_certificate_is_refused(bed: Bed, start: StartBridge, old: PKI) -> None:
    line = "the certificate of localhost is not trusted: certificate has expired"
    assert refusal(connect(bed, localhost(start(*old.serve_alone)), *old.trust)).startswith(
        f"{line}; for details: wstunnel-py doctor "
    )


def test_a_bridge_certificate_of_another_authority_is_refused(
    bed: Bed, start: StartBridge, made: PKI, tmp_path: Path
) -> None:
    other = make_pki(bed, tmp_path / "other")
    line = refusal(connect(bed, localhost(start(*other.serve)), *made.trust, *made.show()))
    assert line.startswith("the certificate of localhost is not trusted: ")


def test_a_bridge_certificate_for_another_name_is_refused(bed: Bed, start: StartBridge, pki: PKI) -> None:
    ca = ("--ca", str(pki.folder))
    assert certs(bed, "server", "box.test", "*.box.test", *ca, "--out", f"{pki.folder}/box").status == 0
    bridge = start("--tls-cert", f"{pki.folder}/box.pem", "--tls-key", f"{pki.folder}/box.key")
    line = refusal(connect(bed, localhost(bridge), *pki.trust))
    assert line.startswith("the certificate of localhost is not trusted: Hostname mismatch")


# ---- an edge in front


def start_nginx(bed: Bed, pki: PKI, bridge: Bridge) -> str:
    """nginx with the server's certificate, which demands one of the same authority; return its URL."""
    folder = bed.folder / "nginx"
    folder.mkdir()

    def command(port: int) -> tuple[str, ...]:
        return nginx(
            folder,
            f"""
            server {{
              listen 127.0.0.1:{port} ssl;
              ssl_certificate {pki.folder}/localhost.pem;
              ssl_certificate_key {pki.folder}/localhost.key;
              ssl_client_certificate {pki.ca_file};
              ssl_verify_client on;
              location / {{
                proxy_pass {bridge.url.replace("ws://", "http://")};
                {UPGRADE}
              }}
            }}
            """,
        )

    return f"wss://localhost:{bed.start_on_free_port(command)[1]}"


def test_nginx_takes_the_same_files(bed: Bed, sshd: Sshd, made: PKI) -> None:
    url = start_nginx(bed, made, start_bridge(bed, "ours", sshd.port))
    command = (*OURS, "connect", *made.trust, *made.show(), url)
    config = sshd.write_client_config(bed.folder / "ssh_config", command)
    assert bed.check("ssh", "-F", str(config), "box", "echo passed").text == "passed\n"
    line = refusal(connect(bed, url, *made.trust), 76)
    assert line.startswith(
        f"{url} answered 400: No required SSL certificate was sent; for details: wstunnel-py doctor "
    )


# ---- renewal


def serial(url: str, pki: PKI) -> int:
    """The serial number of the certificate that a client of ``url`` is shown."""
    context = ssl.create_default_context(cafile=str(pki.ca_file))
    with dial(url) as sock, context.wrap_socket(sock, server_hostname="localhost") as tls:
        shown = tls.getpeercert()
        assert shown
        return int(str(shown["serialNumber"]), 16)


def test_a_renewed_certificate_is_served_after_sighup_and_tunnels_go_on(bed: Bed, start: StartBridge, pki: PKI) -> None:
    bridge = start(*pki.serve_alone)
    before = serial(bridge.url, pki)
    with open_tunnel(bridge.url, tls=ssl.create_default_context(cafile=str(pki.ca_file))) as tunnel:
        assert certs(bed, "renew", pki.folder / "localhost.pem", "--ca", pki.folder).status == 0
        assert serial(bridge.url, pki) == before
        bridge.process.send_signal(signal.SIGHUP)
        bridge.process.wait_for_line("reloaded what=certificates")
        assert serial(bridge.url, pki) != before
        assert_echo(tunnel)


def test_a_renewed_authority_is_good_for_what_it_had_issued(bed: Bed, start: StartBridge, pki: PKI) -> None:
    old_authority = bed.folder / "ca.pem"
    old_authority.write_bytes(pki.ca_file.read_bytes())
    assert certs(bed, "renew", pki.ca_file, "--ca", pki.folder, "--days", 7000).status == 0
    assert pki.ca_file.read_bytes() != old_authority.read_bytes()
    url = localhost(start(*pki.serve))
    for ca_file in (pki.ca_file, old_authority):
        assert connect(bed, url, "--ca-file", str(ca_file), *pki.show()).stdout == b"hello"


# ---- warnings


def test_a_bridge_warns_of_what_has_expired_or_soon_will(bed: Bed, pki: PKI, old: PKI, tmp_path: Path) -> None:
    log = tmp_path / "log"
    files = [pki.folder / "localhost.pem", pki.folder / "localhost.key"]
    for file in files:
        file.write_bytes((old.folder / file.name).read_bytes())
    options = (*pki.serve_alone, "--tls-client-ca", str(old.ca_file), "--log-file", str(log))
    bridge = start_bridge(bed, "ours", 1, *options)
    # More than 24 when the tests take their time.
    expired = re.escape(f"--tls-cert {files[0]}: the certificate of localhost expired ") + r"\d+ hours ago \("
    near = re.escape(f"--tls-client-ca {old.ca_file}: the certificate of old authority expires in 10 days (")
    for line in (expired, near):
        bridge.process.wait_for_line(f"(?m)^wstunnel-py: warning: {line}.*; renew it: wstunnel-py certs renew$")
        wait_for(log, rf'warning message="{line}.*\n')  # another thread writes it
        assert len(re.findall(rf'warning message="{line}', log.read_text())) == 1
    assert (
        certs(bed, "server", "localhost", "--ca", pki.folder, "--out", files[0].with_suffix(""), "--force").status == 0
    )
    bridge.process.send_signal(signal.SIGHUP)
    wait_for(log, rf'warning message="{near}.*\n(.*\n)*.*warning message="{near}')
    assert len(re.findall(expired, log.read_text())) == 1


def wait_for(file: Path, pattern: str) -> None:
    for _ in ticks(20):
        if re.search(pattern, file.read_text()):
            return
    raise AssertionError(f"no {pattern!r} in {file.read_text()}")


def test_doctor_shows_when_the_certificate_of_the_server_expires(
    bed: Bed, sshd: Sshd, made: PKI, tmp_path: Path
) -> None:
    good = start_bridge(bed, "ours", sshd.port, *made.serve_alone)
    shown = bed.check(*OURS, "doctor", *made.trust, localhost(good)).text
    assert re.search(r"✓ tls .* with localhost, its certificate expires in 365 days \(20\d\d-\d\d-\d\d ", shown)
    assert "Renew" not in shown
    ca = ("--ca", str(made.folder))
    assert certs(bed, "server", "localhost", *ca, "--days", 3, "--out", tmp_path / "short").status == 0
    short = start_bridge(
        bed, "ours", sshd.port, "--tls-cert", f"{tmp_path}/short.pem", "--tls-key", f"{tmp_path}/short.key"
    )
    shown = bed.check(*OURS, "doctor", *made.trust, localhost(short)).text
    assert re.search(r"✓ tls .* expires in 3 days \(.*\n +Renew its certificate at the edge or the bridge", shown)


def test_doctor_explains_a_missing_client_certificate(bed: Bed, start: StartBridge, made: PKI) -> None:
    done = bed.run(*OURS, "doctor", *made.trust, localhost(start(*made.serve)))
    assert done.status == 77
    assert re.search(r"✗ tls .* refused this client: it requires a client certificate.*\n +Show a client", done.text)


def test_verbose_output_shows_the_expiry_except_with_insecure(bed: Bed, start: StartBridge, made: PKI) -> None:
    url = localhost(start(*made.serve_alone))
    assert re.search(r"tls: .* certificate expires \w{3} .* GMT\n", connect(bed, url, "-v", *made.trust).stderr)
    assert "expires" not in connect(bed, url, "-v", "--insecure").stderr


def test_a_client_in_an_old_tls_learns_what_is_missing(bed: Bed, made: PKI) -> None:
    """openssl's server, at TLS 1.2, as it tells of a missing certificate by a mere failure of the handshake."""
    files = ("-cert", f"{made.folder}/localhost.pem", "-key", f"{made.folder}/localhost.key")
    words = ("-tls1_2", "-Verify", "1", "-verify_return_error", "-CAfile", str(made.ca_file), "-quiet")
    _, port = bed.start_on_free_port(lambda port: ("openssl", "s_server", "-accept", str(port), *files, *words))
    line = refusal(connect(bed, f"wss://localhost:{port}", *made.trust), 76)
    assert line.endswith("refused the handshake, perhaps because it requires a client certificate; see --client-cert")
