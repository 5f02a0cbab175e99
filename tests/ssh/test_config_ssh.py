"""What config-ssh prints, read by the real ssh and by the parsers of editors and libraries."""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import asyncssh.config
import paramiko
import pytest

from tests.bed.processes import Bed, Finished
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, PROGRAMS, start_bridge
from tunnel.errors import UsageError
from tunnel.ssh.config import own_program
from tunnel.ssh.quoting import quoted

INSTALLED = str(PROGRAMS / "wstunnel-py")
NODE = Path(__file__).parents[1] / "interop" / "node"
CONFIG = """\
reconnect-for = 1200
[hosts.build]
url = "wss://build.test/ssh"
reconnect-for = 90
[hosts.Mixed-Case]
[hosts."*.e2b"]
no-resume = true
[hosts."*.team.e2b"]
url = "wss://{host}.team.test"
"""

Run = Callable[..., Finished]


@pytest.fixture
def config_ssh(bed: Bed, tmp_path: Path) -> Run:
    """Run config-ssh with an empty home, where ``config.toml`` is the config file if a test makes one."""
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    (tmp_path / "wstunnel-py").mkdir(exist_ok=True)

    def run(*words: str, program: tuple[str, ...] = OURS, **environ: str) -> Finished:
        return bed.run(*program, "config-ssh", *words, env={**home, **environ})

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "wstunnel-py" / "config.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(CONFIG)
    return path


def written(tmp_path: Path, printed: Finished) -> Path:
    """What was printed, as a file for ``ssh -F``."""
    assert printed.status == 0, printed.stderr
    path = tmp_path / "printed"
    path.write_bytes(printed.stdout)
    return path


def as_ssh_reads_it(bed: Bed, path: Path, host: str) -> dict[str, str]:
    lines = bed.check("ssh", "-G", "-F", str(path), host).text.splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


def proxy_command(printed: Finished) -> str:
    """The one ProxyCommand that all blocks have."""
    assert printed.status == 0, printed.stderr
    (command,) = set(re.findall(r"^    ProxyCommand (.+)$", printed.text, re.MULTILINE))
    return str(command)


def hosts(printed: Finished) -> list[str]:
    return re.findall(r"^Host (.+)$", printed.text, re.MULTILINE)


# ---- which hosts


def test_without_a_config_file_the_only_hosts_are_sandboxes_by_their_id(
    bed: Bed, config_ssh: Run, tmp_path: Path
) -> None:
    path = written(tmp_path, config_ssh())
    read = as_ssh_reads_it(bed, path, "abc.e2b")
    assert read["proxycommand"] == f"{INSTALLED} connect -- %h"
    assert read["userknownhostsfile"].endswith("/.ssh/known_hosts.wstunnel-py")
    assert read["stricthostkeychecking"] == "accept-new"
    assert (read["serveraliveinterval"], read["serveralivecountmax"]) == ("0", "10")  # it is to sleep
    assert "hostkeyalias" not in read and read["hostname"] == "abc.e2b"


@pytest.mark.parametrize("host", ["example.org", "e2b", "abc.e2b.app", "xe2b", "build.example.org"])
@pytest.mark.usefixtures("config")
def test_other_hosts_are_as_they_were(bed: Bed, config_ssh: Run, tmp_path: Path, host: str) -> None:
    assert as_ssh_reads_it(bed, written(tmp_path, config_ssh()), host) == as_ssh_reads_it(bed, Path("/dev/null"), host)


@pytest.mark.usefixtures("config")
def test_hosts_of_the_config_file_have_blocks_of_their_own_the_nearest_first(config_ssh: Run) -> None:
    printed = config_ssh()
    assert hosts(printed) == ["build", "Mixed-Case", "*.team.e2b", "*.e2b"]
    assert printed.stderr == ""


@pytest.mark.usefixtures("config")
def test_a_named_host_keeps_its_name_whatever_an_older_block_says(bed: Bed, config_ssh: Run, tmp_path: Path) -> None:
    path = written(tmp_path, config_ssh())
    with path.open("a") as file:
        file.write("Host build\n  HostName 10.0.0.5\n  Port 2222\n  User me\n")
    read = as_ssh_reads_it(bed, path, "build")
    assert (read["hostname"], read["hostkeyalias"], read["user"]) == ("build", "build", "me")


