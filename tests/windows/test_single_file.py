"""The single file on Windows, by a Python that has no package at all."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.built import Built
from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.tunnels import start_bridge
from tests.bed.windows import LIMIT, PYTHON, Windows, dos
from tunnel._version import __version__


@pytest.fixture(scope="module")
def bare(windows: Windows, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The command that runs a Python of its own, which finds its standard library and nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "python"
    shutil.copytree(PYTHON.parent, folder)
    (folder / "python313._pth").write_text("python313.zip\n.\n")
    script = folder.parent / "python.sh"
    text = windows.script.read_text()
    assert shlex.quote(str(PYTHON)) in text
    script.write_text(text.replace(shlex.quote(str(PYTHON)), shlex.quote(str(folder / "python.exe"))))
    script.chmod(0o755)
    yield str(script)
    shutil.rmtree(folder)


def test_ssh_goes_through_it_and_its_configuration_leads_to_it(
    bed: Bed, bare: str, windows: Windows, built: Built, sshd: Sshd
) -> None:
    archive = dos(built.archive)
    missing = bed.run(bare, "-c", "import click", seconds=LIMIT)
    assert "No module named 'click'" in missing.stderr
    assert bed.check(bare, archive, "--version", seconds=LIMIT).text.rstrip() == f"wstunnel-py {__version__}"
    bridge = start_bridge(bed, "ours", sshd.port)
    config = sshd.write_client_config(bed.folder / "ssh_config", (bare, archive, "connect", bridge.url))
    done = bed.run("ssh", "-F", str(config), "box", "cat; exit 7", stdin=b"through\r\n", seconds=LIMIT)
    assert (done.status, done.stdout) == (7, b"through\r\n"), done.stderr
    written = bed.check(bare, archive, "config-ssh", seconds=LIMIT).text
    (line,) = [line for line in written.splitlines() if "ProxyCommand" in line]
    assert "python.exe" in line and built.archive.name in line and " -m tunnel " not in line
    users = windows.folder / "prefix" / "drive_c" / "users"
    assert len(list(Path(users).glob("*/AppData/Local/wstunnel-py/*-cpython-313-*/tunnel.net.pump.code"))) == 1
