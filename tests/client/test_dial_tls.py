"""Dialling with TLS: whom the client trusts, what it shows of itself, and the one line for each failure."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bed.processes import Bed, free_port
from tests.bed.targets import reset
from tests.client.conftest import (
    Failure,
    Script,
    Serve,
    answer,
    failure_of,
    open_tunnel,
    over_tls,
    upgrade,
    wait_for_end,
)
from tests.client.test_settings import settings_of


def test_a_tunnel_opens_over_tls(serve: Serve, server_tls: ssl.SSLContext, ca_file: str) -> None:
    bridge = serve(over_tls(server_tls, lambda connection: upgrade(connection, behind=b"\x82\x03ssh")))
    channel = open_tunnel("--ca-file", ca_file, f"wss://127.0.0.1:{bridge.port}").channel
    space = memoryview(bytearray(100))
    deadline = time.monotonic() + 10
    while (n := channel.receive_into(space)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert n is not None
    assert bytes(space[:n]) == b"\x82\x03ssh"
    channel.close()


def test_the_server_learns_the_name_and_that_http_1_is_meant(authority: trustme.CA, serve: Serve, ca_file: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    seen: list[str | None] = []
    context.sni_callback = lambda tls, name, _: seen.append(name)

    def script(connection: socket.socket) -> str | None:
        assert isinstance(connection, ssl.SSLSocket)
        upgrade(connection)
        return connection.selected_alpn_protocol()

    bridge = serve(over_tls(context, script))
    open_tunnel("-4", "--ca-file", ca_file, f"wss://localhost:{bridge.port}").channel.close()
    assert bridge.result() == "http/1.1"
    assert seen == ["localhost"]


def test_a_final_dot_and_a_zone_are_no_part_of_the_name_in_a_certificate(
    authority: trustme.CA, serve: Serve, ca_file: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "::1").configure_cert(context)
    seen: list[str | None] = []
    context.sni_callback = lambda tls, name, _: seen.append(name)
    bridge = serve(over_tls(context, upgrade))
    open_tunnel("-4", "--ca-file", ca_file, f"wss://localhost.:{bridge.port}").channel.close()
    request = bridge.result()
    assert request.headers["Host"] == f"localhost.:{bridge.port}"  # type: ignore[attr-defined]
    assert seen == ["localhost"]

    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:

        def run() -> None:
            with listener.accept()[0] as connection:
                over_tls(context, upgrade)(connection)

        thread = threading.Thread(target=run)
        thread.start()
        open_tunnel("--ca-file", ca_file, f"wss://[::1%251]:{listener.getsockname()[1]}").channel.close()
        thread.join()
    assert seen == ["localhost", None]


class CorporateAuthority:
    """An authority as companies have them: its basicConstraints are not critical, and there are no key identifiers."""

    def __init__(self, folder: Path) -> None:
        self.ca_file, self.server_file = folder / "corporate.pem", folder / "server.pem"
        key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        own, leaf = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("Corp", "leaf"))
        ca = _builder(own, own, key).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        certificate = _builder(leaf, own, leaf_key).add_extension(names, critical=False).sign(key, hashes.SHA256())
        self.ca_file.write_bytes(ca.sign(key, hashes.SHA256()).public_bytes(PEM))
        secret = leaf_key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.server_file.write_bytes(secret + certificate.public_bytes(PEM))

    def server_tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file)
        return context


PEM = serialization.Encoding.PEM


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )


@pytest.fixture
def corporate(tmp_path: Path) -> CorporateAuthority:
    return CorporateAuthority(tmp_path)


def test_a_corporate_authority_is_taken_though_pythons_default_is_stricter(
    corporate: CorporateAuthority, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, make = [], ssl.create_default_context

    def strict(**words: Any) -> ssl.SSLContext:  # as Python 3.13 does it
        context = make(**words)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        made.append(context)
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    url = f"wss://127.0.0.1:{serve(over_tls(corporate.server_tls(), upgrade)).port}"
    open_tunnel("--ca-file", str(corporate.ca_file), url).channel.close()
    assert not made[0].verify_flags & ssl.VERIFY_X509_STRICT
    assert made[0].verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert made[0].check_hostname and made[0].verify_mode == ssl.CERT_REQUIRED


def newer_python() -> str:
    """A Python whose default context is strict, 3.13 or later, if this machine has one."""
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # not that of the tests
    found = [str(path) for path in home.glob(".pyenv/versions/3.1[3-9]*/bin/python3")]
    found += [path for minor in range(13, 20) if (path := shutil.which(f"python3.{minor}"))]
    for python in found:
        checked = subprocess.run(
            [python, "-c", "import sys, ssl; print(sys.version_info >= (3, 13))"], capture_output=True
        )
        if checked.stdout == b"True\n":
            return python
    pytest.skip("there is no Python 3.13 or later")


def test_a_newer_python_takes_a_corporate_authority_too(corporate: CorporateAuthority, serve: Serve, bed: Bed) -> None:
    url = f"wss://127.0.0.1:{serve(over_tls(corporate.server_tls(), answer('HTTP/1.1 418 Teapot'))).port}"
    command = "import sys; from tunnel.cli.main import main; sys.exit(main())"
    finished = bed.run(newer_python(), "-c", command, "connect", "--ca-file", str(corporate.ca_file), url, stdin=b"")
    assert finished.stderr.startswith(f"wstunnel-py: {url} answered 418: Teapot; ")


def test_an_intermediate_authority_is_enough(serve: Serve, authority: trustme.CA, tmp_path: Path) -> None:
    intermediate = authority.create_child_ca()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    intermediate.issue_cert("127.0.0.1").configure_cert(context)
    intermediate.cert_pem.write_to_path(tmp_path / "intermediate.pem")
    url = f"wss://127.0.0.1:{serve(over_tls(context, upgrade)).port}"
    open_tunnel("--ca-file", str(tmp_path / "intermediate.pem"), url).channel.close()


def test_a_broken_certificate_in_windows_store_does_not_spoil_the_others(
    serve: Serve, authority: trustme.CA, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())
    server_auth = ssl.Purpose.SERVER_AUTH.oid
    store = {
        "CA": [(ca, "x509_asn", {ssl.Purpose.CLIENT_AUTH.oid}), (ca, "pkcs_7_asn", True)],
        "ROOT": [(b"0", "x509_asn", True), (ca, "x509_asn", {server_auth}), (ca[:-1], "x509_asn", {server_auth})],
    }

    def as_on_windows(**_: object) -> ssl.SSLContext:
        raise ssl.SSLError(58, "[ASN1: NOT_ENOUGH_DATA] not enough data")

    monkeypatch.setattr(ssl, "create_default_context", as_on_windows)
    monkeypatch.setattr(ssl, "enum_certificates", store.__getitem__, raising=False)
    open_tunnel(f"wss://127.0.0.1:{serve(over_tls(server_tls, upgrade)).port}").channel.close()
    del store["ROOT"][1]
    line = "the certificate of 127.0.0.1 is not trusted: unable to get local issuer certificate"
    assert failure_of(f"wss://127.0.0.1:{serve(over_tls(server_tls, upgrade)).port}") == Failure(line, 77)


def test_a_key_log_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, ca_file: str) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", "/nonexistent/keys")
    line = "SSLKEYLOGFILE: cannot use /nonexistent/keys: No such file or directory"
    for words in ((), ("--ca-file", ca_file)):
        assert failure_of(*words, f"wss://127.0.0.1:{free_port()}") == Failure(line, 2)


def test_a_certificate_of_an_unknown_authority_is_refused(serve: Serve, server_tls: ssl.SSLContext) -> None:
    url = f"wss://127.0.0.1:{serve(over_tls(server_tls, upgrade)).port}"
    line = "the certificate of 127.0.0.1 is not trusted: unable to get local issuer certificate"
    assert failure_of(url) == Failure(line, 77)


def test_an_unknown_authority_is_accepted_on_demand(serve: Serve, server_tls: ssl.SSLContext) -> None:
    open_tunnel("--insecure", f"wss://127.0.0.1:{serve(over_tls(server_tls, upgrade)).port}").channel.close()


@pytest.mark.parametrize(
    ("name", "not_after", "reason"),
    [
        ("other.test", None, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ("127.0.0.1", "2020-01-01", "certificate has expired"),
    ],
)
def test_an_expired_certificate_or_one_for_another_name_is_refused(
    authority: trustme.CA, serve: Serve, ca_file: str, name: str, not_after: str | None, reason: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    expiry = datetime.fromisoformat(not_after) if not_after else None
    authority.issue_cert(name, not_after=expiry).configure_cert(context)
    url = f"wss://127.0.0.1:{serve(over_tls(context, upgrade)).port}"
    line = f"the certificate of 127.0.0.1 is not trusted: {reason}"
    assert failure_of("--ca-file", ca_file, url) == Failure(line, 77)


def test_a_server_without_tls_is_reported(serve: Serve) -> None:
    def shout(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        wait_for_end(connection)

    url = f"wss://127.0.0.1:{serve(shout).port}"
    line = "TLS with 127.0.0.1 failed: the server does not use TLS on that port; a URL without TLS begins with ws://"
    assert failure_of(url) == Failure(line, 76)


def test_a_server_that_is_silent_in_the_tls_handshake_times_out(serve: Serve) -> None:
    url = f"wss://127.0.0.1:{serve(wait_for_end).port}"
    assert failure_of(url, limit=0.5) == Failure("TLS with 127.0.0.1 did not answer within 0.5 s", 75)


@pytest.mark.parametrize("ending", [socket.socket.close, reset], ids=["close", "reset"])
def test_a_server_that_hangs_up_in_the_tls_handshake_is_reported(serve: Serve, ending: Script) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        ending(connection)

    url = f"wss://127.0.0.1:{serve(script).port}"
    assert failure_of(url) == Failure("TLS with 127.0.0.1 closed the connection before it answered", 69)


@pytest.fixture
def client_files(authority: trustme.CA, tmp_path: Path) -> tuple[str, str]:
    """A client's certificate and its key."""
    leaf = authority.issue_cert("client.test")
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(key)
    return str(certificate), str(key)


