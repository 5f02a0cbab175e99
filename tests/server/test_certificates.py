"""TLS at the bridge: real certificates, their renewal, client certificates, and files that cannot be used."""

from __future__ import annotations

import datetime
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS, Bridge
from tests.conftest import StartBridge
from tests.server.clients import LIMIT, UPGRADE, assert_echo, dial, open_tunnel, read_answer, request_head


class Issuer:
    """A CA, and the files of a certificate that it issued for ``localhost``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.cert = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.renew()

    def renew(self) -> bytes:
        """Put a new certificate and key into the files; return the certificate."""
        leaf = self.authority.issue_cert("localhost", not_after=datetime.datetime(2100, 1, 1))
        leaf.cert_chain_pems[0].write_to_path(self.cert)
        leaf.private_key_pem.write_to_path(self.key)
        return ssl.PEM_cert_to_DER_cert(self.cert.read_text())

    @property
    def options(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.cert), "--tls-key", str(self.key))

    def client(self, version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
        """A client context that trusts the CA."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.maximum_version = version
        return context


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "issuer")


def served_certificate(bridge: Bridge, issuer: Issuer) -> bytes | None:
    with dial(bridge.url) as sock, issuer.client().wrap_socket(sock, server_hostname="localhost") as tls:
        return tls.getpeercert(binary_form=True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_tunnel_through_tls_carries_everything(start: StartBridge, issuer: Issuer, version: ssl.TLSVersion) -> None:
    bridge = start(*issuer.options)
    assert bridge.url.startswith("wss://")
    with open_tunnel(bridge.url, tls=issuer.client(version)) as tunnel:
        assert tunnel.socket.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]  # type: ignore[attr-defined]
        for size in (1, 16384, 16385, 1_000_000):
            assert_echo(tunnel, b"x" * size)


def test_the_key_may_stand_in_the_file_of_the_certificate(start: StartBridge, issuer: Issuer) -> None:
    issuer.cert.write_text(issuer.key.read_text() + issuer.cert.read_text())
    with open_tunnel(start("--tls-cert", str(issuer.cert)).url, tls=issuer.client()) as tunnel:
        assert_echo(tunnel)


def test_refusals_and_health_come_through_tls_whole(start: StartBridge, issuer: Issuer) -> None:
    bridge = start(*issuer.options)
    for head, status in (
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (request_head(headers=UPGRADE | {"Origin": "https://evil.test"}), 403),
    ):
        # Without suppress_ragged_eofs a TLS stream that ends without a close_notify is an error.
        with (
            dial(bridge.url) as sock,
            issuer.client().wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False) as tls,
        ):
            tls.sendall(head)
            answer = read_answer(tls)
            assert answer.status == status
            assert int(answer.headers["content-length"]) == len(answer.body)


def test_a_client_that_speaks_no_tls_is_hung_up_on_and_logged(start: StartBridge, issuer: Issuer) -> None:
    bridge = start(*issuer.options)
    with dial(bridge.url) as sock:
        sock.sendall(request_head())
        sock.settimeout(LIMIT)
        assert not sock.recv(100).startswith(b"HTTP")
    bridge.process.wait_for_line("refused client=.* error=tls message=HTTP_REQUEST")


def test_old_tls_is_refused(start: StartBridge, issuer: Issuer) -> None:
    bridge = start(*issuer.options)
    with dial(bridge.url) as sock:
        # A ClientHello of TLS 1.1, written by hand, because current ssl libraries refuse to send one.
        hello = b"\x03\x02" + b"r" * 32 + b"\0" + b"\x00\x02\xc0\x13" + b"\x01\0"
        message = b"\x01" + len(hello).to_bytes(3) + hello
        sock.sendall(b"\x16\x03\x01" + len(message).to_bytes(2) + message)
        assert sock.recv(100)[:1] == b"\x15", "an alert"
    bridge.process.wait_for_line("refused client=.* error=tls message=(UNSUPPORTED_PROTOCOL|NO_SHARED_CIPHER)")


def test_a_client_that_stalls_in_the_tls_handshake_is_given_up(start: StartBridge, issuer: Issuer) -> None:
    bridge = start(*issuer.options, "--handshake-timeout", "0.5")
    with dial(bridge.url) as sock:
        sock.sendall(b"\x16\x03\x01")
        assert sock.recv(100) == b""
    bridge.process.wait_for_line("refused client=.* status=408 error=timeout")


# ---- renewal


def test_a_renewed_certificate_is_served_after_sighup(start: StartBridge, issuer: Issuer) -> None:
    bridge = start(*issuer.options)
    before = served_certificate(bridge, issuer)
    with open_tunnel(bridge.url, tls=issuer.client()) as tunnel:
        renewed = issuer.renew()
        bridge.process.send_signal(signal.SIGHUP)
        bridge.process.wait_for_line("reloaded what=certificates")
        assert served_certificate(bridge, issuer) == renewed != before
        assert_echo(tunnel)


def test_a_renewal_that_cannot_be_used_keeps_the_old_certificate(start: StartBridge, issuer: Issuer) -> None:
    bridge = start(*issuer.options)
    before = served_certificate(bridge, issuer)
    old_key = issuer.key.read_text()
    issuer.renew()
    issuer.key.write_text(old_key)
    bridge.process.send_signal(signal.SIGHUP)
    bridge.process.wait_for_line("reload-failed what=certificates .*belongs to another certificate")
    assert served_certificate(bridge, issuer) == before


# --- Client certificates


def with_certificate(context: ssl.SSLContext, authority: trustme.CA, folder: Path) -> ssl.SSLContext:
    leaf = authority.issue_cert("client@sandbox.test")
    path = folder / "client.pem"
    leaf.private_key_and_cert_chain_pem.write_to_path(path)
    context.load_cert_chain(path)
    return context


