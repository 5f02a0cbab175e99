"""Programs that copy files over SSH: some start ssh themselves, others use ``forward``."""

from __future__ import annotations

import getpass
import os
import shlex
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bed.processes import Bed, ticks
from tests.bed.sshd import Sshd
from tests.bed.targets import checksum
from tests.bed.tunnels import OURS, Route


@pytest.fixture
def tree(samples: list[Path], tmp_path: Path) -> Path:
    """A folder with files, a folder in it, names that need quoting, and a symbolic link."""
    folder = tmp_path / "tree"
    inner = folder / "inner folder"
    inner.mkdir(parents=True)
    for sample in samples[:5]:
        (inner / f"{sample.name} büro's").write_bytes(sample.read_bytes())
    (folder / "large").write_bytes(samples[-1].read_bytes()[:5_000_000])
    (folder / "large").chmod(0o751)
    (folder / "link").symlink_to("large")
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Links and the checksums of files under ``folder``, by their paths in it."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = checksum(path.read_bytes())
    return found


def test_lftp_mirrors_a_folder_up_and_down_and_then_what_has_changed(
    bed: Bed, server: Route, tree: Path, tmp_path: Path
) -> None:
    far, near, piece = tmp_path / "far", tmp_path / "near", tmp_path / "piece"

    def lftp(*commands: str) -> str:
        program = shlex.join(("ssh", "-a", "-x", "-F", str(server.config)))
        settings = (f'set sftp:connect-program "{program}"', "set cmd:fail-exit yes", "set net:max-retries 1")
        return bed.check("lftp", "-c", "; ".join((*settings, "open sftp://bed", *commands))).text

    mirrored = contents(tree)
    lftp(
        f'mirror --reverse --parallel=3 "{tree}" "{far}"',
        f'mirror --parallel=3 "{far}" "{near}"',
        f'pget -n 3 "{far}/large" -o "{piece}"',
    )
    assert contents(far) == contents(near) == mirrored
    assert checksum(piece.read_bytes()) == mirrored["large"]
    assert stat.S_IMODE((far / "large").stat().st_mode) == 0o751
    assert int((far / "large").stat().st_mtime) == int((tree / "large").stat().st_mtime)

    (tree / "large").unlink()
    (tree / "new").write_text("new")
    listing = lftp(
        f'mirror --reverse --delete "{tree}" "{far}"',
        f'mv "{far}/new" "{far}/newer"',
        f'chmod 640 "{far}/newer"',
        f'cls -l "{far}"',
    )
    assert "newer" in listing
    assert "large" not in listing.replace("-> large", "")
    assert stat.S_IMODE((far / "newer").stat().st_mode) == 0o640
    assert contents(far) == {("newer" if name == "new" else name): what for name, what in contents(tree).items()}


def test_curl_fetches_and_uploads_through_a_forwarded_port(
    bed: Bed, server: Route, sshd: Sshd, samples: list[Path], tmp_path: Path
) -> None:
    address = bed.start(*OURS, "forward", server.bridge.url).wait_for_line(r"forwarding (127\.0\.0\.1:\d+)")[1]
    host_key = bed.check("ssh-keygen", "-l", "-f", str(sshd.folder / "host.pub")).text.split()[1]
    key = ("--key", str(sshd.folder / "user"), "--pubkey", str(sshd.folder / "user.pub"))
    login = ("--user", f"{getpass.getuser()}:", *key, "--hostpubsha256", host_key.removeprefix("SHA256:"))
    curl = ("curl", "--silent", "--show-error", "--max-time", "30", *login)
    data = samples[-1].read_bytes()[:5_000_000]
    near = tmp_path / "near"
    near.write_bytes(data)
    for scheme in ("sftp", "scp"):
        url = f"{scheme}://{address}{tmp_path}/{scheme}"
        bed.check(*curl, "--upload-file", str(near), url)
        assert checksum((tmp_path / scheme).read_bytes()) == checksum(data)
        assert checksum(bed.check(*curl, url).stdout) == checksum(data)
    url = f"sftp://{address}{tmp_path}/"
    assert bed.check(*curl, "--range", "1000-1999", f"{url}sftp").stdout == data[1000:2000]
    listing = bed.check(*curl, "--quote", f"rename {tmp_path}/scp {tmp_path}/renamed", "--list-only", url).text
    assert {"near", "sftp", "renamed"} <= set(listing.split())
    assert bed.run(*curl, f"{url}missing").status == 78  # its own code for a file that is not there


def test_rclone_copies_a_folder_up_and_down(bed: Bed, server: Route, sshd: Sshd, tree: Path, tmp_path: Path) -> None:
    """Debian 12's sends some bytes behind the last piece of a file."""
    (tree / "link").unlink()  # it has no links
    address = bed.start(*OURS, "forward", server.bridge.url).wait_for_line(r"forwarding 127\.0\.0\.1:(\d+)")[1]
    login = f"host=127.0.0.1,port={address},user={getpass.getuser()},key_file={sshd.folder}/user"
    far, near = tmp_path / "far", tmp_path / "near"
    remote = f":sftp,{login}:{far}"
    rclone = ("rclone", "--config", str(tmp_path / "none"), "--low-level-retries", "1", "--retries", "1")
    bed.check(*rclone, "copy", str(tree), remote)
    bed.check(*rclone, "copy", remote, str(near))
    bed.check(*rclone, "check", str(tree), remote)
    assert contents(far) == contents(near) == contents(tree)


