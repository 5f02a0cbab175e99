"""`wstunnel-py ssh`, `scp`, `sftp` and `rsync`: the real programs, a real bridge and sshd, and nothing configured."""

from __future__ import annotations

import getpass
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished, Process, program
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, start_bridge
from tunnel.cli.ssh import RSYNC_HAS_TOO, RSYNC_OPTIONS

USER = getpass.getuser()
# What keeps the tests away from the files of the account, whose home ssh looks for by itself.
SSH_CONFIG = "Host *\n  BatchMode yes\n  IdentityAgent none\n  GlobalKnownHostsFile /dev/null\n  LogLevel ERROR\n"
KEYWORDS = (
    "hostname", "user", "identityfile", "identitiesonly", "hostkeyalias", "userknownhostsfile", "stricthostkeychecking",
    "proxycommand", "serveraliveinterval", "serveralivecountmax",
)  # fmt: skip


class Laptop:
    """A home with a config file for hosts behind a bridge, and an ssh_config that says nothing of them."""

    def __init__(self, bed: Bed, sshd: Sshd, url: str, folder: Path) -> None:
        self.bed = bed
        self.sshd = sshd
        self.folder = folder
        self.url = url
        self.ssh_config = folder / "ssh" / "config"
        self.ssh_config.parent.mkdir()
        self.ssh_config.write_text(SSH_CONFIG)
        self.known_hosts = folder / "known hosts"
        self.config = folder / "wstunnel-py" / "config.toml"
        self.config.parent.mkdir()
        self.configure(
            f'url = "{self.url}/{{host}}"\nuser = "{USER}"\nidentity-file = "{sshd.folder}/user"\n'
            'log-file = "log"\n[hosts.box]\n[hosts.other]\n'
        )
        self.env = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}

    def configure(self, text: str) -> None:
        self.config.write_text(text)
        self.config.chmod(0o600)

    def words(self, command: str, *words: str) -> tuple[str, ...]:
        file = ("-F", str(self.ssh_config)) if command != "rsync" else ("-e", f"ssh -F {self.ssh_config}")
        return (*OURS, command, "--known-hosts-file", str(self.known_hosts), *file, *words)

    def run(self, command: str, *words: str, stdin: bytes | None = None) -> Finished:
        return self.bed.run(*self.words(command, *words), env=self.env, stdin=stdin)

    def check(self, command: str, *words: str, stdin: bytes | None = None) -> str:
        finished = self.run(command, *words, stdin=stdin)
        assert (finished.status, finished.stderr) == (0, "")
        return finished.text

    def read(self, *words: str) -> dict[str, str]:
        """What ssh makes of a command line (ssh -G)."""
        return settings(self.bed.check(*words, env=self.env).text)

    def dialled(self) -> list[str]:
        return re.findall(r"url: ws://127\.0\.0\.1:\d+/(\S+)", (self.config.parent / "log").read_text())


def settings(printed: str) -> dict[str, str]:
    lines = [line.partition(" ") for line in printed.splitlines()]
    return {key: value for key, _, value in lines if key in KEYWORDS}


@pytest.fixture(scope="module")
def url(shared_bed: Bed, sshd: Sshd) -> str:
    """The URL of a bridge to the sshd."""
    return start_bridge(shared_bed, "ours", sshd.port).url


@pytest.fixture
def laptop(bed: Bed, sshd: Sshd, url: str, tmp_path: Path) -> Laptop:
    folder = tmp_path / "laptop"
    folder.mkdir()
    return Laptop(bed, sshd, url, folder)


# ---- ssh


def test_ssh_gets_in_without_any_configuration_of_its_own(laptop: Laptop) -> None:
    assert laptop.check("ssh", "box", "echo through; cat", stdin=b"input") == "through\ninput"
    assert laptop.dialled() == ["box"]
    host_key = (laptop.sshd.folder / "host.pub").read_text().split()[:2]
    assert laptop.known_hosts.read_text().split() == ["box", *host_key]
    assert laptop.ssh_config.read_text() == SSH_CONFIG