def test_tables_that_are_no_hosts_for_ssh_are_left_out_and_reported(config_ssh: Run, config: Path) -> None:
    config.write_text(
        '[hosts."*"]\nport = 1\n[hosts."gw.example.org"]\ninsecure = true\n[hosts.term]\npty-port = 1\n[hosts."a b"]\n'
    )
    printed = config_ssh()
    assert hosts(printed) == ["*.e2b"]
    reasons = "* (every host), gw.example.org (no url), term (terminals only), a b (not a name for ssh)"
    assert printed.stderr == f"wstunnel-py: left out of {config}: {reasons}\n"
    assert config_ssh("--quiet").stderr == ""
    named = config_ssh("gw.example.org", "term", "*")
    assert (hosts(named), named.stderr) == (["gw.example.org", "term", "*"], "")


def test_user_and_identity_file_can_come_from_the_config_file(
    bed: Bed, config_ssh: Run, config: Path, tmp_path: Path
) -> None:
    """As ssh takes the first value that it finds, the nearest table counts, and an option before all of them."""
    config.write_text(
        'user = "everybody"\n[hosts.build]\nuser = "ci"\nidentity-file = "id ci"\nhost-key-alias = "image"\n'
        '[hosts."*.e2b"]\nuser = "user"\nhost-key-alias = "sandbox"\n[hosts."*.team.e2b"]\nidentity-file = "team"\n'
        '[hosts."x.e2b"]\n[hosts."y.e2b"]\nuser = "y"\n[hosts."far.test"]\nuser = "far"\n'
    )
    printed = config_ssh()
    assert hosts(printed) == ["build", "y.e2b", "far.test", "*.team.e2b", "*.e2b"]
    assert printed.stderr == f"wstunnel-py: left out of {config}: x.e2b (no url)\n"
    path = written(tmp_path, printed)
    folder = config.parent
    for host, user, key, alias in (
        ("build", "ci", f"{folder}/id ci", "image"),
        ("a.e2b", "user", None, "sandbox"),
        ("a.team.e2b", "user", f"{folder}/team", "sandbox"),
        ("y.e2b", "y", None, "y.e2b"),
        ("far.test", "far", None, "far.test"),
    ):
        read = as_ssh_reads_it(bed, path, host)
        assert (read["user"], read["hostkeyalias"]) == (user, alias), host
        assert key is None or (read["identityfile"], read["identitiesonly"]) == (key, "yes"), host
    path = written(tmp_path, config_ssh("--user", "me", "--host-key-alias", "mine"))
    assert as_ssh_reads_it(bed, path, "build")["user"] == "me"
    assert as_ssh_reads_it(bed, path, "build")["hostkeyalias"] == "image"
    assert as_ssh_reads_it(bed, path, "a.team.e2b")["hostkeyalias"] == "mine"
    config.write_text('user = "everybody"\n[hosts.build]\n')
    assert as_ssh_reads_it(bed, written(tmp_path, config_ssh()), "build")["user"] == "everybody"


@pytest.mark.usefixtures("config")
def test_all_adds_the_named_hosts_to_those_of_the_config_file(config_ssh: Run) -> None:
    assert hosts(config_ssh("--all", "xyz", "*.e2b")) == ["xyz", "build", "Mixed-Case", "*.team.e2b", "*.e2b"]


@pytest.mark.usefixtures("config")
def test_names_alone_replace_the_hosts_of_the_config_file(config_ssh: Run) -> None:
    assert hosts(config_ssh("*.e2b", "abc.e2b", "xyz", "abc.e2b")) == ["abc.e2b", "xyz", "*.e2b"]