def check_restic(bed: Bed, route: Route, tree: Path, tmp_path: Path) -> None:
    program = shlex.join(route.ssh("bed", "-s", "sftp"))
    restic = ("restic", "--quiet", "--no-cache", "-o", f"sftp.command={program}", "-r", f"sftp:bed:{tmp_path}/backups")
    env = {"RESTIC_PASSWORD": "x"}
    bed.check(*restic, "init", env=env)
    bed.check(*restic, "backup", str(tree), env=env)
    bed.check(*restic, "restore", "latest", "--target", str(tmp_path / "near"), env=env)
    assert contents(tmp_path / "near" / tree.relative_to("/")) == contents(tree)


def check_borg(bed: Bed, route: Route, tree: Path, tmp_path: Path) -> None:
    env = {"BORG_RSH": shlex.join(route.ssh()), "BORG_BASE_DIR": str(tmp_path / "base")}
    archive = f"bed:{tmp_path}/backups"
    near = tmp_path / "near"
    near.mkdir()
    bed.check("borg", "init", "-e", "none", archive, env=env)
    bed.check("borg", "create", f"{archive}::one", str(tree), env=env)
    bed.check("sh", "-c", 'cd "$1" && exec borg extract "$2"', "sh", str(near), f"{archive}::one", env=env)
    assert contents(near / tree.relative_to("/")) == contents(tree)


def test_restic_backs_up_and_restores(bed: Bed, embedded_route: Route, tree: Path, tmp_path: Path) -> None:
    check_restic(bed, embedded_route, tree, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("check", [check_restic, check_borg])
def test_backups_go_to_both_servers(
    bed: Bed, server: Route, tree: Path, tmp_path: Path, check: Callable[[Bed, Route, Path, Path], None]
) -> None:
    check(bed, server, tree, tmp_path)


def test_unison_brings_two_folders_together(bed: Bed, server: Route, tree: Path, tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    (far / "there").write_text("there")
    unison = ("unison", "-batch", "-ui", "text", "-sshargs", f"-F {server.config}")
    env = {"UNISON": str(tmp_path / "archive"), "UNISONLOCALHOSTNAME": "here"}
    bed.check(*unison, str(tree), f"ssh://bed/{far}", env=env)
    assert contents(far) == contents(tree)
    assert (tree / "there").read_text() == "there"


@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="needs FUSE")
def test_sshfs_mounts_a_folder(bed: Bed, server: Route, tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    mount = bed.start("sshfs", "-f", "-F", str(server.config), f"bed:{tree}", str(place))
    try:
        for _ in ticks(20):
            if place.is_mount() or mount.status is not None:
                break
        assert place.is_mount(), mount.log()
        assert contents(place) == contents(tree)
        data = os.urandom(3_000_001)
        (place / "new").write_bytes(data)
        (place / "new").rename(place / "newer")
        with (place / "newer").open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"changed")
        assert (tree / "newer").read_bytes() == data[:1_000_000] + b"changed" + data[1_000_007:]
    finally:
        bed.run("fusermount3", "-u", str(place))
        mount.wait(20)


def field(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def message(kind: int, number: int, *fields: bytes) -> bytes:
    return field(bytes([kind]) + number.to_bytes(4) + b"".join(fields))


def kinds_of(replies: bytes) -> list[int]:
    """Return the kinds of the replies that are whole; that of a status is 1000 and its code."""
    kinds = []
    while len(replies) >= 4 and len(replies) >= 4 + (size := int.from_bytes(replies[:4])):
        reply, replies = replies[4 : 4 + size], replies[4 + size :]
        kinds.append(reply[0] if reply[0] != 101 else 1000 + int.from_bytes(reply[5:9]))
    return kinds


def test_bytes_behind_the_last_field_of_a_message_are_ignored(bed: Bed, server: Route, tmp_path: Path) -> None:
    path, padding = str(tmp_path / "file").encode(), bytes(9)
    handle = field(bytes(4))  # the first one of both servers
    requests = (
        message(1, 3)  # INIT
        + message(3, 1, field(path), (1 | 2 | 8).to_bytes(4), bytes(4), padding)  # OPEN
        + message(6, 2, handle, bytes(8), field(b"data"), padding)  # WRITE
        + message(8, 3, handle, padding)  # FSTAT
        + message(5, 4, handle, bytes(8), (9).to_bytes(4), padding)  # READ
        + message(4, 5, handle, padding)  # CLOSE
        + message(17, 6, field(path), padding)  # STAT
    )
    client = bed.start(*server.ssh("bed", "-s", "sftp"), stdin=subprocess.PIPE)
    client.feed(requests)
    expected = [2, 102, 1000, 105, 103, 1000, 105]  # VERSION, HANDLE, OK, ATTRS, DATA, OK, ATTRS
    for _ in ticks(60):
        if len(kinds_of(client.out.read_bytes())) >= len(expected) or client.status is not None:
            break
    client.end_input()  # OpenSSH's server would not answer all if that came sooner
    client.wait(20)
    assert kinds_of(client.out.read_bytes()) == expected
    assert (tmp_path / "file").read_bytes() == b"data"
