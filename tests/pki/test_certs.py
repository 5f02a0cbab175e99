"""``wstunnel-py certs``: what openssl finds in the certificates, who can read the files, and what is refused."""

from __future__ import annotations

import re
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.bed.processes import Bed, Finished
from tests.bed.tunnels import OURS
from tests.pki.conftest import DAY, NOW, PKI, certs
from tunnel.pki.authority import Authority, issue_files
from tunnel.pki.expiry import expiry

OPEN_UMASK = ("sh", "-c", 'umask 000; exec "$@"', "sh")  # under which everything is open that is not closed on purpose


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def text(bed: Bed, certificate: Path) -> str:
    """What openssl reads in a certificate, with single spaces."""
    return " ".join(bed.check("openssl", "x509", "-noout", "-text", "-in", str(certificate)).text.split())


def verify(bed: Bed, *words: str | Path) -> Finished:
    return bed.run("openssl", "verify", "-x509_strict", *map(str, words))


def line(finished: Finished) -> str:
    """The one line of a command that was refused for what the user wrote."""
    assert (finished.status, finished.stdout) == (2, b"")
    assert finished.stderr.count("\n") == 1
    return finished.stderr.removeprefix("wstunnel-py: ").strip()


# ---- what is in them


def test_the_authority_can_issue_and_nothing_else(bed: Bed, made: PKI) -> None:
    shown = text(bed, made.ca_file)
    assert "X509v3 Basic Constraints: critical CA:TRUE, pathlen:0" in shown
    assert "X509v3 Key Usage: critical Certificate Sign, CRL Sign" in shown
    assert "X509v3 Subject Key Identifier:" in shown and "ASN1 OID: prime256v1" in shown
    assert re.search(r"Subject: CN = wstunnel-py CA [0-9a-f]{8} ", shown)


def test_a_certificate_of_a_server_has_its_names(bed: Bed, pki: PKI) -> None:
    names = ("Box.Example.com", "*.box.example.com", "192.0.2.7", "[2001:db8::7]", "bücher.example", "box.example.com")
    assert certs(bed, "server", *names, "--ca", pki.folder, "--out", pki.folder / "box").status == 0
    shown = text(bed, pki.folder / "box.pem")
    assert (
        "X509v3 Subject Alternative Name: DNS:box.example.com, DNS:*.box.example.com, IP Address:192.0.2.7, "
        "IP Address:2001:DB8:0:0:0:0:0:7, DNS:xn--bcher-kva.example X509v3"
    ) in shown
    assert "X509v3 Extended Key Usage: TLS Web Server Authentication X509v3" in shown
    assert "X509v3 Basic Constraints: critical CA:FALSE" in shown
    assert "X509v3 Key Usage: critical Digital Signature X509v3" in shown
    chain = ("-CAfile", pki.ca_file, "-purpose", "sslserver", pki.folder / "box.pem")
    for good in (
        ("-verify_hostname", "box.example.com"),
        ("-verify_hostname", "8081-x.box.example.com"),
        ("-verify_ip", "192.0.2.7"),
        ("-verify_ip", "2001:db8::7"),
    ):
        assert verify(bed, *good, *chain).status == 0
    for bad in (("-verify_hostname", "a.b.box.example.com"), ("-verify_ip", "192.0.2.8")):
        assert verify(bed, *bad, *chain).status == 2


def test_a_certificate_of_a_client_has_its_name_and_is_for_clients_only(bed: Bed, made: PKI) -> None:
    shown = text(bed, made.folder / "alice.pem")
    assert "Subject: CN = alice " in shown
    assert "X509v3 Extended Key Usage: TLS Web Client Authentication X509v3" in shown
    chain = ("-CAfile", made.ca_file, made.folder / "alice.pem")
    assert verify(bed, "-purpose", "sslclient", *chain).status == 0
    assert verify(bed, "-purpose", "sslserver", *chain).status == 2


def test_a_server_with_a_name_too_long_for_a_subject_is_good_too(bed: Bed, pki: PKI) -> None:
    name = ".".join(["a" * 60, "b" * 60, "example.com"])
    assert certs(bed, "server", name, "--ca", pki.folder, "--out", pki.folder / "long").status == 0
    assert "X509v3 Subject Alternative Name: critical" in text(bed, pki.folder / "long.pem")
    assert verify(bed, "-verify_hostname", name, "-CAfile", pki.ca_file, pki.folder / "long.pem").status == 0


