"""Files with secrets of a service: which are refused at the start and at a reload, and which cause a warning."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.bed.processes import Bed, free_port
from tests.bed.tunnels import OURS
from tests.conftest import StartBridge
from tests.server.clients import UPGRADE, ask, assert_echo, open_tunnel
from tests.server.test_access import bearer, refused_start

WRITABLE = [0o602, 0o620, 0o666, 0o664]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    path.write_text("first-token\n")
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, Path]:
    """The files of a certificate, by the option that takes each."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    files = {option: tmp_path / option for option in ("cert", "key", "client-ca")}
    for path in files.values():
        path.touch(mode=0o600)
    leaf.cert_chain_pems[0].write_to_path(str(files["cert"]))
    leaf.private_key_pem.write_to_path(str(files["key"]))
    authority.cert_pem.write_to_path(str(files["client-ca"]))
    return files


def tls_options(files: dict[str, Path]) -> list[str]:
    return [word for option, path in files.items() for word in (f"--tls-{option}", str(path))]


# ---- the start


@pytest.mark.parametrize("mode", WRITABLE)
@pytest.mark.parametrize("option", ["--token-file", "--pty-token-file"])
def test_tokens_that_others_can_write_stop_the_start(bed: Bed, token_file: Path, option: str, mode: int) -> None:
    token_file.chmod(mode)
    more = ["--pty", "127.0.0.1:0"] if option.startswith("--pty") else []
    said = refused_start(bed, option, str(token_file), *more)
    reason = f"its mode is {mode:04o}, so other users may write to it: chmod 600"
    assert said == f"wstunnel-py: {option}: cannot use {token_file}: {reason}"


@pytest.mark.parametrize("option", ["key", "client-ca"])
def test_a_key_or_an_authority_that_others_can_write_stops_the_start(
    bed: Bed, certificate: dict[str, Path], option: str
) -> None:
    certificate[option].chmod(0o622)
    said = refused_start(bed, *tls_options(certificate))
    assert said.endswith("its mode is 0622, so other users may write to it: chmod 600") and f"--tls-{option}:" in said


def test_a_certificate_alone_is_no_secret(start: StartBridge, certificate: dict[str, Path]) -> None:
    certificate["cert"].chmod(0o664)
    assert "note: " not in start(*tls_options(certificate)).process.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_tokens_may_belong_to_another_user_as_what_is_mounted_does(start: StartBridge, token_file: Path) -> None:
    shutil.chown(token_file, "nobody")
    bridge = start("--token-file", str(token_file))
    with open_tunnel(bridge.url, headers=bearer("first-token")) as tunnel:
        assert_echo(tunnel)


@pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o400, 0), (0o644, 1), (0o440, 1), (0o604, 1)])
def test_tokens_that_others_can_read_are_reported_in_one_line(
    start: StartBridge, token_file: Path, mode: int, count: int
) -> None:
    token_file.chmod(mode)
    bridge = start("--token-file", str(token_file))
    with open_tunnel(bridge.url, headers=bearer("first-token")) as tunnel:
        assert_echo(tunnel)
    note = f"wstunnel-py: note: --token-file: other users can read {token_file}: chmod 600 it\n"
    assert bridge.process.log().count(note) == count == bridge.process.log().count("note: ")
    assert "warning" not in bridge.process.log()


@pytest.mark.parametrize("in_one", [False, True])
def test_a_key_that_others_can_read_is_reported(start: StartBridge, certificate: dict[str, Path], in_one: bool) -> None:
    del certificate["client-ca"]
    if in_one:
        certificate["cert"].write_text(certificate["key"].read_text() + certificate["cert"].read_text())
        del certificate["key"]
    option = "cert" if in_one else "key"
    certificate[option].chmod(0o644)
    start(*tls_options(certificate)).process.wait_for_line(f"note: --tls-{option}: other users can read ")


def test_tokens_that_others_can_read_are_an_event_in_the_json_log(bed: Bed, token_file: Path) -> None:
    token_file.chmod(0o644)
    words = ("--listen", "none", "--pty", "127.0.0.1:0", "--pty-token-file", str(token_file), "--log-format", "json")
    process = bed.start(*OURS, "serve", *words)
    process.wait_for_line(r'"message": ?"--pty-token-file: other users can read ')


# ---- what is no file


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


