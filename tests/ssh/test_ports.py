"""Local ports for hosts: config-ssh --ports and forward --all agree on them, and ssh works through them."""

from __future__ import annotations

import getpass
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, free_port
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, start_bridge
from tunnel.client.config import Config
from tunnel.errors import UsageError
from tunnel.ssh.ports import HIGHEST, LOWEST, local_ports


class Laptop:
    """A home whose config file a test writes, and where ports are kept."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed = bed
        self.folder = folder
        self.config = folder / "wstunnel-py" / "config.toml"
        self.config.parent.mkdir()
        self.state = folder / "state" / "wstunnel-py" / "ports"
        self.env = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}

    def ports(self, *words: str) -> dict[str, int]:
        printed = self.bed.check(*OURS, "config-ssh", "--ports", *words, env=self.env).text
        found = re.findall(r"^Host (\S+)\n    HostName 127\.0\.0\.1\n    Port (\d+)$", printed, re.MULTILINE)
        return {name: int(port) for name, port in found}

    def refused(self, *words: str) -> str:
        done = self.bed.run(*OURS, *words, env=self.env)
        assert (done.status, done.text, done.stderr.count("\n")) == (2, "", 1)
        return done.stderr.removeprefix("wstunnel-py: ").rstrip("\n")

    def forward(self, *words: str) -> Process:
        return self.bed.start(*OURS, "forward", "--all", *words, env=self.env)


@pytest.fixture
def laptop(bed: Bed, tmp_path: Path) -> Laptop:
    folder = tmp_path / "laptop"
    folder.mkdir()
    return Laptop(bed, folder)


# ---- the numbers


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "wstunnel-py" / "ports"


def config_of(*names: str, **chosen: int) -> Config:
    return Config("config.toml", {}, {name: {"forward-port": chosen[name]} if name in chosen else {} for name in names})


def ports_of(*names: str, **chosen: int) -> dict[str, int]:
    return local_ports(config_of(*names, **chosen), names)


def test_hosts_keep_their_ports_whatever_hosts_come_and_go(state: Path) -> None:
    """There are so many of them that some begin with the same number."""
    names = [f"host{number}" for number in range(2000)]
    first = ports_of(*names)
    assert len(set(first.values())) == len(names)
    assert all(LOWEST <= port <= HIGHEST for port in first.values())
    fewer = names[1000:]
    assert ports_of(*fewer) == {name: first[name] for name in fewer}
    assert ports_of("zz", *reversed(names), "aa").items() >= first.items()
    written = state.stat().st_ino
    assert ports_of(*names) == first
    assert state.stat().st_ino == written
    assert state.read_text().startswith("# Ports of this machine")


def test_upper_and_lower_case_are_the_same(state: Path) -> None:
    assert ports_of("build") == local_ports(config_of("Build"), ["Build"])


def test_the_same_numbers_come_again_without_the_file(state: Path) -> None:
    before = ports_of("build", "test")
    state.unlink()
    assert ports_of("test", "build") == before


def test_a_chosen_port_goes_before_one_that_another_host_had(state: Path) -> None:
    port = ports_of("a", "b")["a"]
    after = ports_of("a", "b", b=port)
    assert after["b"] == port != after["a"]
    assert ports_of("a", "b", b=port) == after
    assert ports_of("a", "c", a=1234)["a"] == 1234


def test_two_hosts_cannot_choose_the_same_port(state: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.toml: hosts\.a and hosts\.b have the same forward-port 99"):
        ports_of("a", "b", a=99, b=99)


@pytest.mark.parametrize("line", ["x build", "70000 build", "1234", "1" * 5000 + " build", "\udcff"])
def test_a_file_that_was_spoilt_is_reported(state: Path, line: str) -> None:
    ports_of("build")
    state.write_bytes(state.read_bytes() + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(UsageError, match=r"ports: line 3 is not a port and a host: correct it, or delete the file"):
        ports_of("build")


def test_a_file_that_cannot_be_kept_is_reported(state: Path, tmp_path: Path) -> None:
    (tmp_path / "wstunnel-py").write_text("a file where the folder should be")
    with pytest.raises(UsageError, match="wstunnel-py/ports: Not a directory"):
        ports_of("build")
    assert ports_of("build", build=4000) == {"build": 4000}  # nothing need be kept


# ---- config-ssh --ports


def test_blocks_name_the_port_and_keep_the_hosts_key(bed: Bed, laptop: Laptop) -> None:
    laptop.config.write_text(
        '[hosts.build]\nuser = "bob"\n[hosts.image]\nhost-key-alias = "my-image"\nforward-port = 20022\n'
    )
    printed = bed.check(*OURS, "config-ssh", "--ports", env=laptop.env)
    path = laptop.folder / "printed"
    path.write_bytes(printed.stdout)
    ports = laptop.ports()
    assert set(ports) == {"build", "image"} and ports["image"] == 20022
    for host, user, alias in (("build", "bob", "build"), ("image", None, "my-image")):
        read = dict(
            line.split(" ", 1)
            for line in bed.check("ssh", "-G", "-F", str(path), host).text.splitlines()
            if " " in line
        )
        assert (read["hostname"], int(read["port"]), read["hostkeyalias"]) == ("127.0.0.1", ports[host], alias)
        assert read["userknownhostsfile"].endswith("known_hosts.wstunnel-py")
        assert read["nohostauthenticationforlocalhost"] == "no" and "proxycommand" not in read
        assert user in (None, read["user"])
    # A pattern has no port, so it is led through a tunnel as ever.
    assert "proxycommand" in bed.check("ssh", "-G", "-F", str(path), "abc.e2b").text


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("", ["--ports"], "no host in {} can have a port: add a table [hosts.NAME] with its url"),
        ("[hosts.a]", ["--ports", "abc.e2b"],
         "abc.e2b has no port: forward --all serves only the hosts of {}"),
        ("[hosts.a]", ["--ports", "--token-file", "x"],
         "--token-file: it has no effect with --ports: put it into the config file, or pass it to forward --all"),
        ("[hosts.a]\nforward-port = 0", [], "{}: hosts.a: forward-port: 0 is not a port number from 1 to 65535"),
        ('[hosts.a]\nforward-port = "x"', [], "{}: hosts.a: forward-port: 'x' is not a port number from 1 to 65535"),
        ('[hosts."*.a"]\nforward-port = 1', [], "{}: hosts.*.a: forward-port: a pattern cannot have a port"),
        ("forward-port = 1", [], "{}: forward-port: it belongs in the table of a host, [hosts.NAME]"),
        ('host-key-alias = "x"', [], "{}: host-key-alias: it belongs in the table of a host, [hosts.NAME]"),
        ('[hosts.a]\nuser = "a b"', [],
         "{}: hosts.a: user: 'a b' has characters other than letters, digits and + - . @ _"),
        ('[hosts.a]\nuser = "-x"', [],
         "{}: hosts.a: user: '-x' has characters other than letters, digits and + - . @ _"),
        ("[hosts.a]\nuser = 1", [], "{}: hosts.a: user: 1 is not a string"),
        ('[hosts.a]\nuser = ""', [], "{}: hosts.a: user: the value is empty"),
        ('[hosts.a]\nhost-key-alias = "a,b"', [],
         "{}: hosts.a: host-key-alias: 'a,b' has characters other than letters, digits and - . _"),
        ('[hosts.a]\nidentity-file = "a\\nb"', [],
         "{}: hosts.a: identity-file: the value has characters that are not printable"),
        ("[hosts.a]\nidentity-file = true", [], "{}: hosts.a: identity-file: True is not a string"),
        ("[hosts.a]", ["--all"], "--all needs a NAME: without NAME, all hosts are written anyway"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(laptop: Laptop, text: str, words: list[str], line: str) -> None:
    laptop.config.write_text(text + "\n")
    assert laptop.refused("config-ssh", *words) == line.format(laptop.config)


# ---- forward --all


def test_ssh_gets_to_each_host_by_its_port(bed: Bed, sshd: Sshd, laptop: Laptop) -> None:
    """Two machines with keys of their own: the keys do not mix, though both are at 127.0.0.1."""
    other = Sshd(bed, laptop.folder / "other")
    one, two = (start_bridge(bed, "ours", each.port).url for each in (sshd, other))
    laptop.config.write_text(
        f'user = "{getpass.getuser()}"\n'
        f'[hosts.one]\nurl = "{one}"\nidentity-file = "{sshd.folder}/user"\n'
        f'[hosts.two]\nurl = "{two}"\nidentity-file = "{other.folder}/user"\nforward-port = {free_port()}\n'
    )
    ssh_config = laptop.folder / "ssh_config"
    ssh_config.write_text("BatchMode yes\nIdentityAgent none\nGlobalKnownHostsFile /dev/null\nLogLevel ERROR\n")
    known = laptop.folder / "known"
    write = ("--write", "--ssh-config", str(ssh_config), "--known-hosts-file", str(known))
    bed.check(*OURS, "config-ssh", "--ports", *write, env=laptop.env)
    ports = laptop.ports()
    forward = laptop.forward()
    for name, url in (("one", one), ("two", two)):
        forward.wait_for_line(rf"forwarding 127\.0\.0\.1:{ports[name]} → {name}, {url}\n")
    for _ in range(2):
        for name, folder in (("one", sshd.folder), ("two", other.folder)):
            ssh = ("ssh", "-F", str(ssh_config), name, "echo $HOME")
            assert bed.check(*ssh).text == f"{folder}\n"
    keys = {line.split()[0]: line.split()[2] for line in known.read_text().splitlines()}
    assert keys == {
        "one": (sshd.folder / "host.pub").read_text().split()[1],
        "two": (other.folder / "host.pub").read_text().split()[1],
    }
    # `wstunnel-py ssh` needs no port, and agrees on the key.
    forward.send_signal(signal.SIGTERM)
    assert forward.wait(20) == 143
    done = bed.check(*OURS, "ssh", "-F", str(ssh_config), "one", "echo $HOME", env=laptop.env)
    assert done.text == f"{sshd.folder}\n"


def test_a_tunnel_that_fails_is_reported_with_its_hosts_name(laptop: Laptop) -> None:
    laptop.config.write_text(f'[hosts.gone]\nurl = "ws://127.0.0.1:1"\nforward-port = {free_port()}\n')
    forward = laptop.forward()
    port = int(forward.wait_for_line(r"forwarding 127\.0\.0\.1:(\d+) → gone")[1])
    # The reset may come so soon that it is what the connecting socket finds.
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.recv(1)
    forward.wait_for_line(r"wstunnel-py: gone: 127\.0\.0\.1:\d+: 127\.0\.0\.1:1 refused the connection")


def test_a_port_that_is_taken_leaves_the_others_served(laptop: Laptop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        hosts = f'[hosts.a]\nurl = "ws://127.0.0.1:1"\nforward-port = {port}\n'
        laptop.config.write_text(f'{hosts}[hosts.b]\nurl = "ws://127.0.0.1:1"\n[hosts.c]\nurl = "no url"\n')
        forward = laptop.forward()
        forward.wait_for_line(r"→ b, ")
        forward.wait_for_line(r"wstunnel-py: .*hosts\.c|wstunnel-py: c: ")
        line = f"wstunnel-py: a: cannot listen on 127.0.0.1:{port}: Address already in use; this host is not served"
        forward.wait_for_line(re.escape(line))
        assert set(laptop.ports()) == {"a", "b", "c"}

        laptop.config.write_text(hosts)
        done = laptop.bed.run(*OURS, "forward", "--all", env=laptop.env)
        last = "wstunnel-py: cannot listen on any of these ports: is another forward --all running?"
        assert (done.status, done.stderr.splitlines()[-1]) == (69, last)


def test_a_host_in_words_or_none_in_the_file_is_refused(laptop: Laptop) -> None:
    assert laptop.refused("forward", "--all", "box") == (
        "--all serves all hosts of the config file: leave out LISTEN and HOST"
    )
    laptop.config.write_text('[hosts."*.e2b"]\n')
    assert laptop.refused("forward", "--all") == (
        f"no host in {laptop.config} can be served: add a table [hosts.NAME] with its url"
    )
