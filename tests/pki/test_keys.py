"""``wstunnel-py keys``: tokens for both ends, host keys for sshd and ssh-keygen, and secrets that are never shown."""

from __future__ import annotations

import re
import signal
import stat
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS
from tests.conftest import StartBridge
from tunnel.errors import UsageError
from tunnel.pki.tokens import make_token, read_tokens

TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits in base64url
OPEN_UMASK = ("sh", "-c", 'umask 000; exec "$@"', "sh")


def keys(bed: Bed, *words: str | Path) -> Finished:
    return bed.run(*OURS, "keys", *map(str, words))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def line(finished: Finished) -> str:
    assert (finished.status, finished.stdout) == (2, b"")
    assert finished.stderr.count("\n") == 1
    return finished.stderr.removeprefix("wstunnel-py: ").strip()


def connect(bed: Bed, url: str, token_file: Path) -> Finished:
    return bed.run(*OURS, "connect", "--token-file", str(token_file), "--", url, stdin=b"hello")


# ---- tokens


def test_a_token_opens_the_bridge_that_has_it(bed: Bed, start: StartBridge, tmp_path: Path) -> None:
    file, other = tmp_path / "token", tmp_path / "other"
    for path in (file, other):
        assert (
            keys(bed, "token", path).text
            == f"{path}  a new token; give the file to both ends: --token-file (terminals: serve --pty-token-file)\n"
        )
        assert TOKEN.fullmatch(path.read_text().removesuffix("\n"))
        assert mode(path) == 0o600
    assert file.read_text() != other.read_text()
    url = start("--token-file", str(file)).url
    good, bad = connect(bed, url, file), connect(bed, url, other)
    assert (good.status, good.stdout, good.stderr) == (0, b"hello", "")
    assert bad.status == 77


def test_a_token_is_rotated_while_the_bridge_accepts_both(bed: Bed, start: StartBridge, tmp_path: Path) -> None:
    bridge_file, first, second = tmp_path / "bridge", tmp_path / "first", tmp_path / "second"
    done = keys(bed, "token", first, "--append", bridge_file)
    assert done.stderr == f"wstunnel-py: the token was also appended to {bridge_file}; the bridge reads it on SIGHUP\n"
    assert mode(bridge_file) == 0o600
    bridge = start("--token-file", str(bridge_file))
    assert keys(bed, "token", second, "--append", bridge_file).status == 0
    assert bridge_file.read_text() == first.read_text() + second.read_text()
    assert connect(bed, bridge.url, second).status == 77
    bridge.process.send_signal(signal.SIGHUP)
    bridge.process.wait_for_line("reloaded what=tokens")
    for file in (first, second):
        assert connect(bed, bridge.url, file).stdout == b"hello"