def test_an_intermediate_authority_of_another_kind_of_key_can_issue(bed: Bed, tmp_path: Path) -> None:
    """As companies have it: the root elsewhere, its intermediate here, with RSA keys."""
    folder = tmp_path / "pki"
    folder.mkdir()
    keys = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("root", "intermediate")]
    pems = []
    for issuer, subject in ((0, 0), (0, 1)):
        builder = x509.CertificateBuilder(
            names[issuer], names[subject], keys[subject].public_key(), x509.random_serial_number(), NOW - DAY, NOW + DAY
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(keys[issuer].public_key())
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        for extension, critical in (
            (x509.BasicConstraints(True, None), True),
            (x509.SubjectKeyIdentifier.from_public_key(keys[subject].public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
            (usage, True),
        ):
            builder = builder.add_extension(extension, critical)
        pems.append(builder.sign(keys[issuer], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "ca.pem").write_bytes(pems[1] + pems[0])
    (tmp_path / "root.pem").write_bytes(pems[0])
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    (folder / "ca.key").write_bytes(keys[1].private_bytes(*form))
    (folder / "ca.key").chmod(0o600)
    made = certs(bed, "server", "localhost", "--ca", folder, "--out", tmp_path / "box")
    assert "when its CA expires" in made.text and made.stderr == ""
    for _ in range(2):
        box = tmp_path / "box.pem"
        assert box.read_text().count("BEGIN CERTIFICATE") == 2  # clients know the root alone
        assert verify(bed, "-CAfile", tmp_path / "root.pem", "-untrusted", box, box).status == 0
        assert certs(bed, "renew", box, "--ca", folder).status == 0
    said = line(certs(bed, "renew", folder / "ca.pem", "--ca", folder))
    assert said.endswith("it is the certificate of another CA")


# ---- files


def test_keys_are_private_whatever_the_umask(bed: Bed, tmp_path: Path) -> None:
    folder, box = tmp_path / "deep" / "pki", tmp_path / "box"
    for words in (("ca", folder), ("server", "box", "--ca", folder, "--out", box)):
        bed.check(*OPEN_UMASK, *OURS, "certs", *map(str, words))
    assert mode(folder) == 0o700
    assert mode(folder / "ca.key") == mode(tmp_path / "box.key") == 0o600
    assert mode(folder / "ca.pem") == mode(tmp_path / "box.pem") == 0o644
    assert sorted(each.name for each in folder.iterdir()) == ["ca.key", "ca.pem"]


def test_the_umask_can_keep_certificates_private_too(bed: Bed, tmp_path: Path) -> None:
    closed = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    bed.check(*closed, *OURS, "certs", "ca", str(tmp_path / "pki"))
    assert mode(tmp_path / "pki" / "ca.pem") == 0o600


@pytest.mark.parametrize("there", ["box.pem", "box.key"])
def test_nothing_is_overwritten_unless_asked_and_nothing_half(bed: Bed, pki: PKI, there: str) -> None:
    folder = pki.folder / "out"
    folder.mkdir()
    (folder / there).write_text("precious")
    words = ("server", "box", "--ca", pki.folder, "--out", folder / "box.pem")
    assert line(certs(bed, *words)) == f"{folder / there} already exists; --force replaces it"
    assert [(each.name, each.read_text()) for each in folder.iterdir()] == [(there, "precious")]
    assert certs(bed, *words, "--force").status == 0
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "box.pem", folder / "box.key")
    assert mode(folder / "box.key") == 0o600
    assert len(list(folder.iterdir())) == 2


def test_a_link_is_not_replaced(bed: Bed, pki: PKI) -> None:
    link = pki.folder / "link.pem"
    link.symlink_to(pki.folder / "alice.pem")
    assert line(certs(bed, "renew", link, "--ca", pki.folder)) == f"{link} is a link: name the file itself"
    forced = certs(bed, "client", "x", "--ca", pki.folder, "--out", pki.folder / "link", "--force")
    assert line(forced) == f"{link} is a link: name the file itself"
    assert link.is_symlink() and not (pki.folder / "link.key").exists()


@pytest.mark.parametrize("there", ["ca.pem", "ca.key"])
def test_an_authority_is_never_replaced(bed: Bed, tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    assert line(certs(bed, "ca", tmp_path)).startswith(f"{tmp_path / there} already exists: choose another folder")
    assert [each.name for each in tmp_path.iterdir() if each.name != "bed"] == [there]


def test_files_are_named_after_the_first_name_in_the_current_folder(bed: Bed, pki: PKI) -> None:
    for words in (("server", "*.box.test", "box.test"), ("server", "::1"), ("client", "../al ice")):
        assert certs(bed, *words, "--ca", pki.folder).status == 0
    made = sorted(path.name for path in bed.folder.glob("*.key"))
    assert made == ["__1.key", "_al_ice.key", "_wildcard.box.test.key"]


def test_the_folder_of_the_authority_may_come_from_the_environment(bed: Bed, pki: PKI) -> None:
    command = (*OURS, "certs", "client", "bob")
    assert bed.run(*command).status == 2
    bed.check(*command, env={"WSTUNNEL_PY_CERTS_CA": str(pki.folder)})
    assert (bed.folder / "bob.pem").exists()


def test_a_disk_that_is_full_leaves_nothing(bed: Bed, pki: PKI, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    # Through a pipe, as the limit would keep the error from its file, too.
    limited = '( ulimit -f 0; "$@" ) 2>&1 | cat'
    said = bed.run(
        "bash", "-c", limited, "bash", *OURS, "certs", "client", "bob", "--ca", str(pki.folder), "--out", f"{out}/bob"
    )
    assert said.text == f"wstunnel-py: cannot write {out}/bob.key: File too large\n"
    assert list(out.iterdir()) == []


# ---- what cannot be


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("box:8081", "'box:8081' is not a host name, a wildcard (*.example.com) or an IP address"),
        ("wss://box", "'wss://box' is not a host name, a wildcard (*.example.com) or an IP address"),
        ("-box.test", "'-box.test' is not a host name, a wildcard (*.example.com) or an IP address"),
        ("box..test", "'box..test' is not a host name, a wildcard (*.example.com) or an IP address"),
        ("a.*.test", "'a.*.test' is not a host name, a wildcard (*.example.com) or an IP address"),
        ("192.0.2.256", "'192.0.2.256' is not a host name, a wildcard (*.example.com) or an IP address"),
        ("a" * 64 + ".test", f"'{'a' * 64}.test' is not a host name, a wildcard (*.example.com) or an IP address"),
        ("*.test", "'*.test': a wildcard needs two labels after it, as in *.example.com"),
        ("fe80::1%eth0", "'fe80::1%eth0': a certificate cannot have a zone (%eth0)"),
        ("", "'' is not a host name, a wildcard (*.example.com) or an IP address"),
    ],
)
def test_an_invalid_server_name_is_refused(bed: Bed, made: PKI, name: str, reason: str) -> None:
    assert line(certs(bed, "server", "--ca", made.folder, "--", name)) == reason


def test_a_name_that_idna_cannot_write_is_refused(bed: Bed, made: PKI) -> None:
    assert "cannot be written in IDNA" in line(certs(bed, "server", "ü" * 64, "--ca", made.folder))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a  b", "\x1b[2J", "x" * 65])
def test_an_invalid_client_name_is_refused(bed: Bed, made: PKI, name: str) -> None:
    assert re.search(r"is not a valid name|has 65 characters", line(certs(bed, "client", name, "--ca", made.folder)))


def test_too_many_names_are_refused(bed: Bed, made: PKI) -> None:
    names = [f"box{number}.test" for number in range(101)]
    assert line(certs(bed, "server", *names, "--ca", made.folder)) == "101 names; 1 to 100 are allowed"


@pytest.mark.parametrize("days", ["0", "-1", "36501", "x"])
def test_an_impossible_number_of_days_is_refused(bed: Bed, made: PKI, days: str) -> None:
    assert "--days" in line(certs(bed, "client", "bob", "--ca", made.folder, f"--days={days}"))


def no_folder(pki: PKI) -> str:
    for path in pki.folder.iterdir():
        path.unlink()
    pki.folder.rmdir()
    return f"there is no folder {pki.folder}; create a CA with: wstunnel-py certs ca {pki.folder}"


def no_key(pki: PKI) -> str:
    (pki.folder / "ca.key").unlink()
    return f"cannot use {pki.folder}/ca.key: No such file or directory"


def no_pem(pki: PKI) -> str:
    pki.ca_file.write_text("nothing")
    return f"cannot use {pki.ca_file}: it contains no PEM certificate"


def damaged(pki: PKI) -> str:
    pki.ca_file.write_text(pki.ca_file.read_text().replace("MII", "AAA"))
    return f"cannot use {pki.ca_file}: it is damaged"


def damaged_key(pki: PKI) -> str:
    key = pki.folder / "ca.key"
    key.write_text(key.read_text().replace("M", "A"))
    return f"cannot use {key}: the key is damaged"


def other_key(pki: PKI) -> str:
    (pki.folder / "ca.key").write_bytes((pki.folder / "alice.key").read_bytes())
    return f"cannot use {pki.folder}/ca.key: it is not the key of {pki.ca_file}"


def no_authority(pki: PKI) -> str:
    for ending in ("pem", "key"):
        (pki.folder / f"ca.{ending}").write_bytes((pki.folder / f"alice.{ending}").read_bytes())
    return f"cannot use {pki.ca_file}: it is not a CA certificate"


def a_folder(pki: PKI) -> str:
    pki.ca_file.unlink()
    pki.ca_file.mkdir()
    return f"cannot use {pki.ca_file}: Is a directory"


def huge(pki: PKI) -> str:
    pki.ca_file.write_bytes(b"x" * (1 << 20) + b"x")
    return f"cannot use {pki.ca_file}: it is longer than 1048576 bytes"


SPOILED = [no_folder, no_key, no_pem, damaged, damaged_key, other_key, no_authority, a_folder, huge]


@pytest.mark.parametrize("spoil", SPOILED)
def test_an_unusable_authority_is_refused(bed: Bed, pki: PKI, spoil: object) -> None:
    assert callable(spoil)
    expected = spoil(pki)
    assert line(certs(bed, "client", "bob", "--ca", pki.folder)) == expected


def test_an_encrypted_key_is_not_asked_about(bed: Bed, pki: PKI, tmp_path: Path) -> None:
    key = pki.folder / "ca.key"
    plain = key.rename(tmp_path / "plain")
    bed.check("openssl", "pkey", "-in", str(plain), "-out", str(key), "-aes256", "-passout", "pass:secret")
    said = line(certs(bed, "client", "bob", "--ca", pki.folder))
    assert said == f"cannot use {key}: the key is encrypted; decrypt it with: openssl pkey -in {key} -out FILE"


def test_a_key_of_the_authority_that_others_can_read_causes_a_warning(bed: Bed, pki: PKI) -> None:
    key = pki.folder / "ca.key"
    for permissions, words in (
        (0o604, "other users can read"),
        (0o640, "other users can read"),
        (0o602, "other users can change"),
    ):
        key.chmod(permissions)
        done = certs(bed, "client", "bob", "--ca", pki.folder, "--force")
        assert (done.status, done.stderr) == (0, f"wstunnel-py: warning: {words} {key}: chmod 600 it\n")


def test_an_unwritable_folder_is_reported(bed: Bed, made: PKI) -> None:
    done = certs(bed, "client", "bob", "--ca", made.folder, "--out", "/nonexistent/bob")
    assert line(done) == "cannot write /nonexistent/bob.key: No such file or directory"


# ---- time


def test_a_certificate_ends_with_its_authority_and_says_so(bed: Bed, tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    assert certs(bed, "ca", folder, "--days", 30, "--name", "short").status == 0
    done = certs(bed, "client", "bob", "--ca", folder)
    assert re.match(r"bob.pem  for --client-cert, valid until .*UTC, when its CA expires\n", done.text)
    assert certs(bed, "client", "carol", "--ca", folder, "--days", 29).text.count("when its CA") == 0
    ends = {
        re.search(r"Not After : (.*?) GMT", text(bed, file))[1]  # type: ignore[index]
        for file in (folder / "ca.pem", bed.folder / "bob.pem")
    }
    assert len(ends) == 1


def test_an_authority_that_has_expired_issues_nothing_until_it_is_renewed(bed: Bed, tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    Authority.make(str(folder), "old", 30, NOW - 33 * DAY)
    said = line(certs(bed, "client", "bob", "--ca", folder))
    assert re.fullmatch(
        rf"cannot use {folder}/ca.pem: the CA expired 3 days ago \(.*\); renew it with wstunnel-py certs renew",
        said,
    )
    assert certs(bed, "renew", folder / "ca.pem", "--ca", folder).status == 0
    assert certs(bed, "client", "bob", "--ca", folder).status == 0
    assert verify(bed, "-CAfile", folder / "ca.pem", bed.folder / "bob.pem").status == 0


def test_an_authority_that_is_not_valid_yet_suggests_to_check_the_clock(bed: Bed, tmp_path: Path) -> None:
    Authority.make(str(tmp_path / "pki"), "new", 30, NOW + 2 * DAY)
    said = line(certs(bed, "client", "bob", "--ca", tmp_path / "pki"))
    assert said.endswith("it is not valid yet: is the clock of this machine right?")


def test_a_machine_whose_clock_is_slow_accepts_what_was_just_made(bed: Bed, made: PKI) -> None:
    slow = str(int((datetime.now(UTC) - DAY / 48).timestamp()))
    assert verify(bed, "-attime", slow, "-CAfile", made.ca_file, made.folder / "alice.pem").status == 0


# ---- renewal


def test_a_renewal_keeps_names_key_length_and_permissions(bed: Bed, old: PKI) -> None:
    file = old.folder / "localhost.pem"
    file.chmod(0o640)
    before = text(bed, file)
    shown = certs(bed, "renew", file, "--ca", old.folder, "--days", 5)
    assert re.fullmatch(rf"{file}  renewed, valid until [^,]* UTC\n", shown.text)
    after = text(bed, file)
    same = re.compile(r"Subject: .*?Signature Algorithm")
    assert same.findall(before) == same.findall(after) != []
    serial = re.compile(r"Serial Number: ([0-9a-f:]+)")
    assert serial.findall(before) != serial.findall(after)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, old.folder / "localhost.key")
    assert verify(bed, "-CAfile", old.ca_file, file).status == 0
    assert mode(file) == 0o640
    assert "validity  expires in 5 days" in certs(bed, "show", file).text
    assert certs(bed, "renew", old.folder / "bob.pem", "--ca", old.folder, "--days", 2).status == 0
    assert certs(bed, "renew", old.folder / "bob.pem", "--ca", old.folder).status == 0
    assert "validity  expires in 2 days" in certs(bed, "show", old.folder / "bob.pem").text


def test_a_renewal_may_wait_until_it_is_due(bed: Bed, old: PKI, pki: PKI) -> None:
    done = certs(bed, "renew", old.folder / "bob.pem", "--ca", old.folder, "--within", "2")
    assert done.text == f"{old.folder / 'bob.pem'}  not due, left unchanged\n"
    assert "renewed" in certs(bed, "renew", old.folder / "bob.pem", "--ca", old.folder, "--within", "4").text


def test_only_what_the_authority_has_issued_is_renewed(bed: Bed, pki: PKI, old: PKI) -> None:
    file = old.folder / "bob.pem"
    before = file.read_bytes()
    said = line(certs(bed, "renew", file, "--ca", pki.folder))
    assert said == f"cannot use {file}: it was not issued by this CA"
    assert file.read_bytes() == before


def test_a_file_with_a_key_in_it_is_not_renewed_which_would_lose_the_key(bed: Bed, pki: PKI) -> None:
    file = pki.folder / "alice.pem"
    file.write_text(file.read_text() + (pki.folder / "alice.key").read_text())
    assert "it also holds a key" in line(certs(bed, "renew", file, "--ca", pki.folder))


# ---- certs show


def test_show_prints_the_purpose_and_expiry_of_a_certificate(bed: Bed, made: PKI) -> None:
    files = [made.folder / name for name in ("localhost.pem", "alice.pem", "ca.pem")]
    done = certs(bed, "show", *files)
    assert (done.status, done.stderr) == (0, "")
    server, client, authority = re.split(r"\n(?=/)", done.text)
    assert "for       server\n  names     localhost, 127.0.0.1, ::1\n  issuer    wstunnel-py CA " in server
    assert "for       client\n  names     alice\n" in client
    assert "for       CA\n" in authority and "issuer    itself" in authority
    assert re.search(r"validity  expires in 365 days \(.* UTC\); began .* UTC\n", server)
    assert f"key       {made.folder}/alice.key: fits" in client
    fingerprint = bed.check("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(files[0])).text
    assert fingerprint.partition("=")[2].strip().lower() in server


def test_show_fails_for_what_has_expired_and_on_demand_for_what_soon_will(bed: Bed, old: PKI) -> None:
    expired = certs(bed, "show", old.folder / "localhost.pem")
    assert expired.status == 1
    assert re.search(r"validity  EXPIRED 24 hours ago \(", expired.text)
    soon = certs(bed, "show", old.folder / "bob.pem")
    assert soon.status == 0
    assert re.search(r"validity  expires in 3 days \(.*\), SOON; began", soon.text)
    for within, status in ((2, 0), (4, 1)):
        done = certs(bed, "show", "--within", within, old.folder / "bob.pem")
        assert (done.status, "SOON" in done.text) == (status, bool(status))


def test_show_fails_for_what_is_not_valid_yet(bed: Bed, tmp_path: Path) -> None:
    Authority.make(str(tmp_path / "pki"), "new", 30, NOW + 2 * DAY)
    done = certs(bed, "show", tmp_path / "pki" / "ca.pem")
    assert done.status == 1 and "validity  NOT YET VALID: begins " in done.text


def test_show_fails_for_a_key_of_another_certificate(bed: Bed, pki: PKI) -> None:
    (pki.folder / "alice.key").write_bytes((pki.folder / "localhost.key").read_bytes())
    done = certs(bed, "show", pki.folder / "alice.pem")
    assert done.status == 1 and f"key       {pki.folder}/alice.key: belongs to ANOTHER certificate\n" in done.text


def test_show_warns_of_a_key_that_others_can_read(bed: Bed, pki: PKI) -> None:
    file, key = pki.folder / "alice.pem", pki.folder / "alice.key"
    file.write_text(key.read_text() + file.read_text())
    key.unlink()
    done = certs(bed, "show", file)
    assert f"key       in the same file: fits; warning: other users can read {file}: chmod 600 it\n" in done.text


def test_show_goes_on_after_a_file_that_cannot_be_used(bed: Bed, made: PKI, tmp_path: Path) -> None:
    done = certs(bed, "show", tmp_path / "none.pem", made.folder / "alice.key", made.ca_file)
    assert done.status == 2
    assert done.stderr == (
        f"wstunnel-py: cannot use {tmp_path}/none.pem: No such file or directory\n"
        f"wstunnel-py: cannot use {made.folder}/alice.key: it contains no PEM certificate\n"
    )
    assert "for       CA" in done.text


def test_show_prints_each_certificate_in_a_file(bed: Bed, pki: PKI) -> None:
    file = pki.folder / "alice.pem"
    file.write_bytes(file.read_bytes() + pki.ca_file.read_bytes())
    assert re.findall(r"(?m)^/.*", certs(bed, "show", file).text) == [f"{file} (1 of 2)", f"{file} (2 of 2)"]


def test_show_makes_foreign_names_printable(bed: Bed, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "evil\x1b[2J\nnames     good")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - DAY, NOW + DAY)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "evil.pem").write_bytes(pem)
    shown = certs(bed, "show", tmp_path / "evil.pem").text
    assert "\x1b" not in shown and "names     evil [2J names good\n" in shown and "for       any use" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (365 * 86400 - 5, "expires in 365 days"),
        (86400 * 1.4, "expires in 34 hours"),
        (5000, "expires in 83 minutes"),
        (20, "expires in a minute"),
        (-20, "expired a minute ago"),
        (-2 * 86400, "expired 2 days ago"),
    ],
)
def test_the_time_until_expiry_is_shown_in_words(seconds: float, words: str) -> None:
    end = NOW + seconds * DAY / 86400
    assert expiry(end, NOW) == f"{words} ({end:%Y-%m-%d %H:%M} UTC)"


def test_issuing_from_python_is_the_same(tmp_path: Path) -> None:
    authority = Authority.make(str(tmp_path / "pki"))
    names = issue_files(authority.issue_for_client("bob", 7), str(tmp_path / "bob"))
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*names)