@pytest.mark.parametrize("words", ["box exit 7", f"-v {USER}@box exit 7", f"ssh://{USER}@box:99 exit 7",
                                   "[box] exit 7", "box -T -- exit 7", "-- box exit 7"])  # fmt: skip
def test_the_exit_status_is_ssh_s(laptop: Laptop, words: str) -> None:
    assert laptop.run("ssh", *words.split()).status == 7


def test_a_signal_ends_it_as_it_ends_ssh(laptop: Laptop) -> None:
    session = laptop.bed.start(*laptop.words("ssh", "box", "echo ready; sleep 60"), env=laptop.env)
    session.wait_for_line("ready")
    session.send_signal(signal.SIGKILL)
    assert session.wait(20) == -signal.SIGKILL
    assert laptop.run("ssh", "box", "kill -TERM $$").status == 255


def test_it_leaves_the_program_alone_with_the_terminal(laptop: Laptop) -> None:
    """No process of ours stays in between, and ssh has default signals, and the terminal for its input."""
    master, slave = pty.openpty()
    session = laptop.bed.start(*laptop.words("ssh", "box"), stdin=slave, env=laptop.env)
    os.close(slave)
    os.write(master, b"tty; exit 5\n")
    assert session.wait(30) == 5
    assert "/dev/pts/" in session.out.read_text()
    os.close(master)

    waiting = laptop.bed.start(*laptop.words("ssh", "box", "echo ready; cat"), stdin=subprocess.PIPE, env=laptop.env)
    waiting.wait_for_line("ready")
    assert Path(f"/proc/{waiting.pid}/comm").read_text() == "ssh\n"
    assert not ignored(waiting) & 1 << signal.SIGXFSZ - 1  # Python ignores it, and ssh does not
    waiting.end_input()
    assert waiting.wait(20) == 0


def ignored(process: Process) -> int:
    found = re.search(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1], 16)


def test_options_of_the_user_take_precedence(laptop: Laptop) -> None:
    ssh = laptop.words("ssh", "-G")
    for words, key, value in (
        (("-l", "me", "box"), "user", "me"),
        (("box", "-l", "me"), "user", "me"),
        (("me@box",), "user", "me"),
        (("--", "me@box"), "user", "me"),
        (("ssh://me@box",), "user", "me"),
        (("-o", "StrictHostKeyChecking=yes", "box"), "stricthostkeychecking", "true"),
        (("box", "-oHostKeyAlias=mine"), "hostkeyalias", "mine"),
        (("-o", "ProxyCommand=mine %h", "box"), "proxycommand", "mine %h"),
        (("box",), "user", USER),
        (("--", "box"), "user", USER),
    ):
        assert laptop.read(*ssh, *words)[key] == value, words


def test_the_user_s_own_ssh_config_counts_for_everything_else(laptop: Laptop) -> None:
    with laptop.ssh_config.open("a") as file:
        file.write("Host box\n  HostName 10.0.0.5\n  SetEnv MINE=1\n  User somebody\n  ProxyJump nowhere\n")
    assert laptop.check("ssh", "box", "echo through") == "through\n"
    printed = laptop.bed.check(*laptop.words("ssh", "-G", "box"), env=laptop.env).text
    assert "setenv MINE=1" in printed.splitlines()
    assert settings(printed)["hostname"] == "box"


ODD = 'it\'s 50% ("x86") $HOME `id` \\ & ~; #1 größer'


