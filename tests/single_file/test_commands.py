"""The single file without any package: every command that needs none, run for real."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.bed.built import ROOT, Built
from tests.bed.processes import Bed, Process, free_port
from tests.bed.sshd import Sshd
from tests.bed.targets import Target
from tests.bed.tunnels import WEBSOCAT
from tests.restart.restarting import restart
from tests.server.clients import assert_echo, open_tunnel
from tests.single_file.conftest import BARE
from tunnel._version import __version__
from tunnel.cli.group import COMMANDS

TOKEN = "a-token-of-the-test"


def url_of(bridge: Process) -> str:
    return bridge.wait_for_line(r"ready on (wss?://[^\s,]+)")[1]


def start_bridge(bed: Bed, alone: tuple[str, ...], sshd: Sshd, *options: str) -> Process:
    where = ("--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{sshd.port}")
    return bed.start(*alone, "serve", *where, *options)


def ssh(bed: Bed, sshd: Sshd, *client: str) -> None:
    """Run a command by ssh, with ``client`` as the ProxyCommand; its exit status and output come back."""
    config = sshd.write_client_config(bed.folder / "ssh_config", client)
    finished = bed.run("ssh", "-F", str(config), "box", "echo through; exit 7")
    assert (finished.status, finished.text) == (7, "through\n"), finished.stderr


@pytest.fixture
def token(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("resume", [("--no-resume",), ()])
def test_ssh_goes_through_both_ends(
    bed: Bed, alone: tuple[str, ...], sshd: Sshd, token: str, resume: tuple[str, ...]
) -> None:
    authority = trustme.CA()
    ca, chain = bed.folder / "ca.pem", bed.folder / "chain.pem"
    authority.cert_pem.write_to_path(str(ca))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(chain))
    chain.chmod(0o600)
    tls = ("--tls-cert", str(chain), "--tls-key", str(chain))
    bridge = start_bridge(bed, alone, sshd, "--token-file", token, *tls)
    url = url_of(bridge)
    assert url.startswith("wss://")
    ssh(bed, sshd, *alone, "connect", "--ca-file", str(ca), "--token-file", token, *resume, url)
    assert "so nothing warns before certificates expire" in bridge.log()
    refused = bed.run(*alone, "connect", "--ca-file", str(ca), *resume, url)
    assert refused.status == 77 and "401" in refused.stderr


def test_a_port_is_forwarded_and_a_tunnel_examined(bed: Bed, alone: tuple[str, ...], sshd: Sshd) -> None:
    url = url_of(start_bridge(bed, alone, sshd))
    port = free_port()
    forward = bed.start(*alone, "forward", f"127.0.0.1:{port}", url)
    forward.wait_for_line(str(port))
    direct = sshd.write_client_config(bed.folder / "forwarded", ())
    there = bed.run("ssh", "-F", str(direct), "-p", str(port), "box", "echo through")
    assert there.text == "through\n", there.stderr
    examined = bed.check(*alone, "doctor", "--json", url)
    assert '"ok": true' in examined.text and "ssh" in examined.text


def test_ssh_is_started_with_the_file_as_its_proxycommand(bed: Bed, alone: tuple[str, ...], sshd: Sshd) -> None:
    url = url_of(start_bridge(bed, alone, sshd))
    config = sshd.write_client_config(bed.folder / "login", ("false",))  # which `wstunnel-py ssh` overrides
    known = ("--known-hosts-file", str(bed.folder / "known_hosts"))
    finished = bed.run(*alone, "ssh", "--url", url, *known, "-F", str(config), "box", "echo through; exit 7")
    assert (finished.status, finished.text) == (7, "through\n"), finished.stderr


def test_ssh_s_configuration_names_the_file_by_its_absolute_path(
    bed: Bed, built: Built, sshd: Sshd, short_folder: Path
) -> None:
    alone = (*BARE, os.path.relpath(built.archive, bed.folder))
    url = url_of(start_bridge(bed, alone, sshd))
    config = short_folder / "config.toml"
    config.write_text(f'[hosts.box]\nurl = "{url}"\n')
    written = bed.check(*alone, "config-ssh", "--config", str(config), "box").text
    assert f"ProxyCommand {sys.executable} {built.archive} connect " in written
    ssh_config = short_folder / "ssh_config"
    ours = sshd.write_client_config(short_folder / "login", ())
    login = re.sub(r"(HostName|Port|HostKeyAlias) .*", "", ours.read_text())
    ssh_config.write_text(f"Host box\nHostKeyAlias bed\n{login}\n{written}")
    finished = bed.run("ssh", "-F", str(ssh_config), "box", "echo through")
    assert finished.text == "through\n", finished.stderr


def test_a_restart_in_place_becomes_what_the_file_is_then(
    bed: Bed, built: Built, echo_target: Target, tmp_path: Path
) -> None:
    """Started by a relative path, and with a new version under its name, a tunnel is still open."""
    archive = tmp_path / "w.pyz"
    shutil.copy(built.archive, archive)
    relative = os.path.relpath(archive, bed.folder)
    where = ("--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{echo_target.port}")
    bridge = bed.start(*BARE, relative, "serve", *where)
    with open_tunnel(url_of(bridge)) as tunnel:
        assert_echo(tunnel)
        newer = tmp_path / "newer.pyz"
        with zipfile.ZipFile(built.archive) as old, zipfile.ZipFile(newer, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "tunnel/_version.py":
                    content = content.replace(__version__.encode(), b"99.9")
                if name == "wstunnel_py_start.py":  # as scripts/build would
                    content = re.sub(rb'DIGEST = "\w+"', b'DIGEST = "' + b"9" * 64 + b'"', content)
                new.writestr(name, content)
        newer.replace(archive)
        assert "99.9" in restart(bridge)
        assert_echo(tunnel)


def test_a_link_called_websocat_is_websocat_at_both_ends(bed: Bed, built: Built, sshd: Sshd) -> None:
    """By the command lines of E2B's page, started by the archive's own first line."""
    link = bed.folder / "websocat"
    link.symlink_to(built.archive)
    port = free_port()
    bridge = bed.start(str(link), "-b", "--exit-on-eof", f"ws-l:127.0.0.1:{port}", f"tcp:127.0.0.1:{sshd.port}")
    bridge.wait_for_line("listening on")
    for client in (str(link), WEBSOCAT):
        ssh(bed, sshd, client, "--binary", "-B", "65536", "-", f"ws://127.0.0.1:{port}")
    assert bed.check(str(link), "--version").text == f"wstunnel-py {__version__}\n"


MISSING = {
    "keys host key": "asyncssh",
    "keys show host.pub": "asyncssh",
    "certs ca ca": "cryptography",
    "serve --target embedded": "asyncssh",
    "serve --pty 127.0.0.1:0": "aiohttp",
    "serve --uvloop": "uvloop",
    "shell http://127.0.0.1:1": "httpx",
    "pty ps http://127.0.0.1:1": "httpx",
}


@pytest.mark.parametrize("words", MISSING)
def test_what_needs_a_package_names_it_and_the_page_about_it(bed: Bed, alone: tuple[str, ...], words: str) -> None:
    (bed.folder / "host.pub").write_text("ssh-ed25519 AAAA\n")
    finished = bed.run(*alone, *words.split())
    status = 255 if words.startswith("shell") else 2  # shell ends as ssh does
    assert (finished.status, finished.stderr.count("\n")) == (status, 1), finished.stderr
    assert f'{MISSING[words]} is not installed: see "Optional packages" in docs/install.md' in finished.stderr


def test_tokens_need_no_package(bed: Bed, alone: tuple[str, ...]) -> None:
    bed.check(*alone, "keys", "token", "token")
    assert bed.check(*alone, "keys", "show", "token").text == "token: one token\n"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("shell", "pty")])
def test_every_other_command_has_its_help(bed: Bed, alone: tuple[str, ...], command: str) -> None:
    assert bed.check(*alone, command, "--help").text.startswith(f"Usage: wstunnel-py {command} ")


def test_packages_of_this_python_are_used_where_they_are_needed(bed: Bed, built: Built, sshd: Sshd, token: str) -> None:
    """The embedded SSH server, terminals and their page; which all start or read something beside Python modules."""
    keys = ("--authorized-keys", str(sshd.folder / "authorized_keys"), "--host-key", str(sshd.folder / "host"))
    page = ("--pty", "127.0.0.1:0", "--pty-token-file", token, "--web")
    listen = ("--listen", "127.0.0.1:0")
    with_packages = (sys.executable, str(built.archive))
    bridge = bed.start(*with_packages, "serve", *listen, "--target", "embedded", *keys, *page, env={"PYTHONPATH": ""})
    terminals = bridge.wait_for_line(r"terminals ready on (http://\S+)")[1]
    with urllib.request.urlopen(f"{terminals}/", timeout=20) as answer:
        assert b"<html" in answer.read()
    ssh(bed, sshd, *with_packages, "connect", url_of(bridge))


@pytest.fixture
def another_speedups(tmp_path: Path) -> Iterator[Path]:
    """A folder with the C extension of websockets alone, as if any version of it were installed there."""
    import websockets.speedups

    folder = tmp_path / "packages" / "websockets"
    folder.mkdir(parents=True)
    file = Path(websockets.speedups.__file__)
    (folder / file.name).write_bytes(file.read_bytes())
    yield folder.parent


def masks_by(bed: Bed, folder: Path) -> str:
    code = "import tunnel.protocol.masking as m; print(m.apply_mask is m.mask_in_python)"
    path = f"{folder}{os.pathsep}{ROOT}"
    said = bed.check(sys.executable, "-S", "-c", code, env={"PYTHONPATH": path}).text
    return {"True\n": "python", "False\n": "extension"}[said]


def test_the_extension_is_taken_from_wherever_it_can_be_imported(bed: Bed, another_speedups: Path) -> None:
    assert masks_by(bed, another_speedups / "nowhere") == "python"
    assert masks_by(bed, another_speedups) == "extension"


def test_an_extension_that_masks_otherwise_is_not_used(bed: Bed, another_speedups: Path) -> None:
    (file,) = (another_speedups / "websockets").iterdir()
    code = file.read_bytes()
    assert code.count(b"apply_mask\0") >= 1
    file.write_bytes(code.replace(b"apply_mask\0", b"other_mask\0"))
    assert masks_by(bed, another_speedups) == "python"
    file.write_bytes(b"no library")
    assert masks_by(bed, another_speedups) == "python"


def test_a_python_that_is_too_old_gets_one_line(bed: Bed, built: Built) -> None:
    """The version is a pretence here, so what any Python has to understand is looked at by its grammar."""
    with zipfile.ZipFile(built.archive) as archive:
        start = archive.read("__main__.py").decode()
    ast.parse(start, feature_version=(3, 4))
    assert not re.search(r'\bf"|async|: \w+ =|->|nonlocal|print\(', start)
    pretend = "import sys, runpy; sys.version_info = (3, 10, 4, 'final', 0); runpy.run_path(sys.argv[1])"
    done = subprocess.run([*BARE, "-c", pretend, str(built.archive)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "wstunnel-py: needs Python 3.11 or later; this is Python 3.10\n",
    )


# As in Debian's python3-minimal, or in a Python that was built without OpenSSL.
@pytest.mark.parametrize(
    ("module", "words"), [("gettext", "--version"), ("asyncio", "serve"), ("_ssl", "connect wss://127.0.0.1:1")]
)
def test_a_python_that_is_not_complete_gets_one_line(bed: Bed, built: Built, module: str, words: str) -> None:
    lacking = f"import runpy, sys; sys.modules[{module!r}] = None; del sys.argv[0]"
    program = f"{lacking}; runpy.run_path(sys.argv[0], run_name='__main__')"
    finished = bed.run(*BARE, "-c", program, str(built.archive), *words.split())
    said = f"wstunnel-py: this Python lacks its own module {module}: use a complete Python"
    assert (finished.status, finished.stderr.count("\n")) == (2, 1), finished.stderr
    assert finished.stderr.startswith(said)


def test_licences_of_all_that_is_inside_are_inside(built: Built) -> None:
    with zipfile.ZipFile(built.archive) as archive:
        names = archive.namelist()
    licensed = {name.split("/")[1].partition("-")[0] for name in names if name.startswith("licenses/")}
    assert licensed == {"wstunnel", "click", "websockets"}
    assert "tunnel/pty/web/vendor/LICENSE" in names
    assert {name.partition("/")[0] for name in names if "/" in name} == {"tunnel", "click", "websockets", "licenses"}
    assert not any(name.endswith((".so", ".pyd", ".pyc", ".c")) for name in names)
