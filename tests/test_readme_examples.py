"""The README's Python examples are run as they stand there, against a bridge, an sshd and a terminal service."""

from __future__ import annotations

import ast
import asyncio
import getpass
import inspect
import re
import shutil
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.tunnels import start_bridge
from tests.pty.beds import LIMIT, start_service

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


async def run(example: str) -> None:
    code = compile(example, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, {})
    if inspect.iscoroutine(outcome):
        await outcome


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("tunnel.Sandbox", r"hello.*\n(.*\n)*7$"),
        ("tunnel.open_socket", r"b'SSH-2.0(.*\n)*hello\n\nhello\n 0\n\['ws://"),
        ("client.open_sftp", r"^$"),
    ],
)
def test_an_example_does_what_it_says(
    bed: Bed,
    sshd: Sshd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    word: str,
    expected: str,
) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    monkeypatch.setenv("WSTUNNEL_PY_URL", f"{bridge.url}/{{host}}")
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = tmp_path / ".ssh"
    keys.mkdir()
    shutil.copy(sshd.folder / "user", keys / "id_ed25519")
    (keys / "known_hosts").write_text((sshd.folder / "known_hosts").read_text().replace("bed ", "SANDBOX-ID,my-image "))
    monkeypatch.chdir(tmp_path)
    [example] = [example for example in EXAMPLES if word in example]
    example = example.replace("http://127.0.0.1:49983", start_service(bed).url)
    example = example.replace('"username": "user"', f'"username": "{getpass.getuser()}"')
    asyncio.run(asyncio.wait_for(run(example), LIMIT))
    assert re.search(expected, capsys.readouterr().out.strip())


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == 3