def test_without_a_file_the_token_is_all_that_is_printed(bed: Bed, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# the bridge's\nold-token")  # no newline at its end
    printed = keys(bed, "token", "--append", tokens).text
    assert TOKEN.fullmatch(printed.removesuffix("\n"))
    assert tokens.read_text() == f"# the bridge's\nold-token\n{printed}"


def test_tokens_are_private_whatever_the_umask(bed: Bed, tmp_path: Path) -> None:
    file, tokens = tmp_path / "token", tmp_path / "list"
    bed.check(*OPEN_UMASK, *OURS, "keys", "token", str(file), "--append", str(tokens))
    assert mode(file) == mode(tokens) == 0o600


def test_what_is_appended_to_keeps_its_permissions(bed: Bed, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch()
    tokens.chmod(0o640)
    assert keys(bed, "token", "--append", tokens).status == 0
    assert mode(tokens) == 0o640


def test_a_token_is_not_overwritten_unless_asked(bed: Bed, tmp_path: Path) -> None:
    file, tokens = tmp_path / "token", tmp_path / "list"
    file.write_text("precious\n")
    file.chmod(0o644)
    assert line(keys(bed, "token", file, "--append", tokens)) == f"{file} already exists; --force replaces it"
    assert file.read_text() == "precious\n" and not tokens.exists()
    assert keys(bed, "token", file, "--force").status == 0
    assert TOKEN.fullmatch(file.read_text().strip()) and mode(file) == 0o600


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_token(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "tokens"
    path.write_bytes("one\r\n# two\r\nthree\r\n".encode(encoding))
    path.chmod(0o600)
    assert read_tokens(str(path), "token_file") == ["one", "three"]
    if encoding == "utf-16":
        with pytest.raises(UsageError, match="it is UTF-16"):
            make_token(None, append_to=str(path))
    else:
        added = make_token(None, append_to=str(path))
        assert read_tokens(str(path), "token_file") == ["one", "three", added]


def test_a_file_that_is_no_list_of_tokens_is_not_appended_to(bed: Bed, tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text("no tokens here\n")
    said = line(keys(bed, "token", tmp_path / "token", "--append", page))
    assert said == f"--append: cannot use {page}: line 1 is not a token: only letters, digits and -._~+/ are allowed"
    assert not (tmp_path / "token").exists()
    said = line(keys(bed, "token", tmp_path / "token", "--append", "/nonexistent/list"))
    assert said == "cannot write /nonexistent/list: No such file or directory"
    assert not (tmp_path / "token").exists(), "a token that no bridge knows"
    assert (
        line(keys(bed, "token", "/nonexistent/token")) == "cannot write /nonexistent/token: No such file or directory"
    )


def test_show_counts_tokens_and_keeps_them(bed: Bed, tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    assert keys(bed, "token", one).status == 0
    several.write_text(f"# comment\n{one.read_text()}\nhunter2\nhunter2\n")
    several.chmod(0o604)
    done = keys(bed, "show", one, several)
    assert done.text == (
        f"{one}: one token\n"
        f"{several}: 3 tokens, for serve; connect needs a file with one token\n"
        "  warning: 2 with fewer than 22 characters, which could be guessed\n"
        "  warning: one token occurs twice\n"
        f"  warning: other users can read {several}: chmod 600 it\n"
    )
    assert done.status == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot use {}: there is no token in it"),
        (b"a b\n", "cannot use {}: line 1 is not a token: only letters, digits and -._~+/ are allowed"),
        (b"\xff\xfe", "cannot use {}: it is not text"),
        (b"x" * (1 << 20) + b"x", "cannot use {}: it is longer than 1048576 bytes"),
        (b"ssh-ed25519 AAAA\n", "cannot use {}: it is not an SSH key ("),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "cannot use {}: it is not an SSH key ("),
        (
            b"-----BEGIN CERTIFICATE-----\n",
            "cannot use {}: it is a certificate, not an SSH key: see wstunnel-py certs show",
        ),
    ],
)
def test_an_unreadable_key_file_is_reported_in_one_line(bed: Bed, tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert line(keys(bed, "show", path)).startswith(reason.format(path))


# ---- host keys


def fingerprint(bed: Bed, path: Path) -> str:
    return bed.check("ssh-keygen", "-l", "-f", str(path)).text


def test_ssh_keygen_agrees_on_a_host_key(bed: Bed, tmp_path: Path) -> None:
    key = tmp_path / "host"
    made = bed.check(*OPEN_UMASK, *OURS, "keys", "host", str(key)).text
    assert mode(key) == 0o600 and mode(tmp_path / "host.pub") == 0o644
    assert made == fingerprint(bed, key) == fingerprint(bed, tmp_path / "host.pub")
    assert made.endswith(" wstunnel-py host key (ED25519)\n")
    public = bed.check("ssh-keygen", "-y", "-f", str(key)).text
    assert (tmp_path / "host.pub").read_text() == public
    assert keys(bed, "show", key, tmp_path / "host.pub").text == made * 2


@pytest.mark.parametrize("kind", [("rsa", "2048"), ("ecdsa", "256"), ("ecdsa", "521"), ("ed25519", "256")], ids=str)
def test_any_key_is_shown_as_ssh_keygen_shows_it(bed: Bed, tmp_path: Path, kind: tuple[str, str]) -> None:
    key = tmp_path / "key"
    bed.check("ssh-keygen", "-q", "-t", kind[0], "-b", kind[1], "-N", "", "-C", "user@box", "-f", str(key))
    expected = fingerprint(bed, key)
    assert keys(bed, "show", key, f"{key}.pub").text == expected * 2
    key.chmod(0o640)
    assert keys(bed, "show", key).text == f"{expected}  warning: other users can read {key}: chmod 600 it\n"


@pytest.mark.parametrize(
    "form", [("-t", "ed25519"), ("-t", "rsa", "-m", "PEM"), ("-t", "ecdsa", "-m", "PKCS8")], ids=str
)
def test_an_encrypted_key_is_not_asked_about(bed: Bed, tmp_path: Path, form: tuple[str, ...]) -> None:
    key = tmp_path / "key"
    bed.check("ssh-keygen", "-q", *form, "-N", "secret", "-f", str(key))
    assert line(keys(bed, "show", key)) == f"cannot use {key}: it is encrypted; use its public key instead: {key}.pub"


@pytest.mark.parametrize("there", ["host", "host.pub"])
def test_a_host_key_is_not_overwritten_unless_asked(bed: Bed, tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    key = tmp_path / "host"
    assert line(keys(bed, "host", key)) == f"{tmp_path / there} already exists; --force replaces it"
    assert [path.name for path in tmp_path.iterdir() if path.name != "bed"] == [there]
    assert (tmp_path / there).read_text() == "precious"
    assert keys(bed, "host", key, "--force", "--comment", "image 7").text == fingerprint(bed, key)
    assert "image 7 (ED25519)" in fingerprint(bed, tmp_path / "host.pub")


def test_sshd_shows_the_key_and_ssh_knows_it(bed: Bed, tmp_path: Path) -> None:
    sshd = Sshd(bed, tmp_path / "sshd")
    known = sshd.folder / "known_hosts"
    assert keys(bed, "host", sshd.folder / "host", "--force").status == 0
    sshd.process.send_signal(signal.SIGHUP)
    sshd.process.wait_for_line(r"(?s)Server listening on.*Received SIGHUP.*Server listening on")
    config = sshd.write_client_config(bed.folder / "ssh_config", ("nc", "127.0.0.1", str(sshd.port)))
    config.write_text(re.sub(r"ProxyCommand .*", f"Hostname 127.0.0.1\nPort {sshd.port}", config.read_text()))
    command = ("ssh", "-F", str(config), "box", "echo passed")
    assert bed.run(*command).status == 255, "the key of before is not shown any more"
    known.write_text("bed " + (sshd.folder / "host.pub").read_text())
    assert bed.check(*command).text == "passed\n"