def test_a_path_may_have_any_characters(bed: Bed, sshd: Sshd, laptop: Laptop) -> None:
    folder = laptop.folder / ODD
    folder.mkdir()
    token, key, known = folder / "token", folder / "key", folder / "known"
    token.write_text("t0ken-of-mine")
    token.chmod(0o600)
    shutil.copy(sshd.folder / "user", key)
    url = start_bridge(bed, "ours", sshd.port, "--token-file", str(token)).url
    ours = ("--url", f"{url}/{{host}}", "--token-file", str(token), "--identity-file", str(key),
            "--known-hosts-file", str(known))  # fmt: skip
    config = ("-F", str(laptop.ssh_config))
    ssh = bed.run(*OURS, "ssh", *ours, *config, "box", "echo through", env=laptop.env)
    assert (ssh.status, ssh.stderr, ssh.text) == (0, "", "through\n")
    assert known.exists()
    (laptop.folder / "sent").write_text("content")
    rsync = (*OURS, "rsync", *ours, "-e", f"ssh {shlex.join(config)}")
    bed.check(*rsync, f"{laptop.folder}/sent", f"box:{laptop.folder}/got", env=laptop.env)
    assert (laptop.folder / "got").read_text() == "content"
    assert bed.run(*OURS, "ssh", "--url", url, *config, "box", "true", env=laptop.env).status == 255


@pytest.mark.parametrize("folder", ["plain", "with space", "50% (x86), it's #1!", ODD])
def test_programs_work_from_any_folder(laptop: Laptop, folder: str) -> None:
    link = laptop.folder / folder / "wstunnel-py"
    link.parent.mkdir()
    link.symlink_to(Path(OURS[0]).parent / "wstunnel-py")
    words = laptop.words("ssh", "box", "echo through")
    assert laptop.bed.check(str(link), *words[len(OURS) :], env=laptop.env).text == "through\n"
    rsync = laptop.words("rsync", str(laptop.ssh_config), f"box:{laptop.folder}/arrived")
    laptop.bed.check(str(link), *rsync[len(OURS) :], env=laptop.env)
    assert (laptop.folder / "arrived").read_text() == SSH_CONFIG


def test_a_jump_goes_through_the_tunnel_to_hosts_behind_the_sandbox(laptop: Laptop) -> None:
    """-J: the host behind the tunnel is the first to go through; the last one is what it can reach."""
    inner = ("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={laptop.folder}/inner",
             "-i", f"{laptop.sshd.folder}/user", "-p", str(laptop.sshd.port))  # fmt: skip
    place = f"{USER}@127.0.0.1"
    for jump in (("-J", "box"), (f"-J{USER}@box:22",), ("-o", "ProxyJump=box")):
        assert laptop.check("ssh", *jump, *inner, place, "echo behind") == "behind\n"
    assert laptop.dialled() == ["box"] * 3
    assert [line.split()[0] for line in laptop.known_hosts.read_text().splitlines()] == ["box"]
    assert (laptop.folder / "inner").read_text().startswith("[127.0.0.1]:")
    # Only ssh's own options reach the host in the middle, which has its key and known_hosts from its ssh_config.
    with laptop.ssh_config.open("a") as file:
        file.write(
            f"  IdentityFile {laptop.sshd.folder}/user\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
        )
    two = ("-J", f"box,{USER}@127.0.0.1:{laptop.sshd.port}")
    assert laptop.check("ssh", *two, *inner, place, "echo far") == "far\n"
    assert laptop.dialled() == ["box"] * 4


@pytest.mark.parametrize("words", [["-J", "a", "-o", "ProxyJump=b", "box"], ["-J", "none", "box"]])
def test_a_jump_that_means_nothing_is_refused(laptop: Laptop, words: list[str]) -> None:
    done = laptop.run("ssh", *words)
    assert (done.status, done.text, done.stderr.count("\n")) == (255, "", 1)


