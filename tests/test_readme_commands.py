"""The README's commands are run on a throw-away machine as a newcomer would; no block is left out.

The machine has two accounts: `me` has the laptop's part of it, and `user` that of the sandbox, with an sshd in front.
The places where E2B's cloud is replaced say so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed.processes import Bed, Finished
from tests.docs.blocks import blocks_of, languages_of
from tests.templates.e2b.programs import carry_out
from tests.templates.machine import Machine

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHELL = [block.strip() for block in blocks_of(README, "sh")]
[DIFF], [CONFIG] = blocks_of(README, "diff"), blocks_of(README, "toml")

QUICKSTART, INSTALL, E2B, SANDBOX, EITHER, TOKEN, WITH_TOKEN, CONFIG_SSH, DOCTOR = SHELL
SSH, SHORT = EITHER.splitlines()
NEEDS_E2B = {
    E2B: "the sandbox is the machine of the test, which WSTUNNEL_PY_URL leads to",
    DIFF: "the steps that E2B's SDK would send are carried out on a machine of the test (with --full)",
}
BRIDGE = "ws://127.0.0.1:8081"

pytestmark = pytest.mark.timeout(900)  # packages are downloaded


class Newcomer:
    """A user at both ends: `laptop` and `sandbox` run commands there."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._machine = Machine(bed)
        self._path = INSTALL.splitlines()[-1]
        assert self._path.startswith("export PATH=")
        # A home of this name that happens to be here would be somebody else's.
        for name in ("me", "user"):
            self._machine.do(f"rm -rf /home/{name} && useradd -m -s /bin/bash {name}")
        self._machine.do("mkdir -p /run/sshd && ssh-keygen -A")
        self._machine.do("install -d -o me -m 700 /home/me/.ssh")
        self._machine.do("ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519", "me")
        # Who types answers ssh's question about a new host key with yes.
        self._machine.write(b"Host *\nStrictHostKeyChecking accept-new\n", "/home/me/.ssh/config", "me", "600")
        self._machine.start("exec /usr/sbin/sshd -D -e -o ListenAddress=127.0.0.1", "root").wait_for_line("listening")

    def laptop(self, script: str, *, connected: bool = False) -> Finished:
        command = self._machine.command(f"{self._path}\n{script}", "me", connected=connected)
        return self._bed.run(*command, seconds=600)

    def sandbox(self, script: str) -> Finished:
        return self._machine.do(script, "user", connected=True)

    def serve(self, script: str) -> None:
        self.bridge = self._machine.start(f"exec {script}", "user")
        self.bridge.wait_for_line(r"bridge ready on ws://0\.0\.0\.0:8081 → 127\.0\.0\.1:22")

    def clone(self) -> None:
        """Put the repository where `git clone` would, below the laptop's home."""
        names = ("pyproject.toml", "README.md", "LICENSE", "tunnel", "docs", "scripts")
        packed = subprocess.run(
            ["tar", "-C", ROOT, "--exclude=__pycache__", "-c", *names], capture_output=True, check=True
        )
        self._machine.write(packed.stdout, "/home/me/source.tar", "me", "600")
        assert self.laptop("mkdir wstunnel-py && tar -C wstunnel-py -xf source.tar").status == 0

    def carry(self, source: str, target: str) -> None:
        """Copy a file from one end to the other, as whatever the sandbox offers would."""
        self._machine.do(f"install -o user -m 600 {source} {target}")


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """Both ends after everything up to `serve` was typed; the bridge runs."""
    with Bed(tmp_path_factory.mktemp("newcomer")) as bed:
        newcomer = Newcomer(bed)
        newcomer.clone()
        installed = newcomer.laptop(f"cd wstunnel-py && {INSTALL} && cd && wstunnel-py --version", connected=True)
        assert installed.status == 0, installed.stderr
        newcomer.carry("/home/me/wstunnel-py/dist/wstunnel_py-*.whl", "/home/user/")
        *lines, serve = SANDBOX.splitlines()
        key = newcomer.laptop("cat ~/.ssh/id_ed25519.pub").text.strip()
        steps = "\n".join(lines)
        assert "ssh-ed25519 AAAA… you@laptop" in steps
        newcomer.sandbox(f"set -e\n{steps}".replace("ssh-ed25519 AAAA… you@laptop", key))
        newcomer.serve(serve)
        yield newcomer


def as_typed(line: str) -> str:
    typed = line.replace("MACHINE:", "127.0.0.1:").replace("USER@", "user@")
    assert typed != line
    return typed


