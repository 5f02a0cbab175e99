"""SSH clients that are no OpenSSH and no library: PuTTY's tools and dropbear's, each with keys in its own format."""

from __future__ import annotations

import getpass
import shlex
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished, free_port, wait_for_port
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, checksum, read_to_end

LIMIT = 20.0  # seconds for any one step
LARGE = 3_000_000  # bytes: more than the windows of channels
HOST = f"{getpass.getuser()}@bed"


@dataclass(frozen=True)
class Putty:
    """PuTTY's tools; ``options`` are what all of them take to get to the server."""

    bed: Bed
    options: tuple[str, ...]

    def run(self, tool: str, *arguments: str, stdin: Path | None = None) -> Finished:
        return self.bed.run(tool, *self.options, *arguments, stdin=stdin)


@pytest.fixture
def putty(bed: Bed, proxy_command: tuple[str, ...], sshd: Sshd, tmp_path: Path) -> Putty:
    key = tmp_path / "key.ppk"
    bed.check("puttygen", str(sshd.folder / "user"), "-O", "private", "-o", str(key))
    host_key = bed.check("ssh-keygen", "-l", "-f", str(sshd.folder / "host.pub")).text.split()[1]
    proxy = ("-proxycmd", shlex.join(proxy_command))
    return Putty(bed, ("-batch", "-noagent", "-i", str(key), "-hostkey", host_key, *proxy))


@dataclass(frozen=True)
class Dropbear:
    """dropbear's client; ``options`` lead to the server, and ``home`` is where it looks for known hosts."""

    bed: Bed
    options: tuple[str, ...]
    home: Path

    def run(self, *arguments: str, stdin: Path | None = None) -> Finished:
        return self.bed.run("dbclient", *self.options, *arguments, stdin=stdin, env={"HOME": str(self.home)})


@pytest.fixture
def dropbear(bed: Bed, proxy_command: tuple[str, ...], sshd: Sshd, tmp_path: Path) -> Dropbear:
    key, known_hosts = tmp_path / "key.dropbear", tmp_path / ".ssh" / "known_hosts"
    bed.check("dropbearconvert", "openssh", "dropbear", str(sshd.folder / "user"), str(key))
    known_hosts.parent.mkdir()
    known_hosts.write_text(" ".join((sshd.folder / "known_hosts").read_text().split()[:3]) + "\n")  # takes no comment
    return Dropbear(bed, ("-i", str(key), "-J", shlex.join(proxy_command)), tmp_path)


def echoed(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), LIMIT) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_to_end(sock)


@pytest.fixture
def large(samples: list[Path], tmp_path: Path) -> Path:
    path = tmp_path / "large file"
    path.write_bytes(samples[-1].read_bytes()[:LARGE])
    return path


def test_plink_runs_commands_and_has_a_terminal(putty: Putty, large: Path) -> None:
    finished = putty.run("plink", HOST, "echo out; echo err >&2; exit 7")
    assert (finished.status, finished.text, finished.stderr) == (7, "out\n", "err\n")
    copied = putty.run("plink", HOST, "cat", stdin=large)
    assert checksum(copied.stdout) == checksum(large.read_bytes())
    finished = putty.run("plink", "-t", HOST, "tty && stty size && exit 3")
    assert (finished.status, finished.text.split()[1:]) == (3, ["24", "80"])
    assert finished.text.startswith("/dev/pts/")


def test_plink_forwards_ports_both_ways(putty: Putty, echo_target: Target, large: Path) -> None:
    local, remote = free_port(), free_port()
    forwards = ("-L", f"{local}:127.0.0.1:{echo_target.port}", "-R", f"{remote}:127.0.0.1:{echo_target.port}")
    plink = putty.bed.start("plink", *putty.options, "-N", *forwards, HOST)
    for port in (local, remote):
        wait_for_port(port, plink)
        assert checksum(echoed(port, large.read_bytes())) == checksum(large.read_bytes())


def test_psftp_works_with_files(putty: Putty, large: Path, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.write_text(
        f"""\
        mkdir "{tmp_path}/far side"
        cd "{tmp_path}/far side"
        put "{large}" one
        mv one two
        chmod 640 two
        reput "{large}" two
        ls
        get two "{tmp_path}/back"
        del two
        cd ..
        rmdir "far side"
        """
    )
    finished = putty.run("psftp", "-b", str(commands), HOST)
    assert finished.status == 0, finished.stderr
    assert "-rw-r-----" in finished.text
    assert checksum((tmp_path / "back").read_bytes()) == checksum(large.read_bytes())
    assert not (tmp_path / "far side").exists()


@pytest.mark.parametrize("protocol", ["-sftp", "-scp"])
def test_pscp_copies_folders_both_ways(putty: Putty, large: Path, tmp_path: Path, protocol: str) -> None:
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "empty").touch()
    shutil.copy(large, folder / "inner" / "large")
    for target in ("far", "near"):
        (tmp_path / target).mkdir()
    copy = ("pscp", protocol, "-q", "-r", "-p")
    for source, target in (
        (str(folder), f"{HOST}:{tmp_path}/far"),
        (f"{HOST}:{tmp_path}/far/source", f"{tmp_path}/near"),
    ):
        finished = putty.run(*copy, source, target)
        assert finished.status == 0, finished.stderr
    for target in ("far", "near"):
        inner = tmp_path / target / "source" / "inner"
        assert (inner / "empty").read_bytes() == b""
        assert checksum((inner / "large").read_bytes()) == checksum(large.read_bytes())
    missing = putty.run(*copy, f"{HOST}:{tmp_path}/missing", f"{tmp_path}/near")
    assert missing.status == 1
    assert "no such file" in missing.stderr.lower()


def test_dbclient_runs_commands(dropbear: Dropbear, large: Path) -> None:
    finished = dropbear.run(HOST, "echo out; echo err >&2; exit 7")
    assert (finished.status, finished.text, finished.stderr.split()) == (7, "out\n", ["err"])
    copied = dropbear.run(HOST, "cat", stdin=large)
    assert checksum(copied.stdout) == checksum(large.read_bytes())


def test_dbclient_forwards_ports_both_ways(dropbear: Dropbear, echo_target: Target, large: Path) -> None:
    local, remote = free_port(), free_port()
    forwards = ("-L", f"{local}:127.0.0.1:{echo_target.port}", "-R", f"{remote}:127.0.0.1:{echo_target.port}")
    command = ("dbclient", *dropbear.options, "-N", *forwards, HOST)
    client = dropbear.bed.start(*command, env={"HOME": str(dropbear.home)})
    for port in (local, remote):
        wait_for_port(port, client)
        assert checksum(echoed(port, large.read_bytes())) == checksum(large.read_bytes())