# ---- what config-ssh has written


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--user", "me", "--identity-file", "/a key", "--known-hosts-file", "/known", "--host-key-alias", "image"],
        ["--url", "ws://h.test/{host}", "--reconnect-for", "3000", "--host-key-alias", "image", "box", "*.e2b"],
        ["--no-resume", "--token-file", "/t", "abc.e2b", "xyz"],
        ["--all", "--user", "me", "xyz"],
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_a_host_written_by_config_ssh_is_the_same_for_plain_ssh(laptop: Laptop, words: list[str]) -> None:
    laptop.configure(
        '[hosts.box]\nuser = "of-box"\n[hosts."*.e2b"]\nuser = "of-all"\nidentity-file = "key"\n'
        '[hosts."*.team.e2b"]\nhost-key-alias = "team"\n[hosts."x.e2b"]\nurl = "wss://x.test"\n'
    )
    config = ("--ssh-config", str(laptop.ssh_config))
    done = laptop.bed.check(*OURS, "config-ssh", "--write", *config, *words, env=laptop.env)
    hosts = done.text.splitlines()[0].partition(": ")[2].replace("*", "id").split()
    for host in hosts:
        file = ("-G", "-F", str(laptop.ssh_config), host)
        by_ssh = laptop.read("ssh", *file)
        by_ssh.setdefault("hostkeyalias", host)  # without an alias ssh keeps the key under the name as typed
        assert laptop.read(*OURS, "ssh", *file) == by_ssh, host
    # What is given now goes before what was given then.
    assert laptop.read(*OURS, "ssh", "--user", "now", "-G", "-F", str(laptop.ssh_config), hosts[0])["user"] == "now"


def test_another_host_than_the_written_ones_has_none_of_their_options(laptop: Laptop) -> None:
    config = ("--ssh-config", str(laptop.ssh_config))
    laptop.bed.check(*OURS, "config-ssh", "--write", *config, "--user", "me", "abc.e2b", env=laptop.env)
    assert laptop.read(*laptop.words("ssh", "-G", "abc.e2b"))["user"] == "me"
    assert laptop.read(*laptop.words("ssh", "-G", "box"))["user"] == USER
    laptop.ssh_config.write_text(SSH_CONFIG)  # without the Include
    assert laptop.read(*laptop.words("ssh", "-G", "abc.e2b"))["user"] == USER


def test_a_config_written_by_another_version_is_reported(laptop: Laptop) -> None:
    laptop.bed.check(*OURS, "config-ssh", "--write", "--ssh-config", str(laptop.ssh_config), env=laptop.env)
    own = laptop.ssh_config.parent / "wstunnel-py.conf"
    own.write_text(
        own.read_text().replace("by: wstunnel-py config-ssh", "by: wstunnel-py config-ssh --from-the-future")
    )
    done = laptop.run("ssh", "box")
    assert (done.status, done.stderr.count("\n")) == (255, 1)
    assert str(own) in done.stderr and "write the file again: wstunnel-py config-ssh --write" in done.stderr


# ---- scp, sftp, rsync


@pytest.mark.parametrize("place", ["box:{}", f"{USER}@box:{{}}", "[box]:{}", "scp://box/{}"])
def test_scp_copies_both_ways(laptop: Laptop, place: str) -> None:
    sent, there, back = (laptop.folder / name for name in ("sent: it's", "there", "back"))
    sent.write_bytes(b"content")
    path = str(there) if "://" not in place else f"/{there}"
    laptop.check("scp", "-q", str(laptop.folder / "./sent: it's"), place.format(path))
    laptop.check("scp", "-rp", place.format(path), str(back))
    assert there.read_bytes() == back.read_bytes() == b"content"
    assert set(laptop.dialled()) == {"box"}


def test_scp_copies_between_two_hosts(laptop: Laptop) -> None:
    (laptop.folder / "a").write_bytes(b"content")
    laptop.check("scp", f"box:{laptop.folder}/a", f"{USER}@other:{laptop.folder}/b")
    assert (laptop.folder / "b").read_bytes() == b"content"
    assert sorted(laptop.dialled()) == ["box", "other"]
    assert sorted(line.split()[0] for line in laptop.known_hosts.read_text().splitlines()) == ["box", "other"]


