"""Programs that move files by SFTP: lftp, which starts ssh itself, and curl, which goes through ``forward``."""

from __future__ import annotations

import getpass
import shlex
import stat
from pathlib import Path

import pytest

from tests.bed.processes import Bed
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
