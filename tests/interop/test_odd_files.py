"""Unusual files: times before 1970, links, modes, names with ~. Both SSH servers treat them alike."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

import tunnel
from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.tunnels import Route

CENTURY = 100 * 365 * 86400


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def sftp(server: Route, sshd: Sshd) -> Iterator[paramiko.SFTPClient]:
    with tunnel.ssh.paramiko_client(server.bridge.url, **sshd.paramiko_client) as client, client.open_sftp() as sftp:
        yield sftp


@pytest.mark.parametrize("protocol", ["-s", "-O"], ids=["sftp", "legacy"])
@pytest.mark.parametrize("when", [-CENTURY, 3 * CENTURY], ids=["before 1970", "after 2106"])
def test_scp_copies_folders_with_files_dated_in_another_century(
    bed: Bed, server: Route, far: Path, near: Path, when: int, protocol: str
) -> None:
    (far / "old").write_text("old")
    (far / "new").write_text("new")
    os.utime(far / "old", (when, when))
    bed.check("scp", "-F", str(server.config), protocol, "-p", "-q", "-r", f"bed:{far}", str(near))
    assert {path.name: path.read_text() for path in (near / "far").iterdir()} == {"old": "old", "new": "new"}


def test_sftp_shows_files_dated_in_another_century(sftp: paramiko.SFTPClient, far: Path) -> None:
    for name, when in (("old", -CENTURY), ("new", 3 * CENTURY)):
        (far / name).touch()
        os.utime(far / name, (when, when))
    assert {entry.filename for entry in sftp.listdir_attr(str(far))} == {"old", "new"}
    for name in ("old", "new"):
        assert sftp.stat(f"{far}/{name}").st_mtime is not None
        assert sftp.lstat(f"{far}/{name}").st_mtime is not None
        with sftp.open(f"{far}/{name}") as file:
            assert file.stat().st_mtime is not None


def test_a_dangling_link_is_not_overwritten_by_a_plain_rename(sftp: paramiko.SFTPClient, far: Path) -> None:
    (far / "file").write_text("x")
    (far / "link").symlink_to("nowhere")
    with pytest.raises(OSError, match=r"Failure|exists"):
        sftp.rename(f"{far}/file", f"{far}/link")
    assert (far / "link").is_symlink()
    sftp.posix_rename(f"{far}/file", f"{far}/link")
    assert (far / "link").read_text() == "x"


@pytest.mark.parametrize("protocol", ["-s", "-O"], ids=["sftp", "legacy"])
@pytest.mark.parametrize("options", [(), ("-p",)], ids=["", "times too"])
def test_scp_keeps_the_mode_of_a_file(
    bed: Bed, server: Route, far: Path, near: Path, protocol: str, options: tuple[str, ...]
) -> None:
    modes = {"program": 0o755, "secret": 0o600, "fixed": 0o444}
    for name, mode in modes.items():
        (near / name).write_text("x")
        (near / name).chmod(mode)
    inner = near / "inner"
    inner.mkdir(mode=0o700)
    (inner / "secret").write_text("x")
    (inner / "secret").chmod(0o600)
    (far / "secret").write_text("longer than it will be")
    (far / "secret").chmod(0o640)
    bed.check("scp", "-F", str(server.config), protocol, *options, "-q", "-r", *map(str, near.iterdir()), f"bed:{far}")
    assert (mode_of(far / "program"), mode_of(far / "fixed")) == (0o755, 0o444)
    assert (mode_of(far / "inner"), mode_of(far / "inner" / "secret")) == (0o700, 0o600)
    if protocol == "-O" and not options:
        assert mode_of(far / "secret") == 0o640, "that of a file which is there already stays"
    assert (far / "secret").read_text() == "x"


def test_legacy_scp_follows_links(bed: Bed, server: Route, far: Path, near: Path) -> None:
    (far / "inner").mkdir()
    (far / "inner" / "file").write_text("x")
    (far / "folder").symlink_to("inner")
    (far / "link").symlink_to("inner/file")
    bed.check("scp", "-O", "-F", str(server.config), "-q", "-r", f"bed:{far}", str(near))
    assert (near / "far" / "link").read_text() == (near / "far" / "folder" / "file").read_text() == "x"
    (far / "dangling").symlink_to("nowhere")
    (near / "more").mkdir()
    done = bed.run("scp", "-O", "-F", str(server.config), "-q", f"bed:{far}/*i*", str(near / "more"))
    assert (done.status, "dangling" in done.stderr) == (1, True)
    assert (near / "more" / "link").read_text() == "x"


def test_legacy_scp_expands_a_tilde(bed: Bed, server: Route, near: Path) -> None:
    home = bed.check(*server.ssh("bed", "echo ~")).text.strip()
    name = f".wstunnel-py-test-{os.getpid()}"
    scp = ("scp", "-O", "-F", str(server.config), "-q")
    (near / "up").write_text("x")
    try:
        bed.check(*scp, str(near / "up"), f"bed:~/{name}")
        assert (Path(home) / name).read_text() == "x"
        bed.check(*scp, f"bed:~/{name}", str(near / "down"))
        assert (near / "down").read_text() == "x"
    finally:
        (Path(home) / name).unlink(missing_ok=True)
    (near / "~").write_text("tilde")
    bed.check(*scp, "-T", f"bed:{near}/'~'", str(near / "plain"))
    assert (near / "plain").read_text() == "tilde"