NO_FILES = pytest.mark.parametrize(
    ("make", "reason"),
    [
        (pipe, "it is a pipe, not a regular file"),
        (device, "it is a device, not a regular file"),
        (folder, "Is a directory"),
    ],
)
Make = Callable[[Path], None]


@NO_FILES
@pytest.mark.parametrize("option", ["--token-file", "--pty-token-file", "--tls-cert", "--tls-key", "--tls-client-ca"])
def test_a_path_that_is_not_a_file_stops_the_start(
    bed: Bed, certificate: dict[str, Path], tmp_path: Path, option: str, make: Make, reason: str
) -> None:
    path = tmp_path / "no-file"
    make(path)
    words = [*tls_options(certificate), "--pty", "127.0.0.1:0"]
    if option.startswith("--tls"):
        words[words.index(option) + 1] = str(path)
    else:
        words += [option, str(path)]
    assert refused_start(bed, *words) == f"wstunnel-py: {option}: cannot use {path}: {reason}"


@NO_FILES
@pytest.mark.parametrize("option", ["--authorized-keys", "--host-key"])
def test_a_key_path_that_is_not_a_file_stops_the_start(
    bed: Bed, tmp_path: Path, option: str, make: Make, reason: str
) -> None:
    keys = {name: tmp_path / name for name in ("host", "user")}
    for key in keys.values():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    path = tmp_path / "no-file"
    make(path)
    files = {"--host-key": str(keys["host"]), "--authorized-keys": f"{keys['user']}.pub", option: str(path)}
    words = [word for pair in files.items() for word in pair]
    said = refused_start(bed, "--target", "embedded", *words)
    assert said == f"wstunnel-py: {option}: cannot use {path}: {reason}"


# ---- SIGHUP


@pytest.mark.parametrize("make", [pipe, device, folder])
def test_a_reload_passes_over_what_is_no_file(start: StartBridge, token_file: Path, make: Make) -> None:
    bridge = start("--token-file", str(token_file))
    with open_tunnel(bridge.url, headers=bearer("first-token")) as tunnel:
        token_file.unlink()
        make(token_file)
        bridge.process.send_signal(signal.SIGHUP)
        bridge.process.wait_for_line('reload-failed what=tokens reason=".*" kept="those in use"')
        assert_echo(tunnel)
        assert ask(bridge.url, headers={**UPGRADE, **bearer("other")}).status == 401
        with open_tunnel(bridge.url, headers=bearer("first-token")) as another:
            assert_echo(another)


def test_a_reload_passes_over_tokens_that_others_can_write(start: StartBridge, token_file: Path) -> None:
    bridge = start("--token-file", str(token_file))
    token_file.write_text("planted-token\n")
    token_file.chmod(0o666)
    bridge.process.send_signal(signal.SIGHUP)
    bridge.process.wait_for_line(
        'reload-failed what=tokens reason=".*other users may write to it.*" kept="those in use"'
    )
    assert ask(bridge.url, headers={**UPGRADE, **bearer("planted-token")}).status == 401
    with open_tunnel(bridge.url, headers=bearer("first-token")) as tunnel:
        assert_echo(tunnel)


@pytest.mark.parametrize("option", ["cert", "key"])
def test_a_reload_passes_over_a_pipe_in_the_place_of_a_certificate(
    start: StartBridge, certificate: dict[str, Path], option: str
) -> None:
    del certificate["client-ca"]
    bridge = start(*tls_options(certificate))
    certificate[option].unlink()
    os.mkfifo(certificate[option], 0o600)
    bridge.process.send_signal(signal.SIGHUP)
    bridge.process.wait_for_line("reload-failed what=.*pipe")
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(20) == 0


def test_a_reload_of_the_terminals_tokens_passes_over_a_pipe(bed: Bed, token_file: Path) -> None:
    port = free_port()
    words = ("--listen", "none", "--pty", f"127.0.0.1:{port}", "--pty-token-file", str(token_file))
    process = bed.start(*OURS, "serve", *words)
    process.wait_for_line("terminals ready")
    token_file.unlink()
    os.mkfifo(token_file, 0o600)
    process.send_signal(signal.SIGHUP)
    process.wait_for_line("reload-failed .*pipe")
    assert ask(f"ws://127.0.0.1:{port}", "/health", headers={}).status in (200, 204)
