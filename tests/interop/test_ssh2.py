"""The npm package ssh2 over our ProxyCommand, as VSCodium's open-remote-ssh uses it (ssh2_session.mjs)."""

from __future__ import annotations

import getpass
import hashlib
import json
from pathlib import Path

from tests.bed.processes import Bed, free_port
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, checksum

SCRIPT = Path(__file__).parent / "node" / "ssh2_session.mjs"
ECHOED = 300_000  # bytes


def test_ssh2_uses_our_client_as_its_socket(
    bed: Bed,
    proxy_command: tuple[str, ...],
    sshd: Sshd,
    samples: list[Path],
    echo_target: Target,
    tmp_path: Path,
    short_folder: Path,
) -> None:
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    large = tmp_path / "large"
    large.write_bytes(samples[-1].read_bytes()[:5_000_000])
    files = [*samples[:5], large]
    given = {
        "command": proxy_command,
        "user": getpass.getuser(),
        "key": str(sshd.folder / "user"),
        "hostKey": (sshd.folder / "host.pub").read_text().split()[1],
        "folder": str(far),
        "files": [[str(file), f"{far}/{file.name}", f"{near}/{file.name}"] for file in files],
        "port": echo_target.port,
        "closedPort": free_port(),
        "socket": str(short_folder / "socket"),
        "echoed": ECHOED,
    }
    seen = json.loads(bed.check("node", str(SCRIPT), json.dumps(given)).stdout)

    assert seen["failed"] == {"stdout": "out\n", "stderr": "err\n", "code": 7, "signal": None}
    assert seen["killed"] == {"stdout": "before\n", "stderr": "", "code": None, "signal": "SIGTERM"}
    assert seen["script"] == {"stdout": "script: 42\n", "stderr": "", "code": 0, "signal": None}
    assert seen["shell"]["code"] == 5

    for file in files:
        assert checksum((far / file.name).read_bytes()) == checksum(file.read_bytes())
        assert checksum((near / file.name).read_bytes()) == checksum(file.read_bytes())
    assert (seen["size"], seen["mode"]) == (5_000_000, 0o640)
    assert seen["names"] == sorted(file.name for file in files)
    assert "No such file" in seen["missing"]

    assert seen["tcp"] == seen["unix"] == seen["back"] == hashlib.sha256(b"x" * ECHOED).hexdigest()
    assert seen["refused"].startswith("(SSH) Channel open failure: ")
    assert seen["exit"] == 0
