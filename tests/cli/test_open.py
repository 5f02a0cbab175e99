"""`wstunnel-py open`: what it writes for an editor, and the arguments that it starts one with.

No editor can be installed here. A program of its name, which records its arguments, is injected in its place; so these
tests show what an editor gets, not that it connects. ssh then reads what was written.
"""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, start_bridge

EDITORS = ("code", "cursor", "windsurf", "zed")


class Desk:
    """A home with fake editors on its PATH."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed = bed
        self.ssh_config = folder / ".ssh" / "config"
        self.own = folder / ".ssh" / "wstunnel-py.conf"
        self.config = folder / "wstunnel-py" / "config.toml"
        self.config.parent.mkdir()
        self.tools = folder / "tools"
        self.tools.mkdir()
        self.env = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "PATH": f"{self.tools}:{os.environ['PATH']}"}
        for name in EDITORS:
            self.install(name, 'printf "%s\\n" "$0" "$@"')

    def install(self, name: str, script: str) -> None:
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, *words: str) -> Finished:
        return self.bed.run(*OURS, "open", "--ssh-config", str(self.ssh_config), *words, env=self.env)

    def told(self, *words: str) -> list[str]:
        """The arguments that the editor got: the lines after its own path."""
        done = self.run(*words)
        assert (done.status, done.stderr) == (0, "")
        lines = done.text.splitlines()
        at = next(at for at, line in enumerate(lines) if line.startswith(str(self.tools)))
        return [Path(lines[at]).name, *lines[at + 1 :]]

    def hosts(self) -> list[str]:
        return [line.removeprefix("Host ") for line in self.own.read_text().splitlines() if line.startswith("Host ")]

    def made_by(self) -> str:
        return next(line for line in self.own.read_text().splitlines() if line.startswith("# Made by: "))


@pytest.fixture
def desk(bed: Bed, tmp_path: Path) -> Desk:
    folder = tmp_path / "desk"
    folder.mkdir()
    return Desk(bed, folder)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["abc.e2b"], ["code", "--remote", "ssh-remote+abc.e2b"]),
        (["abc.e2b", "/home/user"], ["code", "--remote", "ssh-remote+abc.e2b", "/home/user"]),
        (["--editor", "cursor", "abc.e2b", "/a b"], ["cursor", "--remote", "ssh-remote+abc.e2b", "/a b"]),
        (["abc.e2b", "/x.d/", "--editor=windsurf"], ["windsurf", "--remote", "ssh-remote+abc.e2b", "/x.d/"]),
        (["abc.e2b", "/a b/ü?#%", "--editor", "zed"], ["zed", "ssh://abc.e2b/a%20b/%C3%BC%3F%23%25"]),
        (["abc.e2b", "--editor", "zed"], ["zed", "ssh://abc.e2b/~/"]),
    ],
)
def test_each_editor_gets_the_host_in_its_own_syntax(desk: Desk, words: list[str], told: list[str]) -> None:
    assert desk.told(*words) == told
    assert desk.hosts() == ["abc.e2b"]


def test_ssh_gets_in_by_what_was_written_for_the_editor(bed: Bed, sshd: Sshd, desk: Desk) -> None:
    url = start_bridge(bed, "ours", sshd.port).url
    desk.config.write_text(
        f'url = "{url}/{{host}}"\n[hosts."*.e2b"]\nuser = "{getpass.getuser()}"\nidentity-file = "{sshd.folder}/user"\n'
    )
    desk.install("code", f"exec ssh -F {desk.ssh_config} -o BatchMode=yes ${{2#ssh-remote+}} 'echo in; exit 4'")
    done = desk.run("--known-hosts-file", str(desk.ssh_config.parent / "known"), "abc.e2b")
    assert (done.status, done.text.splitlines()[-1]) == (4, "in")


def test_hosts_that_were_written_before_stay(desk: Desk) -> None:
    desk.told("--user", "user", "abc.e2b")
    desk.told("def.e2b")
    assert desk.hosts() == ["abc.e2b", "def.e2b"]
    assert desk.own.read_text().count("    User user\n") == 2
    before = desk.own.stat().st_ino, desk.ssh_config.stat().st_ino
    done = desk.run("def.e2b")
    assert done.text.splitlines()[0].startswith(str(desk.tools))  # nothing was written, so nothing is told of it
    assert (desk.own.stat().st_ino, desk.ssh_config.stat().st_ino) == before


def test_a_pattern_that_was_written_will_do(bed: Bed, desk: Desk) -> None:
    config_ssh = (*OURS, "config-ssh", "--write", "--ssh-config", str(desk.ssh_config), "--user", "user")
    desk.config.write_text("[hosts.build]\n")
    bed.check(*config_ssh, env=desk.env)
    before = desk.own.read_text()
    assert desk.told("abc.e2b")[-1] == "ssh-remote+abc.e2b"
    assert desk.own.read_text() == before
    # Another name comes to all those that there are.
    desk.told("xyz")
    assert sorted(desk.hosts()) == ["*.e2b", "build", "xyz"]
    assert " --all " in desk.made_by() and desk.made_by().endswith(" xyz")
    desk.config.write_text("[hosts.build]\n[hosts.later]\n")
    desk.told("xyz")
    assert sorted(desk.hosts()) == ["*.e2b", "build", "later", "xyz"]


def test_options_are_not_put_upon_other_hosts(desk: Desk) -> None:
    desk.told("--user", "user", "abc.e2b")
    desk.told("--user", "other", "abc.e2b")  # it is the only one
    before = desk.own.read_text()
    done = desk.run("--user", "user", "def.e2b")
    line = (
        f"wstunnel-py: these options would also apply to abc.e2b in {desk.ssh_config}: put them into the table "
        '[hosts."def.e2b"] of the config file, or write all hosts again: wstunnel-py config-ssh --write\n'
    )
    assert (done.status, done.text, done.stderr) == (2, "", line)
    assert desk.own.read_text() == before
    desk.told("--user", "other", "def.e2b")


@pytest.mark.parametrize("editor", EDITORS)
def test_a_missing_editor_is_one_line_and_nothing_is_written(desk: Desk, editor: str) -> None:
    (desk.tools / editor).unlink()
    done = desk.run("abc.e2b", "--editor", editor)
    assert (done.status, done.text, done.stderr.count("\n")) == (69, "", 1)
    assert done.stderr.startswith(f"wstunnel-py: cannot run {editor}: it is not on the PATH; run ")
    assert not desk.ssh_config.exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "HOST is missing; usage: wstunnel-py open [OPTIONS] HOST [PATH]"),
        (["a", "/b", "c"], "unexpected 'c'; usage: wstunnel-py open [OPTIONS] HOST [PATH]"),
        (["a", "--editor", "vi"], "--editor: 'vi' is not one of code, cursor, windsurf, zed"),
        (["a", "b"], "'b' must be an absolute path, which begins with /"),
        (["a", "~/b"], "'~/b' must be an absolute path, which begins with /"),
        (["a", "/b\nc"], "'/b\\nc' has characters that are not printable"),
        (["a b"], "'a b' is not a host name: use letters and digits, with . _ - between them"),
        (["me@box"], "'me@box' is not a host name: put the user into --user, or into the config file"),
        (
            ["wss://me:hunter2@h.test/a?t=hunter2"],
            "'wss://h.test/a' is not a host name: put the URL into --url, or into the config file",
        ),
        (["wss://h.test/a"], "'wss://h.test/a' is not a host name: put the URL into --url, or into the config file"),
        (["box:22"], "'box:22' is not a host name: leave out the port, which the tunnel's URL decides"),
        (["*.e2b"], "'*.e2b' is not a host name: use letters and digits, with . _ - between them"),
    ],
)
def test_a_mistake_is_one_line(desk: Desk, words: list[str], line: str) -> None:
    done = desk.run(*words)
    assert (done.status, done.text, done.stderr) == (2, "", f"wstunnel-py: {line}\n")
    assert not desk.ssh_config.exists()
