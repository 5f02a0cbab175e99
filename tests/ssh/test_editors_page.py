"""The commands of docs/editors.md are run unchanged; its settings are well formed."""

from __future__ import annotations

import getpass
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.bed.processes import Bed, free_port, program
from tests.bed.sshd import Sshd
from tests.bed.tunnels import PROGRAMS, start_bridge
from tests.docs.blocks import blocks_of, languages_of
from tests.docs.page import text_of

PAGE = text_of("editors.md")
BLOCKS = [block.strip() for block in blocks_of(PAGE, "sh")]
SETTINGS = [json.loads(block) for block in blocks_of(PAGE, "json")]
CONFIG_SSH = "wstunnel-py config-ssh --write --all SANDBOX-ID.e2b"
SSH = "ssh SANDBOX-ID.e2b true"
FORWARD = "wstunnel-py forward 2222 SANDBOX-ID.e2b"
OPEN = "wstunnel-py open --editor code SANDBOX-ID.e2b /home/user"
PORTS = "wstunnel-py config-ssh --ports --write\nwstunnel-py forward --all"

# What cannot be run on a machine without a screen and an account; nothing else may be left out.
NOT_RUN_HERE = {
    "code --remote ssh-remote+SANDBOX-ID.e2b /home/user": "VS Code is not here",
    "zed ssh://user@SANDBOX-ID.e2b/home/user": "Zed is not here",
}
# The settings that exist, by the editors' own words, with their type. A new one is looked up before it is added.
KNOWN = {
    "remote.SSH.reconnectionGraceTime": int,
    "remote.SSH.connectTimeout": int,
    "remote.SSH.serverShutdownTimeout": int,
    "remote.windsurfSSH.reconnectionGraceTime": int,
    "remote.windsurfSSH.connectTimeout": int,
    "ssh_connections": list,
    "host": str,
    "username": str,
    "connection_timeout": int,
    "upload_binary_over_ssh": bool,
}


@pytest.fixture
def home(bed: Bed, sshd: Sshd, tmp_path: Path) -> dict[str, str]:
    """A home with the sandbox's key and a bridge to dial, and an ssh that takes this home for the account's."""
    folder = tmp_path / ".ssh"
    folder.mkdir(mode=0o700)
    shutil.copy(sshd.folder / "user", folder / "id_ed25519")
    tools = tmp_path / "tools"
    tools.mkdir()
    config = tmp_path / "wstunnel-py" / "config.toml"
    config.parent.mkdir()
    config.write_text(f'[hosts.build]\nuser = "{getpass.getuser()}"\n[hosts."*.e2b"]\nuser = "{getpass.getuser()}"\n')
    options = f"-F {folder}/config -o IdentityFile={folder}/id_ed25519 -o UserKnownHostsFile={folder}/known"
    (tools / "ssh").write_text(f'#!/bin/sh\nexec {program("ssh")} {options} "$@"\n')
    (tools / "ssh").chmod(0o755)
    return {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "PATH": f"{tools}:{PROGRAMS}:/usr/bin:/bin",
        "WSTUNNEL_PY_URL": f"{start_bridge(bed, 'ours', sshd.port).url}/{{host}}",
    }


def test_what_config_ssh_writes_lets_ssh_in_without_a_question(bed: Bed, home: dict[str, str]) -> None:
    bed.check("bash", "-c", CONFIG_SSH, env=home)
    bed.check("bash", "-c", SSH, env=home)


def test_each_call_replaces_what_the_one_before_wrote_but_the_hosts_of_the_config_file(
    bed: Bed, home: dict[str, str], tmp_path: Path
) -> None:
    for name in ("SANDBOX-ID.e2b", "other.e2b"):
        bed.check("bash", "-c", CONFIG_SSH.replace("SANDBOX-ID.e2b", name), env=home)
    text = (tmp_path / ".ssh" / "wstunnel-py.conf").read_text()
    assert re.findall("^Host (.*)$", text, re.MULTILINE) == ["other.e2b", "build", "*.e2b"]


def test_a_local_port_is_forwarded_to_the_sandbox(bed: Bed, sshd: Sshd, home: dict[str, str]) -> None:
    port = free_port()
    forward = bed.start("bash", "-c", f"exec {FORWARD.replace('2222', str(port))}", env=home)
    forward.wait_for_line(str(port))
    options = f"-o StrictHostKeyChecking=accept-new -p {port} -F /dev/null"
    bed.check("bash", "-c", f"ssh {options} {getpass.getuser()}@127.0.0.1 true", env=home)


def test_an_editor_is_started_as_the_page_says_by_hand(bed: Bed, home: dict[str, str], tmp_path: Path) -> None:
    """With a program in its place that prints its words."""
    (tmp_path / "tools" / "code").write_text('#!/bin/sh\necho code "$@"\n')
    (tmp_path / "tools" / "code").chmod(0o755)
    told = bed.check("bash", "-c", f"{OPEN} && {OPEN}", env=home).text.splitlines()
    assert [line for line in told if line.startswith("code ")] == [each for each in NOT_RUN_HERE if "code" in each] * 2
    assert "Host SANDBOX-ID.e2b\n" in (tmp_path / ".ssh" / "wstunnel-py.conf").read_text()


def test_every_host_has_a_local_port(bed: Bed, home: dict[str, str], tmp_path: Path) -> None:
    forward = bed.start("bash", "-ec", PORTS, env={**home, "XDG_STATE_HOME": str(tmp_path)})
    forward.wait_for_line("forwarding .* → build, ")
    assert bed.check("bash", "-c", "ssh build 'echo through'", env=home).text == "through\n"


@pytest.mark.parametrize("command", NOT_RUN_HERE)
def test_blocks_that_are_not_run_here_say_why(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command in BLOCKS
    with capsys.disabled():
        print(f"\nNOT RUN: {command}\n  {NOT_RUN_HERE[command]}")


def test_no_block_is_left_out() -> None:
    assert languages_of(PAGE) == {"sh", "json"}
    assert sorted([CONFIG_SSH, SSH, FORWARD, OPEN, PORTS, *NOT_RUN_HERE]) == sorted(BLOCKS)


def test_every_setting_is_one_that_was_looked_up() -> None:
    assert len(SETTINGS) == 4
    hosts = [host for each in SETTINGS for host in each.get("ssh_connections", [])]
    for name, value in (item for each in (*SETTINGS, *hosts) for item in each.items()):
        assert type(value) is KNOWN[name], name


@pytest.mark.parametrize("editor", ["VS Code", "VSCodium", "Cursor", "Windsurf", "Zed", "JetBrains Gateway"])
def test_every_editor_is_marked_as_tried_or_not(editor: str) -> None:
    [mark] = re.findall(rf"^\| {editor}[^|]*\|[^|]*\| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert re.match(r"(yes|no|not the editor)\b", mark)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/.]+)`", PAGE))))
def test_a_test_that_is_named_exists(path: str) -> None:
    assert (Path(__file__).parents[2] / path).is_file()
