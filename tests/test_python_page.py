"""The Python scripts of the README and of docs/python.md are run unchanged, each as a program of its own."""

from __future__ import annotations

import getpass
import re
import shutil
import sys
from pathlib import Path

import pytest

import tunnel
from tests.bed.processes import Bed, Finished
from tests.bed.sshd import Sshd
from tests.bed.tunnels import start_bridge
from tests.docs.blocks import blocks_of
from tests.docs.page import text_of
from tests.pty.beds import start_service

README = (Path(__file__).parents[1] / "README.md").read_text()
PAGE = text_of("python.md")
SCRIPTS = [*blocks_of(README, "python"), *blocks_of(PAGE, "python")]

# What is in a script, once, and what it prints.
EXPECTED = {
    'paramiko_client("build") as': r"\A\S+\n\n\Z",
    'paramiko_client("SANDBOX-ID", username': r"\Ahello\n 0\n\Z",
    "open_sftp": r"\A\Z",
    "tunnel.ssh.connect": r"\Ahello\n\n\Z",
    'open_socket("SANDBOX-ID"': r"\Ab'SSH-2.0",
    'open_connection("SANDBOX-ID"': r"\Ab'SSH-2.0",
    "tunnel.serve(": r"\A\['ws://127.0.0.1:\d+'\]\nb'SSH-2.0",
    "tunnel.Sandbox": r"hello[^$]*\n7\n\Z",
}
FAILS = "except tunnel.TunnelError"


@pytest.fixture
def home(tmp_path: Path, sshd: Sshd) -> Path:
    """A home with what the scripts name: keys, known hosts, what config-ssh writes, and the README's config file."""
    keys = tmp_path / ".ssh"
    keys.mkdir(mode=0o700)
    shutil.copy(sshd.folder / "user", keys / "id_ed25519")
    known = (sshd.folder / "known_hosts").read_text()
    (keys / "known_hosts").write_text(known.replace("bed ", "SANDBOX-ID "))
    (keys / "known_hosts.wstunnel-py").write_text(known.replace("bed ", "build,my-image,SANDBOX-ID "))
    user = f"User {getpass.getuser()}"
    (keys / "config").write_text(f"Host build\n{user}\nUserKnownHostsFile ~/.ssh/known_hosts.wstunnel-py\n")
    return tmp_path


def run(bed: Bed, sshd: Sshd, home: Path, script: str) -> Finished:
    url = f"{start_bridge(bed, 'ours', sshd.port).url}/{{host}}"
    [config] = blocks_of(README, "toml")
    folder = home / ".config" / "wstunnel-py"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(config.replace("ws://MACHINE:8081", url.format(host="ssh")))
    (folder / "config.toml").chmod(0o600)
    (folder / "token").write_text("TOKEN\n")
    (folder / "token").chmod(0o600)
    script = script.replace("http://127.0.0.1:49983", start_service(bed).url)
    script = script.replace('username="user"', f'username="{getpass.getuser()}"')
    script = script.replace("127.0.0.1:22", f"127.0.0.1:{sshd.port}")
    (home / "script.py").write_text(script)
    environ = {"HOME": str(home), "WSTUNNEL_PY_URL": url, "SSH_AUTH_SOCK": ""}
    return bed.run("sh", "-c", f"cd {home} && exec {sys.executable} script.py", env=environ)


@pytest.mark.parametrize("word", EXPECTED)
def test_a_script_does_what_it_says(word: str, bed: Bed, sshd: Sshd, home: Path) -> None:
    [script] = [script for script in SCRIPTS if word in script]
    finished = run(bed, sshd, home, script)
    assert (finished.status, finished.stderr) == (0, "")
    assert re.search(EXPECTED[word], finished.text), finished.text
    assert (home / "os-release").exists() == ("open_sftp" in script)


def test_an_error_is_one_line_with_a_code(bed: Bed, sshd: Sshd, home: Path) -> None:
    [script] = [script for script in SCRIPTS if FAILS in script]
    finished = run(bed, sshd, home, script)
    assert (finished.status, finished.text) == (1, "tcp-refused 69\n")
    assert finished.stderr == "no tunnel: 127.0.0.1:1 refused the connection: nothing is listening there\n"


def test_every_script_is_run() -> None:
    assert sorted(SCRIPTS) == sorted(
        script for script in SCRIPTS for word in (*EXPECTED, FAILS) if script.count(word) == 1
    )


def test_the_page_names_everything_that_opens_something() -> None:
    told = set(re.findall(r"tunnel\.([\w.]+)", PAGE))
    assert {"ssh.connect", "ssh.paramiko_client", "open_socket", "open_connection", "serve", "Sandbox"} <= told
    for name in told:
        value: object = tunnel
        for part in name.split("."):
            value = getattr(value, part)