def test_a_client_certificate_of_the_authority_opens_a_tunnel(
    start: StartBridge, issuer: Issuer, tmp_path: Path
) -> None:
    clients = Issuer(tmp_path / "clients")
    bridge = start(*issuer.options, "--tls-client-ca", str(clients.ca_file))
    bridge.process.wait_for_line("auth: client certificate")
    tls = with_certificate(issuer.client(), clients.authority, tmp_path)
    with open_tunnel(bridge.url, tls=tls) as tunnel:
        assert_echo(tunnel)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("certificate", "alert"), [("none", "HANDSHAKE_FAILURE|CERTIFICATE_REQUIRED"), ("foreign", "UNKNOWN_CA")]
)
def test_a_client_without_one_is_told_by_an_alert(
    start: StartBridge, issuer: Issuer, tmp_path: Path, version: ssl.TLSVersion, certificate: str, alert: str
) -> None:
    clients = Issuer(tmp_path / "clients")
    bridge = start(*issuer.options, "--tls-client-ca", str(clients.ca_file))
    tls = issuer.client(version)
    if certificate == "foreign":
        with_certificate(tls, trustme.CA(), tmp_path)
    with (
        dial(bridge.url) as sock,
        pytest.raises(ssl.SSLError, match=alert),
        tls.wrap_socket(sock, server_hostname="localhost") as connection,
    ):
        # In TLS 1.3 the client finishes before the server checks its certificate, and may send more.
        connection.sendall(request_head())
        connection.recv(100)
    bridge.process.wait_for_line("refused client=.* error=tls")


# --- Files that cannot be used


def wrong_pair(issuer: Issuer) -> tuple[str, ...]:
    old_key = issuer.key.read_text()
    issuer.renew()
    issuer.key.write_text(old_key)
    return issuer.options


def encrypted_key(issuer: Issuer) -> tuple[str, ...]:
    openssl = shutil.which("openssl")
    assert openssl
    plain = issuer.key.with_suffix(".plain")
    issuer.key.rename(plain)
    subprocess.run(
        [openssl, "pkey", "-in", plain, "-out", issuer.key, "-aes256", "-passout", "pass:secret"],
        check=True,
        timeout=60,
    )
    return issuer.options


def no_certificate(issuer: Issuer) -> tuple[str, ...]:
    issuer.cert.write_text("nothing")
    return issuer.options


def missing_certificate(issuer: Issuer) -> tuple[str, ...]:
    issuer.cert.unlink()
    return issuer.options


def missing_key(issuer: Issuer) -> tuple[str, ...]:
    issuer.key.unlink()
    return issuer.options


def empty_client_ca(issuer: Issuer) -> tuple[str, ...]:
    issuer.ca_file.write_text("nothing")
    return (*issuer.options, "--tls-client-ca", str(issuer.ca_file))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (wrong_pair, "--tls-cert: cannot use {cert}: the key (--tls-key) belongs to another certificate"),
        (
            encrypted_key,
            "--tls-cert: cannot use {cert}: the key is encrypted; decrypt it with: openssl pkey -in KEY -out FILE",
        ),
        (
            no_certificate,
            "--tls-cert: cannot use {cert}: it is not a PEM certificate, its key is missing, or one of them is damaged",
        ),
        (missing_certificate, "--tls-cert: cannot use {cert}: No such file or directory"),
        (missing_key, "--tls-key: cannot use {key}: No such file or directory"),
        (empty_client_ca, "--tls-client-ca: cannot use {ca}: it contains no PEM certificate"),
    ],
)
def test_files_that_cannot_be_used_stop_the_start(
    bed: Bed, issuer: Issuer, spoil: Callable[[Issuer], tuple[str, ...]], line: str
) -> None:
    finished = bed.run(*OURS, "serve", "--listen", "127.0.0.1:0", *spoil(issuer), seconds=20)
    assert finished.status == 2
    expected = line.format(cert=issuer.cert, key=issuer.key, ca=issuer.ca_file)
    assert finished.stderr.startswith(f"wstunnel-py: {expected}") and finished.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--tls-key", "--tls-client-ca"])
def test_a_key_without_a_certificate_stops_the_start(bed: Bed, issuer: Issuer, option: str) -> None:
    finished = bed.run(*OURS, "serve", "--listen", "127.0.0.1:0", option, str(issuer.key), seconds=20)
    assert finished.status == 2
    assert finished.stderr == "wstunnel-py: --tls-key and --tls-client-ca need --tls-cert\n"


def test_a_client_that_resets_in_the_tls_handshake_disturbs_no_other(start: StartBridge, issuer: Issuer) -> None:
    bridge = start(*issuer.options)
    for _ in range(20):
        sock = dial(bridge.url)
        sock.sendall(b"\x16\x03\x01\x02\x00")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    with open_tunnel(bridge.url, tls=issuer.client()) as tunnel:
        assert_echo(tunnel)


def test_without_a_descriptor_for_the_look_at_certificates_the_bridge_goes_on(bed: Bed, issuer: Issuer) -> None:
    """What reads them is loaded late, and a module is a file to be opened."""
    program = """
import errno, os, sys
class Opener:
    def find_spec(self, name, path=None, target=None):
        if name == "tunnel.pki.inspection":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
sys.meta_path.insert(0, Opener())
from tunnel.cli.main import main
sys.exit(main())
"""
    words = ("serve", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1", *issuer.options)
    process = bed.start(sys.executable, "-c", program, *words)
    url = process.wait_for_line(r"ready on (wss://[^\s,]+)")[1]
    process.wait_for_line("expiry dates of certificates cannot be checked: Too many open files")
    assert served_certificate(Bridge(url, process), issuer) is not None
