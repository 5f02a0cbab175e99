"""A user with neither HOME nor an account, as in containers that run under any uid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished, Process
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, echo
from tests.bed.tunnels import OURS, start_bridge
from tunnel.errors import UsageError
from tunnel.net.home import base_folder, expand_home, home_folder

NOBODY = 61234  # has no account
BECOME = ("unshare", "--user", f"--map-user={NOBODY}")
ELSEWHERE = 'proxy = "http://127.0.0.1:1"\nurl = "ws://127.0.0.1:1"\n'
HOMES: dict[str, Mapping[str, str] | None] = {"unset": None, "relative": {"HOME": "~"}}


@pytest.fixture(autouse=True)
def may_become_somebody_else() -> None:
    if shutil.which("unshare") is None or subprocess.run([*BECOME, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("there are no user namespaces here")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Another user's folder, with files at the paths to which a relative ~ and relative variables would expand."""
    for folder in ("~/.config/wstunnel-py", ".config/wstunnel-py", "wstunnel-py"):
        path = tmp_path / folder / "config.toml"
        path.parent.mkdir(parents=True)
        path.write_text(ELSEWHERE)
    return tmp_path


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest) -> Mapping[str, str] | None:
    return HOMES[request.param]


def words_in(folder: Path, home: Mapping[str, str] | None, *words: str) -> tuple[str, ...]:
    variables = ["-u", "HOME"] if home is None else [f"{name}={value}" for name, value in home.items()]
    relative = ("XDG_CONFIG_HOME=.", "XDG_STATE_HOME=.")
    return ("env", "-C", str(folder), *variables, *relative, *BECOME, *OURS, *words)


def run(bed: Bed, folder: Path, home: Mapping[str, str] | None, *words: str) -> Finished:
    before = contents(folder)
    finished = bed.run(*words_in(folder, home, *words))
    assert contents(folder) == before, "nothing is written where it was started"
    return finished


def contents(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if "bed" not in path.parts}


def test_the_folder_that_it_is_started_in_has_no_say(bed: Bed, trap: Path, home: Mapping[str, str] | None) -> None:
    with Target(echo) as target:
        url = start_bridge(bed, "ours", target.port).url
        assert run(bed, trap, home, "connect", url) == Finished(0, b"", "")
    for words, status in ((("doctor", "ws://127.0.0.1:2"), 69), (("shell", "http://127.0.0.1:2"), 255)):
        done = run(bed, trap, home, *words)
        assert (done.status, "127.0.0.1:2 refused" in done.text + done.stderr) == (status, True)


def test_ssh_s_config_file_is_not_written_anywhere(bed: Bed, trap: Path, home: Mapping[str, str] | None) -> None:
    for words in (("--write", "box"), ("--diff", "box"), ("--remove",)):
        done = run(bed, trap, home, "config-ssh", *words)
        assert (done.status, done.text) == (2, "")
        assert done.stderr.startswith("wstunnel-py: ssh's config file: there is no home folder: HOME")
        assert done.stderr.count("\n") == 1 and str(NOBODY) in done.stderr
    printed = run(bed, trap, home, "config-ssh", "box")
    assert (printed.status, printed.text.startswith("Host box\n")) == (0, True)


def test_ssh_s_config_file_can_be_named(bed: Bed, tmp_path: Path) -> None:
    config = tmp_path / "config"
    bed.check(*words_in(tmp_path, None, "config-ssh", "--write", "--ssh-config", str(config), "box"))
    assert config.read_text() == f"Include {tmp_path}/wstunnel-py.conf\n"