@pytest.mark.parametrize("name", ["a b", "", "a\nHost *", 'a"', "*.*", "a,b", "!a", "a?", "a#", "ws://h"])
def test_an_invalid_host_name_is_refused(config_ssh: Run, name: str) -> None:
    printed = config_ssh("--", name)
    assert (printed.status, printed.stdout) == (2, b"")
    assert printed.stderr.startswith("wstunnel-py: ") and "is not a host name or pattern" in printed.stderr


@pytest.mark.parametrize(
    ("name", "step"),
    [("me@box", "put the user into --user, or into the config file"),
     ("ws://h.test", "put the URL into --url, or into the config file"),
     ("box:22", "leave out the port, which the tunnel's URL decides")],
)  # fmt: skip
def test_what_is_not_part_of_a_host_name_gets_a_hint_where_it_belongs(config_ssh: Run, name: str, step: str) -> None:
    assert config_ssh(name).stderr == f"wstunnel-py: {name!r} is not a host name or pattern: {step}\n"


def test_a_pattern_must_be_one_that_the_client_knows(config_ssh: Run, tmp_path: Path) -> None:
    printed = config_ssh("*.box")
    line = f'{tmp_path}/wstunnel-py/config.toml has no pattern *.box: add a table [hosts."*.box"]'
    assert (printed.status, printed.stderr) == (2, f"wstunnel-py: {line}\n")
    assert hosts(config_ssh("--url", "wss://gw.test/{host}", "*.box")) == ["*.box"]


# ---- the lines of a block


@pytest.mark.usefixtures("config")
def test_keepalives_of_ssh_last_as_long_as_reconnect_for(bed: Bed, config_ssh: Run, tmp_path: Path) -> None:
    path = written(tmp_path, config_ssh())
    # Of those that may be sandboxes of E2B, which are to sleep, it asks nothing by itself.
    expected = {"Mixed-Case": ("0", "20"), "build": ("60", "3"), "a.team.e2b": ("60", "20"), "a.e2b": ("0", "3")}
    for host, numbers in expected.items():
        read = as_ssh_reads_it(bed, path, host)
        assert (read["serveraliveinterval"], read["serveralivecountmax"]) == numbers, host
    given = written(tmp_path, config_ssh("--reconnect-for", "3601", "--no-no-resume"))
    assert as_ssh_reads_it(bed, given, "a.e2b")["serveralivecountmax"] == "61"


def test_user_and_identity_file_are_written_as_given(bed: Bed, config_ssh: Run, tmp_path: Path) -> None:
    key = tmp_path / "50% of my keys" / "id"
    path = written(tmp_path, config_ssh("--user", "user", "--identity-file", str(key)))
    read = as_ssh_reads_it(bed, path, "abc.e2b")
    assert (read["user"], read["identitiesonly"]) == ("user", "yes")
    assert read["identityfile"] == str(key).replace("%", "%%")


@pytest.mark.usefixtures("config")
def test_host_key_alias_applies_to_patterns_and_named_hosts(bed: Bed, config_ssh: Run, tmp_path: Path) -> None:
    path = written(tmp_path, config_ssh("--host-key-alias", "my-image"))
    assert as_ssh_reads_it(bed, path, "abc.e2b")["hostkeyalias"] == "my-image"
    assert as_ssh_reads_it(bed, path, "build")["hostkeyalias"] == "build"
    path = written(tmp_path, config_ssh("--host-key-alias", "my-image", "build"))
    assert as_ssh_reads_it(bed, path, "build")["hostkeyalias"] == "my-image"


def test_options_of_connect_go_on_to_it_and_files_by_their_absolute_paths(config_ssh: Run, bed: Bed) -> None:
    url = "wss://{port}-{host}.test/?a=b&c"
    printed = config_ssh("--url", url, "--ca-file", "ca.pem", "-4", "--ping-interval", "2.5", "--no-quiet")
    words = shlex.split(proxy_command(printed))
    ca_file = str(bed.folder / "ca.pem")
    assert words == [
        INSTALLED, "connect", "--url", url, "--ca-file", ca_file, "--ping-interval", "2.5", "--ipv4", "--no-quiet",
        "--", "%h",
    ]  # fmt: skip