def test_scp_between_hosts_that_need_different_options_is_refused(laptop: Laptop) -> None:
    laptop.configure('[hosts.box]\nhost-key-alias = "image"\n[hosts.other]\n')
    done = laptop.run("scp", "box:a", "other:b")
    line = (
        "wstunnel-py: box and other need a different HostKeyAlias, but scp uses one for both: copy in two steps, or "
        "run wstunnel-py config-ssh --write, and then scp alone\n"
    )
    assert (done.status, done.stderr) == (2, line)
    done = laptop.run("scp", "-R", "box:a", "box:b", "third:")
    assert (done.status, done.stderr.startswith("wstunnel-py: ")) == (2, True)


def test_scp_of_local_files_needs_no_tunnel(laptop: Laptop) -> None:
    laptop.check("scp", str(laptop.ssh_config), str(laptop.folder / "copy"))
    assert (laptop.folder / "copy").read_text() == SSH_CONFIG


def test_scp_s_exit_status_and_words_are_its_own(laptop: Laptop) -> None:
    done = laptop.run("scp", "box:/nonexistent", ".")
    assert done.status == 1 and "No such file" in done.stderr


def test_sftp_runs_a_batch(laptop: Laptop) -> None:
    (laptop.folder / "sent").write_bytes(b"content")
    for place, target in (
        (f"box:{laptop.folder}", "one"),
        (f"sftp://{USER}@box/{laptop.folder}", "two"),
        ("box", "three"),
    ):
        batch = f"put {laptop.folder}/sent {laptop.folder}/{target}\n".encode()
        laptop.run("sftp", "-b", "-", place, stdin=batch)
        assert (laptop.folder / target).read_bytes() == b"content", place
    done = laptop.run("sftp", "-b", "-", "box", stdin=b"get /nonexistent\n")
    assert done.status == 1


def test_rsync_copies_folders_both_ways(laptop: Laptop) -> None:
    there = laptop.folder / "there"
    laptop.check("rsync", "-a", "--exclude", "nothing", f"{laptop.ssh_config.parent}/", f"box:{there}/")
    laptop.check("rsync", "-rt", f"{USER}@box:{there}/", f"{laptop.folder}/back")
    assert (laptop.folder / "back" / "config").read_text() == SSH_CONFIG
    assert set(laptop.dialled()) == {"box"}
    assert laptop.run("rsync", "box:/nonexistent", ".").status == 23


@pytest.mark.parametrize(
    "words",
    [
        ["-e", "ssh -F {}"],
        ["-ave", "ssh -F {}"],
        ["-ave=ssh -F {}"],
        ["--rsh", "/usr/bin/ssh -F {}"],
        ["--rsh=ssh -F {}"],
    ],
    ids=" ".join,
)
def test_options_for_ssh_can_be_given_to_rsync_as_ever(laptop: Laptop, words: list[str]) -> None:
    given = [word.format(laptop.ssh_config) for word in words]
    ours = (*OURS, "rsync", "--known-hosts-file", str(laptop.known_hosts))
    laptop.bed.check(*ours, *given, str(laptop.ssh_config), f"box:{laptop.folder}/arrived", env=laptop.env)
    assert (laptop.folder / "arrived").read_text() == SSH_CONFIG
    assert laptop.dialled() == ["box"]


def test_options_for_ssh_may_be_in_rsync_s_variable(laptop: Laptop) -> None:
    """RSYNC_RSH is for rsync without -e, as ever."""
    ours = (*OURS, "rsync", "--known-hosts-file", str(laptop.known_hosts))
    copy = (str(laptop.ssh_config), f"box:{laptop.folder}/arrived")
    laptop.bed.check(*ours, *copy, env={**laptop.env, "RSYNC_RSH": f"ssh -F {laptop.ssh_config}"})
    assert (laptop.folder / "arrived").read_text() == SSH_CONFIG
    done = laptop.bed.run(*ours, *copy, env={**laptop.env, "RSYNC_RSH": "ssh -F /nonexistent"})
    assert done.status and "/nonexistent" in done.stderr  # 12 or 255, as the race ends
    laptop.bed.check(*ours, "-e", f"ssh -F {laptop.ssh_config}", *copy, env={**laptop.env, "RSYNC_RSH": "rsh"})
    done = laptop.bed.run(*ours, *copy, env={**laptop.env, "RSYNC_RSH": "rsh -x"})
    line = "wstunnel-py: RSYNC_RSH: 'rsh -x' is not ssh with options, and no other program can use a tunnel\n"
    assert (done.status, done.stderr) == (2, line)