def test_a_file_in_a_home_that_there_is_not_is_refused_in_one_line(
    bed: Bed, trap: Path, home: Mapping[str, str] | None
) -> None:
    for path in ("~/token", "~"):
        done = run(bed, trap, home, "connect", "--token-file", path, "ws://127.0.0.1:1")
        assert (done.status, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(f"wstunnel-py: --token-file: {path}: there is no home folder: HOME")
    for words in (
        ("serve", "--token-file", "~/token"),
        ("serve", "--log-file=~/log", "--listen", "127.0.0.1:0"),
        ("serve", "--listen", "unix:~/socket"),
        ("serve", "--pty", "unix:~/socket", "--listen", "none"),
        ("forward", "unix:~/socket", "ws://127.0.0.1:1"),
        ("keys", "token", "~/token"),
        ("keys", "host", "~/key"),
        ("certs", "ca", "~/pki"),
        ("certs", "client", "me", "--ca", ".", "--out", "~/me"),
    ):
        done = run(bed, trap, home, *words)
        assert (done.status, done.stderr.count("\n")) == (2, 1)
        assert "there is no home folder: HOME" in done.stderr
    done = run(bed, trap, home, "connect", "--token-file", "~no-such-user/token", "ws://127.0.0.1:1")
    assert (done.status, "there is no user no-such-user" in done.stderr) == (2, True)


def test_the_embedded_server_says_what_it_needs(bed: Bed, trap: Path, home: Mapping[str, str] | None) -> None:
    serve = ("serve", "--listen", "127.0.0.1:0", "--target", "embedded")
    done = run(bed, trap, home, *serve)
    assert (done.status, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("wstunnel-py: --host-key: a FILE is required: there is no home folder")
    key = trap / "key"
    bed.check(*OURS, "keys", "host", str(key))
    done = run(bed, trap, home, *serve, "--host-key", str(key))
    assert (done.status, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("wstunnel-py: --authorized-keys: ~/.ssh/authorized_keys: there is no home folder")


def test_the_embedded_server_works_with_files_that_are_named(bed: Bed, tmp_path: Path, sshd: Sshd) -> None:
    keys = ("--authorized-keys", str(sshd.folder / "authorized_keys"), "--host-key", str(sshd.folder / "host"))
    serve = ("serve", "--listen", "127.0.0.1:0", "--target", "embedded", *keys)
    process = bed.start(*words_in(tmp_path, None, *serve))
    url = process.wait_for_line(r"ready on (ws://[^\s,]+)")[1]
    config = sshd.write_client_config(bed.folder / "config", (*OURS, "connect", url))
    ssh = ("ssh", "-F", str(config), "-l", str(NOBODY), "bed")
    assert bed.check(*ssh, 'echo "$HOME $PWD $(id -u)"').text == f"/ / {NOBODY}\n"
    stop(process)


def test_terminals_start_in_the_root_folder(bed: Bed, trap: Path, home: Mapping[str, str] | None) -> None:
    process = bed.start(*words_in(trap, home, "serve", "--listen", "none", "--pty", "127.0.0.1:0"))
    url = process.wait_for_line(r"(http://127\.0\.0\.1:\d+)")[1]
    done = bed.check(*OURS, "shell", url, "--", "sh", "-c", 'echo "$HOME $PWD"')
    assert done.text.strip() == "/ /"
    stop(process)


def stop(process: Process) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


# ---- with an account


def test_every_command_knows_whose_home_is_meant(bed: Bed, tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    bed.check(*OURS, "keys", "token", "~/token", env=env)
    bed.check(*OURS, "certs", "ca", "~/pki", env=env)
    bed.check(*OURS, "certs", "client", "me", "--ca=~/pki", "--out=~/me", env=env)
    serve = ("serve", "--listen", "unix:~/socket", "--token-file=~/token", "--log-file=~/log")
    process = bed.start(*OURS, *serve, env=env)
    process.wait_for_line("ready on")
    assert (tmp_path / "socket").is_socket()
    stop(process)
    assert {"token", "pki", "me.pem", "me.key", "log"} <= {path.name for path in tmp_path.iterdir()}


def test_a_relative_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    account = pwd.getpwuid(os.getuid()).pw_dir
    for value in ("", ".", "~", "relative/home"):
        monkeypatch.setenv("HOME", value)
        assert home_folder() == account
        assert expand_home("~/x") == f"{account}/x"
    monkeypatch.setenv("HOME", "/a/home")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert home_folder() == expand_home("~") == "/a/home"
    assert expand_home("~root/x").startswith("/")
    assert expand_home("./~/x") == "./~/x"
    assert base_folder("XDG_STATE_HOME", "state") == "/a/home/state"
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert base_folder("XDG_STATE_HOME", "state") == "/elsewhere"
    with pytest.raises(UsageError, match="file: ~nobody-here/x: there is no user nobody-here"):
        expand_home("~nobody-here/x", setting="file")


def test_a_home_that_may_not_be_entered_has_no_config_file(bed: Bed, tmp_path: Path) -> None:
    """As with curl and git; containers often run under any uid, with HOME=/root."""
    home = tmp_path / "home"
    home.mkdir(mode=0)
    with Target(echo) as target:
        url = start_bridge(bed, "ours", target.port).url
        words = ("env", "-u", "XDG_CONFIG_HOME", f"HOME={home}", *BECOME, *OURS, "connect")
        assert bed.run(*words, url) == Finished(0, b"", "")
        named = bed.run(*words, "--config", str(home / "config.toml"), url)
        assert (named.status, "Permission denied" in named.stderr) == (2, True)
    home.chmod(0o700)
    (home / ".config" / "wstunnel-py").mkdir(parents=True)
    (home / ".config" / "wstunnel-py" / "config.toml").touch(mode=0)
    unreadable = bed.run(*words, "ws://127.0.0.1:1")
    assert (unreadable.status, "Permission denied" in unreadable.stderr) == (2, True)