def test_another_config_file_is_named_even_if_a_variable_gave_it(config_ssh: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[hosts.other]\n")
    for printed in (config_ssh("--config", str(other)), config_ssh(WSTUNNEL_PY_CONFIG=str(other))):
        assert proxy_command(printed) == f"{INSTALLED} connect --config {other} -- %h"
        assert hosts(printed) == ["other", "*.e2b"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--header", "e2b-traffic-access-token: x"], "there is no option --header; see wstunnel-py config-ssh --help"),
        (["--proxy", "http://me:hunter2@proxy.test"],
         "--proxy: a password must not be on a command line, which other users can read; use config.toml"),
        (["--user", "a b"], "--user: 'a b' has characters other than letters, digits and + - . @ _"),
        (["--user", "-x"], "--user: '-x' has characters other than letters, digits and + - . @ _"),
        (["--host-key-alias", "a,b"], "--host-key-alias: 'a,b' has characters other than letters, digits and - . _"),
        (["--identity-file", "/k/${HOME}"], "'/k/${HOME}' cannot be written into ssh_config: "
         '" $ ` \\ and control characters are not allowed'),
        (["--known-hosts-file", '/k/"'], "'/k/\"' cannot be written into ssh_config: "
         '" $ ` \\ and control characters are not allowed'),
        (["--url", "ws://h/`id`"], "'ws://h/`id`' cannot be written into ssh_config: "
         '" $ ` \\ and control characters are not allowed'),
        (["--executable", "/nonexistent"], "--executable: cannot use /nonexistent: there is no such program"),
        (["--executable", "/a\nb"], "--executable: the value has characters that are not printable"),
        (["--write", "--diff"], "--write and --diff cannot be used together"),
        (["--write", "--remove"], "--write and --remove cannot be used together"),
        (["--remove", "build"],
         "--remove removes all hosts; to keep some of them: wstunnel-py config-ssh --write NAME…"),
        (["--config", "/nonexistent"], "/nonexistent: there is no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_reported_in_one_line(config_ssh: Run, words: list[str], line: str) -> None:
    printed = config_ssh(*words)
    assert (printed.status, printed.stdout, printed.stderr) == (2, b"", f"wstunnel-py: {line}\n")


# ---- the program that ssh starts


def test_a_link_to_the_command_is_named_as_it_was_called(config_ssh: Run, tmp_path: Path) -> None:
    link = tmp_path / "bin" / "wstunnel-py"
    link.parent.mkdir()
    link.symlink_to(INSTALLED)
    assert proxy_command(config_ssh(program=(str(link),))) == f"{link} connect -- %h"


def test_without_an_installed_command_it_is_the_interpreter(config_ssh: Run) -> None:
    """The interpreter that the virtual environment was made from has the command not among its own."""
    interpreter = cast(Any, sys)._base_executable
    packages = f"{os.environ['PYTHONPATH']}:{sysconfig.get_path('purelib')}"
    printed = config_ssh(program=(interpreter, "-m", "tunnel"), PYTHONPATH=packages)
    assert proxy_command(printed) == f"{interpreter} -m tunnel connect -- %h"


def test_on_windows_the_launcher_is_named_and_paths_have_slashes(tmp_path: Path) -> None:
    launcher = tmp_path / "wstunnel-py.exe"
    launcher.touch(mode=0o755)
    for started_as in (tmp_path / "wstunnel-py", launcher):  # pip's launchers take their own suffix away
        assert own_program(str(started_as), "win32") == [str(launcher)]
    path = r"C:\Program Files (x86)\Python\wstunnel-py.exe"
    assert quoted(path, platform="win32") == '"C:/Program Files (x86)/Python/wstunnel-py.exe"'
    assert quoted(r"C:\wstunnel-py.exe", platform="win32") == "C:/wstunnel-py.exe"
    with pytest.raises(UsageError):
        quoted(r"C:\wstunnel-py.exe", platform="linux")


# ---- through a real tunnel


@pytest.mark.parametrize("folder", ["plain", "with space", "50% (x86), it's #1!", "größer & kleiner; ~"])
def test_ssh_gets_through_wherever_the_program_lies(
    bed: Bed, sshd: Sshd, config_ssh: Run, tmp_path: Path, folder: str
) -> None:
    program = tmp_path / folder / "wstunnel-py"
    program.parent.mkdir()
    program.symlink_to(INSTALLED)
    ssh = login(config_ssh, bed, sshd, tmp_path, "--executable", str(program))
    assert bed.check(*ssh, "abc.e2b", "echo through").text == "through\n"


def login(config_ssh: Run, bed: Bed, sshd: Sshd, folder: Path, *words: str) -> tuple[str, ...]:
    """Write an ssh_config into ``folder`` for a new bridge, whose URL has the host for its path."""
    bridge = start_bridge(bed, "ours", sshd.port)
    options = {
        "url": f"{bridge.url}/{{host}}", "user": getpass.getuser(), "identity-file": f"{sshd.folder}/user",
        "known-hosts-file": f"{folder}/known hosts", "log-file": f"{folder}/log", "ssh-config": f"{folder}/config",
    }  # fmt: skip
    (folder / "config").write_text("Host *\n  BatchMode yes\n  IdentityAgent none\n  GlobalKnownHostsFile /dev/null\n")
    done = config_ssh("--write", *(word for name, value in options.items() for word in (f"--{name}", value)), *words)
    assert (done.status, done.stderr) == (0, "")
    return ("ssh", "-F", f"{folder}/config", "-o", "LogLevel=ERROR")


def test_the_id_without_its_suffix_is_dialled_and_the_key_kept_apart(
    bed: Bed, sshd: Sshd, config_ssh: Run, tmp_path: Path
) -> None:
    ssh = login(config_ssh, bed, sshd, tmp_path)
    bed.check(*ssh, "Abc.e2b", "true")
    assert re.findall(r"url: ws://127\.0\.0\.1:\d+(/\S+)", (tmp_path / "log").read_text()) == ["/abc"]
    known = tmp_path / "known hosts"
    host_key = (sshd.folder / "host.pub").read_text().split()[:2]
    assert known.read_text().split()[:3] == ["abc.e2b", *host_key]

    bed.check(*ssh, "-o", "StrictHostKeyChecking=yes", "abc.e2b", "true")
    assert bed.run(*ssh, "-o", "StrictHostKeyChecking=yes", "def.e2b", "true").status == 255
    other_key = (sshd.folder / "user.pub").read_text().split()[1]
    known.write_text(known.read_text().replace(host_key[1], other_key))
    changed = bed.run(*ssh, "abc.e2b", "true")
    assert changed.status == 255 and "Host key verification failed" in changed.stderr


def test_one_key_for_all_sandboxes_of_an_image_is_checked_once(
    bed: Bed, sshd: Sshd, config_ssh: Run, tmp_path: Path
) -> None:
    ssh = login(config_ssh, bed, sshd, tmp_path, "--host-key-alias", "my-image")
    bed.check(*ssh, "abc.e2b", "true")
    bed.check(*ssh, "-o", "StrictHostKeyChecking=yes", "def.e2b", "true")
    assert [line.split()[0] for line in (tmp_path / "known hosts").read_text().splitlines()] == ["my-image"]


def test_scp_finds_the_sandbox_by_the_same_name(bed: Bed, sshd: Sshd, config_ssh: Run, tmp_path: Path) -> None:
    _, *options = login(config_ssh, bed, sshd, tmp_path)
    (tmp_path / "sent").write_bytes(b"content")
    bed.check("scp", *options, str(tmp_path / "sent"), f"abc.e2b:{tmp_path}/arrived")
    assert (tmp_path / "arrived").read_bytes() == b"content"


# ---- other readers of ssh_config

READERS_SCRIPT = """
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
const [modules, name, file, host] = process.argv.slice(2);
const found = createRequire(modules + '/')(name);
const config = (found.default ?? found).parse(readFileSync(file, 'utf8'));
const listed = config.filter(line => line.param === 'Host').map(line => line.value);
console.log(JSON.stringify({ listed, computed: config.compute(host) }));
"""


def as_an_editor_reads_it(bed: Bed, package: str, path: Path, host: str) -> dict[str, Any]:
    """Read with the parser of open-remote-ssh; its release 4 gives a ProxyCommand in words, 5 gives it as it stands."""
    script = bed.folder / "read.mjs"
    script.write_text(READERS_SCRIPT)
    node = shutil.which("node")
    assert node, "node is missing: scripts/test installs it"
    read: dict[str, Any] = json.loads(bed.check(node, str(script), str(NODE), package, str(path), host).stdout)
    return read


def as_asyncssh_reads_it(path: Path, host: str) -> asyncssh.config.SSHConfig:
    return asyncssh.config.SSHClientConfig.load(None, [str(path)], False, False, False, "me", (), host, ())


SETTINGS = ("--user", "user", "--identity-file", "/my keys/id", "--known-hosts-file", "/my keys/known")


@pytest.fixture(params=["plain", "with space"])
def awkward(request: pytest.FixtureRequest, config_ssh: Run, tmp_path: Path) -> tuple[Path, list[str]]:
    """An ssh_config with all that needs quotes, and the words of its ProxyCommand."""
    program = tmp_path / request.param / "wstunnel-py"
    program.parent.mkdir()
    program.symlink_to(INSTALLED)
    url = "wss://{port}-{host}.test/?a&b"
    words = ("--executable", str(program), "--url", url, *SETTINGS, "--host-key-alias", "image", "*.e2b", "abc", "def")
    path = written(tmp_path, config_ssh(*words))
    return path, [str(program), "connect", "--url", url, "--", "%h"]


@pytest.mark.parametrize("package", ["ssh-config-4", "ssh-config"])
def test_an_editor_reads_it_as_ssh_does(bed: Bed, awkward: tuple[Path, list[str]], package: str) -> None:
    path, words = awkward
    for host in ("one.e2b", "abc"):
        read = as_an_editor_reads_it(bed, package, path, host)
        assert read["listed"] == ["abc", "def", "*.e2b"]
        computed, ssh = read["computed"], as_ssh_reads_it(bed, path, host)
        command = computed["ProxyCommand"]
        assert (command if isinstance(command, list) else shlex.split(command)) == words
        assert shlex.split(ssh["proxycommand"]) == words
        assert set(computed["IdentityFile"]) == {ssh["identityfile"]} == {"/my keys/id"}
        for name in ("UserKnownHostsFile", "User", "HostKeyAlias", "ServerAliveInterval", "ServerAliveCountMax"):
            assert computed[name] == ssh[name.lower()], name


def test_asyncssh_reads_it_as_ssh_does(bed: Bed, awkward: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, words = awkward
    including = tmp_path / "including"
    including.write_text(f"Include {path}\nHost other\n  User somebody\n")
    for host in ("one.e2b", "abc"):
        read, ssh = as_asyncssh_reads_it(including, host), as_ssh_reads_it(bed, path, host)
        assert shlex.split(str(read.get("ProxyCommand"))) == [*words[:-1], host]
        assert read.get("IdentityFile") == [ssh["identityfile"]]
        assert read.get("UserKnownHostsFile") == [ssh["userknownhostsfile"]]
        for name in ("User", "HostKeyAlias", "ServerAliveInterval", "ServerAliveCountMax"):
            assert str(read.get(name)) == ssh[name.lower()], name
    assert as_asyncssh_reads_it(including, "other").get("ProxyCommand") is None


def test_paramiko_reads_it_as_ssh_does(bed: Bed, awkward: tuple[Path, list[str]]) -> None:
    path, words = awkward
    for host in ("one.e2b", "abc"):
        read: dict[str, Any] = {**paramiko.SSHConfig.from_path(str(path)).lookup(host)}
        ssh = as_ssh_reads_it(bed, path, host)
        assert shlex.split(read["proxycommand"]) == [*words[:-1], host]
        assert read["identityfile"] == [ssh["identityfile"]]
        for name in ("user", "hostkeyalias", "userknownhostsfile", "serveraliveinterval", "serveralivecountmax"):
            assert read[name] == ssh[name], name
