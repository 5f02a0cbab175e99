"""paramiko through a tunnel: `tunnel.ssh.paramiko_client`, the twin of `tunnel.ssh.connect`."""

from __future__ import annotations

import getpass
import inspect
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest

import tunnel
from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, checksum, read_to_end
from tests.bed.tunnels import Bridge, start_bridge
from tests.faults.link import Cut, Link, Plan
from tests.faults.seen import wait_for_tunnels

LIMIT = 20.0
DATA = random.Random("paramiko").randbytes(3_000_000)


@pytest.fixture(scope="module")
def bridge(shared_bed: Bed, sshd: Sshd) -> Iterator[Bridge]:
    yield start_bridge(shared_bed, "ours", sshd.port)


@pytest.fixture
def login(sshd: Sshd) -> dict[str, Any]:
    return sshd.paramiko_client


@pytest.fixture
def home(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``.ssh`` of a user who may log in with his default key."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    folder = tmp_path / ".ssh"
    folder.mkdir()
    (folder / "id_ed25519").write_bytes((sshd.folder / "user").read_bytes())
    return folder


def said(client: paramiko.SSHClient, command: str) -> tuple[bytes, bytes, int]:
    _, stdout, stderr = client.exec_command(command, timeout=LIMIT)
    return stdout.read(), stderr.read(), stdout.channel.recv_exit_status()


def test_commands_run_and_files_go_both_ways(bridge: Bridge, login: dict[str, Any], tmp_path: Path) -> None:
    with tunnel.ssh.paramiko_client(bridge.url, **login) as client:
        assert said(client, "echo out; echo err >&2; exit 7") == (b"out\n", b"err\n", 7)
        (tmp_path / "here").write_bytes(DATA)
        with client.open_sftp() as sftp:
            sftp.put(str(tmp_path / "here"), f"{tmp_path}/there")
            sftp.get(f"{tmp_path}/there", str(tmp_path / "back"))
        assert checksum((tmp_path / "back").read_bytes()) == checksum(DATA)
    bridge.process.wait_for_line("info tunnel .*reason=")


def test_a_cut_connection_is_resumed(bridge: Bridge, login: dict[str, Any], tmp_path: Path) -> None:
    plans = {1: Plan(Cut(100_000, "up", "rst")), 2: Plan(Cut(500_000, "down", "fin"))}
    with Link(int(bridge.url.rpartition(":")[2]), plan=plans) as link:
        with tunnel.ssh.paramiko_client(link.url, **login, keepalive_interval=0.5) as client:
            with client.open_sftp() as sftp:
                with sftp.open(f"{tmp_path}/there", "wb") as file:
                    file.set_pipelined(True)
                    file.write(DATA)
                with sftp.open(f"{tmp_path}/there", "rb") as file:
                    assert checksum(file.read()) == checksum(DATA)
            assert said(client, "echo still here") == (b"still here\n", b"", 0)
        assert len(link.connections) >= 3


def test_a_host_that_is_not_known_is_refused(bridge: Bridge, login: dict[str, Any], sshd: Sshd) -> None:
    with pytest.raises(paramiko.SSHException, match=r"no key for elsewhere: add ssh-ed25519 AAAA.*host_key_alias"):
        tunnel.ssh.paramiko_client(bridge.url, **login | {"host_key_alias": "elsewhere"})


def test_another_host_key_than_the_known_one_is_refused(bridge: Bridge, login: dict[str, Any]) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key()
    with pytest.raises(paramiko.BadHostKeyException):
        tunnel.ssh.paramiko_client(bridge.url, **login | {"known_hosts": b"bed " + other})


def test_a_revoked_host_key_is_refused(bridge: Bridge, login: dict[str, Any], sshd: Sshd) -> None:
    known = (sshd.folder / "known_hosts").read_bytes()
    with pytest.raises(paramiko.SSHException, match="revoked"):
        tunnel.ssh.paramiko_client(bridge.url, **login | {"known_hosts": known + b"@revoked " + known})


def test_known_hosts_may_have_patterns_and_keys_of_other_kinds(
    bridge: Bridge, login: dict[str, Any], sshd: Sshd
) -> None:
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key()
    known = b"b?d " + (sshd.folder / "host.pub").read_bytes() + b"bed " + other
    with tunnel.ssh.paramiko_client(bridge.url, **login | {"known_hosts": known}) as client:
        assert said(client, "echo in")[0] == b"in\n"
    with tunnel.ssh.paramiko_client(bridge.url, **login | {"known_hosts": None}) as client:
        assert said(client, "echo in")[0] == b"in\n"


def test_what_is_not_given_comes_from_the_users_own_files(
    bridge: Bridge, sshd: Sshd, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSTUNNEL_PY_URL", f"{bridge.url}/{{host}}")
    (home / "known_hosts").write_text((sshd.folder / "known_hosts").read_text().replace("bed ", "box "))
    with tunnel.ssh.paramiko_client("box") as client:
        assert said(client, "echo in")[0] == b"in\n"
    (home / "id_ed25519").rename(home / "other")
    (home / "config").write_text(
        f"Host alias\n User {getpass.getuser()}\n HostKeyAlias box\n IdentityFile {home}/other\n ServerAliveInterval 7"
    )
    with tunnel.ssh.paramiko_client("alias") as client:
        assert said(client, "echo in")[0] == b"in\n"
    with pytest.raises(paramiko.SSHException, match="authentication"):
        tunnel.ssh.paramiko_client("box")


def test_a_host_is_not_known_while_the_file_for_its_key_does_not_exist(
    bridge: Bridge, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSTUNNEL_PY_URL", f"{bridge.url}/{{host}}")
    (home / "config").write_text("Host box\n UserKnownHostsFile ~/.ssh/known_hosts.wstunnel-py")
    with pytest.raises(paramiko.SSHException, match="known hosts have no key for box"):
        tunnel.ssh.paramiko_client("box")


def test_a_relative_home_lets_no_current_folder_say_which_host_keys_are_trusted(
    bridge: Bridge, login: dict[str, Any], sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "home" / ".ssh" / "known_hosts").write_bytes((sshd.folder / "known_hosts").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "home")
    with pytest.raises(paramiko.SSHException, match="known hosts have no key for bed"):
        tunnel.ssh.paramiko_client(bridge.url, **login | {"known_hosts": (), "host_key_alias": "bed"})


def test_a_key_that_nobody_lets_in_is_refused_and_its_tunnel_ends(
    bed: Bed, sshd: Sshd, login: dict[str, Any], tmp_path: Path
) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "stranger")
    with pytest.raises(paramiko.AuthenticationException):
        tunnel.ssh.paramiko_client(bridge.url, **login | {"client_keys": [tmp_path / "stranger"]})
    wait_for_tunnels(bridge, 0)


def test_a_server_that_says_nothing_is_given_up(bed: Bed, login: dict[str, Any]) -> None:
    def silent(connection: socket.socket) -> None:
        read_to_end(connection)

    with Target(silent) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with pytest.raises((paramiko.SSHException, EOFError)):
            tunnel.ssh.paramiko_client(bridge.url, **login | {"login_timeout": 0.5})


def test_options_for_the_tunnel_are_those_of_open_socket(bed: Bed, sshd: Sshd, login: dict[str, Any]) -> None:
    tokens = bed.folder / "tokens"
    tokens.write_text("a-token\n")
    bridge = start_bridge(bed, "ours", sshd.port, "--token-file", str(tokens))
    with pytest.raises(tunnel.UpgradeRefused, match="401"):
        tunnel.ssh.paramiko_client(bridge.url, **login)
    options: tunnel.TunnelOptions = {"no_resume": True}
    with tunnel.ssh.paramiko_client(bridge.url, token="a-token", tunnel_options=options, **login) as client:
        assert said(client, "echo in")[0] == b"in\n"


def test_the_options_are_called_as_those_of_asyncssh() -> None:
    mine = inspect.signature(tunnel.ssh.paramiko_client).parameters
    twins = inspect.signature(tunnel.ssh.connect).parameters
    theirs = inspect.signature(asyncssh.SSHClientConnectionOptions.prepare).parameters
    assert set(mine) - set(twins) - {"agent"} <= set(theirs)
    assert {name for name in twins if name != "ssh_options"} <= set(mine)
    same = ("password", "client_keys", "passphrase", "known_hosts", "login_timeout")
    assert [mine[name].default for name in same] == [theirs[name].default for name in same]