def test_another_remote_shell_than_ssh_is_refused(laptop: Laptop) -> None:
    done = laptop.bed.run(*OURS, "rsync", "-e", "rsh -x", "a", "box:b", env=laptop.env)
    line = "wstunnel-py: -e: 'rsh -x' is not ssh with options, and no other program can use a tunnel\n"
    assert (done.status, done.stderr) == (2, line)


# ---- whose words are whose


def test_no_option_of_ours_is_rsync_s_too(bed: Bed) -> None:
    help_of_rsync = bed.check("rsync", "--help").text
    theirs = set(re.findall(r"--([a-z0-9-]+)", help_of_rsync)) | {"config"}  # of rsync --daemon
    assert not theirs & {option.flag for option in RSYNC_OPTIONS}
    assert theirs >= RSYNC_HAS_TOO


def fake(folder: Path, *names: str) -> str:
    """Return a PATH whose programs print their words; the fault to inject is that a program is missing, or another."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in names:
        (tools / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tools / name).chmod(0o755)
    return str(tools)


@pytest.mark.parametrize(
    ("words", "theirs"),
    [
        (["ssh", "-Q", "cipher"], ["-Q", "cipher"]),
        (["ssh", "--", "-Q", "cipher"], ["-Q", "cipher"]),
        (["ssh", "--quiet", "--port", "1", "--", "--", "-Q"], ["--", "-Q"]),
        (["ssh", "-v", "--", "-Q"], ["-v", "--", "-Q"]),
        (["scp", "-h", "x"], ["-h", "x"]),
        (["scp", "--no-quiet", "-V", "x"], ["-V", "x"]),
        (["sftp", "--port=1", "-V"], ["-V"]),
        (["scp", "-S", "--url", "--", "--url", "x"], ["-S", "--url", "--", "--url", "x"]),
    ],
)
def test_the_first_word_that_is_not_ours_ends_ours(
    bed: Bed, tmp_path: Path, words: list[str], theirs: list[str]
) -> None:
    done = bed.run(*OURS, *words, env={"PATH": fake(tmp_path, "ssh", "scp", "sftp")})
    printed = done.text.splitlines()
    if words[0] == "ssh" and theirs[0] in ("--", "-v"):  # -Q is a host then
        assert done.status == 255 and "'-Q' is not a host name" in done.stderr
    else:
        assert (done.status, done.stderr, printed) == (0, "", theirs)


@pytest.mark.parametrize(
    ("words", "theirs"),
    [
        (["--archive", "--token-file", "x"], ["--archive", "--token-file", "x"]),
        (["--verbose", "--port", "1"], ["--verbose", "--port", "1"]),
        (["--no-resume", "-h"], ["-h"]),
        (["--user", "me", "--", "--insecure"], ["--insecure"]),
    ],
)
def test_what_rsync_has_too_is_rsync_s(bed: Bed, tmp_path: Path, words: list[str], theirs: list[str]) -> None:
    done = bed.check(*OURS, "rsync", *words, env={"PATH": fake(tmp_path, "rsync")})
    assert done.text.splitlines()[0] == "-e"
    assert done.text.splitlines()[2:] == theirs


@pytest.mark.parametrize("command", ["ssh", "scp", "sftp", "rsync"])
def test_help_shows_no_short_option_but_h(bed: Bed, command: str) -> None:
    shown = bed.check(*OURS, command, "--help").text
    assert re.findall(r"^  (-\w), ", shown, re.MULTILINE) == ["-h"]
    assert ("--verbose" in shown.partition("Options:")[2]) == (command != "rsync")


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["ssh"], 255, "HOST is missing; usage: wstunnel-py ssh [OPTIONS] [SSH-OPTIONS] [USER@]HOST [COMMAND…]"),
        (["scp", "--quiet"], 2, "HOST is missing; usage: wstunnel-py scp [OPTIONS] [SCP-OPTIONS] SOURCE… TARGET"),
        (["ssh", "--tokn-file", "x", "box"], 255,
         "there is no option --tokn-file; did you mean --token-file?; see wstunnel-py ssh --help"),
        (["ssh", "-v", "--url", "ws://h.test", "box"], 255, "--url must come before ssh's own words: "
         "wstunnel-py ssh --url …"),
        (["ssh", "box", "--user=me", "ls"], 255, "--user must come before ssh's own words: "
         "wstunnel-py ssh --user …"),
        (["ssh", "box", "-v", "--no-quiet", "--", "ls"], 255, "--no-quiet must come before ssh's own words: "
         "wstunnel-py ssh --no-quiet …"),
        (["scp", "-r", "--token-file", "x", "a", "box:"], 2, "--token-file must come before scp's own words: "
         "wstunnel-py scp --token-file …"),
        (["sftp", "-b", "batch", "--help", "box"], 2, "--help must come before sftp's own words: "
         "wstunnel-py sftp --help …"),
        (["sftp", "-b", "batch", "--tokn-file", "x", "box"], 2,
         "there is no option --tokn-file; did you mean --token-file?; see wstunnel-py sftp --help"),
        (["sftp", "--token-file"], 2, "--token-file needs a value: FILE"),
        (["ssh", "--user", "a b", "box"], 255,
         "--user: 'a b' has characters other than letters, digits and + - . @ _"),
        (["ssh", "a*b"], 255, "'a*b' is not a host name: use letters and digits, with . _ - between them"),
        (["scp", "a b:x", "y"], 2, "'a b' is not a host name: use letters and digits, with . _ - between them"),
        (["ssh", "box:22"], 255, "'box:22' is not a host name: leave out the port, which the tunnel's URL decides"),
        (["ssh", "ws://h.test:80"], 255,
         "'ws://h.test:80' is not a host name: put the URL into --url, or into the config file"),
        (["sftp", "--proxy", "http://me:hunter2@p", "box"], 2,
         "--proxy: a password must not be on a command line, which other users can read; use config.toml"),
        (["ssh", "--token-file", "/a\nb", "box"], 255, "--token-file: the value has characters that are not printable"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(bed: Bed, words: list[str], status: int, line: str) -> None:
    done = bed.run(*OURS, *words)
    assert (done.status, done.text, done.stderr) == (status, "", f"wstunnel-py: {line}\n")


@pytest.mark.parametrize(("command", "status"), [("ssh", 255), ("scp", 69), ("sftp", 69), ("rsync", 69)])
def test_a_missing_program_is_one_line_that_says_what_to_install(
    bed: Bed, tmp_path: Path, command: str, status: int
) -> None:
    done = bed.run(*OURS, command, "box:", env={"PATH": fake(tmp_path)})
    assert (done.status, done.text, done.stderr.count("\n")) == (status, "", 1)
    assert done.stderr.startswith(f"wstunnel-py: cannot run {command}: it is not on the PATH; install ")


def test_a_program_that_cannot_be_run_is_one_line(bed: Bed, tmp_path: Path) -> None:
    path = fake(tmp_path, "ssh")
    (Path(path) / "ssh").write_text("#!/nonexistent/interpreter\n")
    done = bed.run(*OURS, "ssh", "box", env={"PATH": path})
    assert (done.status, done.stderr.count("\n")) == (255, 1)
    assert done.stderr.startswith(f"wstunnel-py: cannot run {path}/ssh: No such file or directory; install ")


def test_the_programs_of_the_test_are_the_real_ones() -> None:
    for name in ("ssh", "scp", "sftp", "rsync"):
        assert program(name).startswith("/usr/bin/")