def test_quickstart_shows_a_tunnel_and_leaves_nothing(bed: Bed, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    finished = bed.check(str(ROOT / QUICKSTART), env={"TMPDIR": str(folder), "PYTHONPATH": ""}, seconds=600)
    assert "Hello through the tunnel" in finished.text and "All files arrived intact" in finished.text
    lines = [line for line in finished.text.splitlines() if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(1, 9)]
    assert finished.text.index("\nline 3\n") < finished.text.index(" restarted ")
    assert list(folder.iterdir()) == []


@pytest.mark.full
def test_quickstart_can_keep_the_bridge_and_still_be_piped(bed: Bed, tmp_path: Path) -> None:
    """Its output ends although the bridge continues. Started with `sh`, it runs in bash."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    environment = {"TMPDIR": str(folder), "PYTHONPATH": ""}
    finished = bed.check("bash", "-c", f"sh {ROOT / QUICKSTART} --keep 2>&1 | cat", env=environment, seconds=600)
    found = re.search(r"^Stop: (kill ([\d ]+); rm -rf .+)$", finished.text, re.MULTILINE)
    assert found and all(Path(f"/proc/{pid}").exists() for pid in found[2].split())
    bed.check("bash", "-c", found[1])
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("line", [SSH, SHORT])
def test_ssh_logs_in_with_the_commands_of_the_readme(newcomer: Newcomer, line: str) -> None:
    finished = newcomer.laptop(f"{as_typed(line)} 'id -un; exit 7'")
    assert (finished.status, finished.text) == (7, "user\n"), finished.stderr


def test_the_line_for_e2b_gets_in(newcomer: Newcomer) -> None:
    finished = newcomer.laptop(f"export WSTUNNEL_PY_URL='{BRIDGE}/{{host}}'; {E2B} 'id -un; exit 7'")
    assert (finished.status, finished.text) == (7, "user\n"), finished.stderr


def test_a_name_is_enough_once_it_is_configured_and_doctor_finds_nothing_wrong(newcomer: Newcomer) -> None:
    config = CONFIG.replace("ws://MACHINE:8081", BRIDGE).replace("USER", "user")
    assert BRIDGE in config and "USER" not in config
    made = newcomer.laptop(f"{TOKEN} && cat > ~/.config/wstunnel-py/config.toml <<'END'\n{config}END\n")
    assert made.status == 0, made.stderr
    written = newcomer.laptop(CONFIG_SSH)
    assert written.status == 0, written.stderr
    finished = newcomer.laptop(
        "ssh build 'id -un; git init -q --bare repo' && echo text > FILE && scp -q FILE build: && "
        "git clone -q build:repo && ssh build cat FILE"
    )
    assert (finished.status, finished.text) == (0, "user\ntext\n"), finished.stderr
    checked = newcomer.laptop(DOCTOR)
    assert checked.status == 0, checked.text


def test_a_bridge_with_a_token_admits_only_clients_that_have_it(newcomer: Newcomer) -> None:
    newcomer.carry("/home/me/.config/wstunnel-py/token", "/home/user/token")
    newcomer.bridge.end()
    newcomer.serve(f"{SANDBOX.splitlines()[-1]} --token-file token")
    finished = newcomer.laptop("ssh build id -un")
    assert (finished.status, finished.text) == (0, "user\n"), finished.stderr
    given = newcomer.laptop(f"{as_typed(WITH_TOKEN)} id -un")
    assert (given.status, given.text) == (0, "user\n"), given.stderr
    refused = newcomer.laptop(f"{as_typed(SSH)} id -un")
    assert refused.status == 255 and "401" in refused.stderr
    assert newcomer.laptop(DOCTOR).status == 0


def sides() -> tuple[str, str]:
    """The template before and after the change."""
    lines = DIFF.splitlines()
    assert {line[0] for line in lines} == set(" +-")
    return tuple("\n".join(line[1:] for line in lines if line[0] in f" {sign}") for sign in "-+")  # type: ignore[return-value]


def serialised(bed: Bed, folder: Path, template: str) -> dict[str, Any]:
    """Return what E2B's SDK would send."""
    imports = "from e2b import Template, wait_for_port\n"
    (folder / "template.py").write_text(f"{imports}\n{template}\n\nprint(Template.to_json(template))\n")
    found: dict[str, Any] = json.loads(bed.check(sys.executable, str(folder / "template.py")).stdout)
    return found


@pytest.fixture
def template(bed: Bed, tmp_path: Path) -> dict[str, Any]:
    """The changed template, with a wheel where the README puts it."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path / "dist"),
        str(ROOT),
    ]
    bed.check(*pip, seconds=300)
    return serialised(bed, tmp_path, sides()[1])


def test_the_change_is_one_of_e2bs_page_and_leaves_no_websocat(
    bed: Bed, tmp_path: Path, template: dict[str, Any]
) -> None:
    before = serialised(bed, tmp_path, sides()[0])
    assert before["fromImage"] == "ubuntu:25.04"
    assert before["startCmd"] == "sudo websocat -b --exit-on-eof ws-l:0.0.0.0:8081 tcp:127.0.0.1:22"
    assert before["readyCmd"] == template["readyCmd"]
    assert "websocat" not in json.dumps(template)


@pytest.mark.full
def test_the_changed_template_lets_ssh_in(bed: Bed, tmp_path: Path, template: dict[str, Any]) -> None:
    machine = Machine(bed)
    carry_out(machine, template, tmp_path)
    machine.do("mkdir -p /run/sshd; ssh-keygen -A")
    machine.start("exec /usr/sbin/sshd -D -e", "root").wait_for_line("listening")  # which E2B's base does by itself
    machine.start(template["startCmd"], "user").wait_for_line("bridge ready on ws://0.0.0.0:8081")
    settings = f"export PATH=/opt/wstunnel-py/bin:$PATH WSTUNNEL_PY_URL='{BRIDGE}/{{host}}'"
    ssh = E2B.replace("ssh ", "ssh -o StrictHostKeyChecking=accept-new ", 1)
    assert machine.do(f"{settings}; {ssh} id -un", "user").text == "user\n"


def test_no_block_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Python is run by test_python_page."""
    assert languages_of(README) == {"sh", "diff", "toml", "python"}
    assert not re.search(r"^    \S", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE)
    with capsys.disabled():
        for block, why in NEEDS_E2B.items():
            print(f"\nNEEDS E2B'S CLOUD: {block.splitlines()[0]}\n  {why}")