@pytest.fixture
def strict_url(authority: trustme.CA, serve: Serve) -> Iterator[str]:
    """A server that wants a certificate of its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    yield f"wss://127.0.0.1:{serve(over_tls(context, upgrade)).port}"


def test_a_clients_certificate_is_shown(strict_url: str, ca_file: str, client_files: tuple[str, str]) -> None:
    certificate, key = client_files
    words = ("--ca-file", ca_file, "--client-cert", certificate, "--client-key", key)
    open_tunnel(*words, strict_url).channel.close()


def test_a_clients_key_is_found_beside_its_certificate(
    strict_url: str, ca_file: str, client_files: tuple[str, str], tmp_path: Path
) -> None:
    certificate, key = (Path(path).read_text() for path in client_files)
    alone, beside = tmp_path / "alice.pem", tmp_path / "alice.key"
    alone.write_text(certificate)
    words = ("--ca-file", ca_file, "--client-cert", str(alone))
    line = f"--client-cert: cannot use {alone}: it contains no key, and there is no {beside}; see "
    failure = failure_of(*words, strict_url)
    assert failure.line.startswith(line) and failure.code == 2
    beside.write_text("no key")
    failure = failure_of(*words, strict_url)
    assert failure == Failure(f"--client-key: cannot use {beside}: it contains no PEM key", 2)
    beside.unlink()
    beside.mkdir()
    assert failure_of(*words, strict_url) == Failure(f"--client-key: cannot use {beside}: Is a directory", 2)
    beside.rmdir()
    beside.write_text(key)
    beside.chmod(0o640)
    assert settings_of(*words, strict_url).warnings == [f"other users can read the key in {beside}: chmod 600 it"]
    open_tunnel(*words, strict_url).channel.close()
    # What is in the file itself goes first.
    beside.write_text("no key")
    alone.write_text(certificate + key)
    open_tunnel(*words, strict_url).channel.close()


def test_a_key_that_is_another_certificates_is_named(
    tmp_path: Path, client_files: tuple[str, str], authority: trustme.CA
) -> None:
    certificate, _ = client_files
    other = tmp_path / "other.key"
    authority.issue_cert("other.test").private_key_pem.write_to_path(str(other))
    failure = failure_of("--client-cert", certificate, "--client-key", str(other), "wss://127.0.0.1:1")
    reason = f"the key in {other} does not belong to this certificate"
    assert failure == Failure(f"--client-cert: cannot use {certificate}: {reason}", 2)


def test_a_server_that_wants_a_client_certificate_is_reported(strict_url: str, ca_file: str) -> None:
    failure = failure_of("--ca-file", ca_file, strict_url)
    assert failure == Failure("127.0.0.1 refused this client: it requires a client certificate; see --client-cert", 77)


@pytest.mark.parametrize(
    ("alert", "reason"),
    [
        (42, "it requires a client certificate, or a different one; see --client-cert"),
        (43, "the client certificate is not for clients"),
        (44, "the client certificate was revoked"),
        (45, "the client certificate has expired"),
        (46, "it does not accept the client certificate"),
        (48, "it does not know the CA of the client certificate"),
        (49, "the client certificate does not grant access"),
        (116, "it requires a client certificate; see --client-cert"),
    ],
)
def test_a_refused_client_certificate_is_reported_with_the_reason(serve: Serve, alert: int, reason: str) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\x15\x03\x03\x00\x02\x02" + bytes([alert]))  # a fatal alert, RFC 8446 section 6.2
        wait_for_end(connection)

    url = f"wss://127.0.0.1:{serve(script).port}"
    assert failure_of(url) == Failure(f"127.0.0.1 refused this client: {reason}", 77)


@pytest.mark.parametrize("option", ["--ca-file", "--client-cert"])
def test_missing_and_invalid_certificate_files_are_reported(tmp_path: Path, option: str) -> None:
    path = tmp_path / "x.pem"
    url = "wss://127.0.0.1:1"  # nothing is dialled
    line = f"{option}: cannot use {path}: No such file or directory"
    assert failure_of(option, str(path), url) == Failure(line, 2)
    path.write_text("no certificate")
    failure = failure_of(option, str(path), url)
    assert failure.line.startswith(f"{option}: cannot use {path}: ")
    assert failure.line.endswith("it contains no PEM certificate")
    assert failure.code == 2


def test_files_that_cannot_be_used_are_reported_before_the_name_is_looked_up() -> None:
    failure = failure_of("--ca-file", "/nowhere/ca.pem", "wss://box.invalid")
    assert failure == Failure("--ca-file: cannot use /nowhere/ca.pem: No such file or directory", 2)


def test_an_encrypted_key_is_refused_without_a_prompt(tmp_path: Path, client_files: tuple[str, str]) -> None:
    certificate, key = client_files
    locked = str(tmp_path / "locked.key")
    command = ("openssl", "pkcs8", "-topk8", "-in", key, "-out", locked, "-passout", "pass:hunter2")
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    failure = failure_of("--client-cert", certificate, "--client-key", locked, "wss://127.0.0.1:1")
    reason = f"the key in {locked} is encrypted; decrypt it with: openssl pkey -in {locked} -out FILE"
    assert failure == Failure(f"--client-cert: cannot use {certificate}: {reason}", 2)
