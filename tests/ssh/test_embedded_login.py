"""Who may log in at the embedded SSH server, with which key, to do what, and how it refuses others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import tunnel
from tests.bed.processes import Bed, free_port, ticks
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, Route, start_embedded
from tests.ssh.conftest import StartEmbedded, route_to, write_keys
from tunnel.errors import UsageError
from tunnel.ssh.host_key import describe_key
from tunnel.ssh.server.keys import load_authorized_keys, load_host_key

# What ssh says when it may not log in.
DENIED = "Permission denied (publickey)"


@pytest.fixture
def public_key(sshd: Sshd) -> str:
    """The public key of the user who runs the tests, as a line."""
    return (sshd.folder / "user.pub").read_text().strip()


def restricted(bed: Bed, sshd: Sshd, line: str) -> Route:
    """An embedded server with a single line in authorized_keys."""
    keys = write_keys(bed.folder / "keys", line)
    return route_to(bed, sshd, start_embedded(bed, sshd, "--authorized-keys", str(keys)))


def refuses_to_start(bed: Bed, *options: str, env: dict[str, str] | None = None) -> str:
    finished = bed.run(*OURS, "serve", "--listen", "127.0.0.1:0", *options, env=env)
    assert finished.status == 2 and finished.stdout == b""
    *warnings, error = finished.stderr.splitlines()
    assert all(" ssh-warning " in line for line in warnings), warnings
    return error


# ---- starting


def test_without_a_usable_key_it_refuses_to_start(bed: Bed, tmp_path: Path, public_key: str) -> None:
    start = ("--target", "embedded", "--host-key", str(tmp_path / "host"))
    env = {"HOME": str(tmp_path)}
    hint = (
        "; put your public key into it, a line such as 'ssh-ed25519 AAAAC3Nz… you@laptop'; "
        "on your machine it is in ~/.ssh/id_ed25519.pub"
    )
    missing = f"--authorized-keys: cannot use {tmp_path}/.ssh/authorized_keys: No such file or directory"
    assert refuses_to_start(bed, *start, env=env) == f"wstunnel-py: {missing}{hint}"
    for lines, reason in (
        ([], "no usable public key"),
        (["# nobody", "", "not a key at all", "ssh-ed25519 AAAA"], "no usable public key"),
        ([f'from="192.0.2.1" {public_key}'], "no usable public key"),
    ):
        keys = write_keys(tmp_path / "keys", *lines)
        error = refuses_to_start(bed, *start, "--authorized-keys", str(keys))
        assert error.startswith(f"wstunnel-py: --authorized-keys: cannot use {keys}: it has {reason}")
        assert error.endswith(hint)
    keys = write_keys(tmp_path / "keys", public_key, mode=0o620)
    assert "other users may write to it" in refuses_to_start(bed, *start, "--authorized-keys", str(keys))


def test_a_host_key_that_cannot_be_used_stops_the_start(bed: Bed, tmp_path: Path, public_key: str, sshd: Sshd) -> None:
    start = ("--target", "embedded", "--authorized-keys", str(write_keys(tmp_path / "keys", public_key)))
    host = tmp_path / "host"
    host.write_text((sshd.folder / "host").read_text())
    host.chmod(0o640)
    assert "other users may read it" in refuses_to_start(bed, *start, "--host-key", str(host))
    host.write_text("no key")
    host.chmod(0o600)
    assert f"cannot use {host}" in refuses_to_start(bed, *start, "--host-key", str(host))
    assert "below: " in refuses_to_start(bed, *start, "--host-key", str(host / "below"))


def test_options_of_the_embedded_server_need_target_embedded(bed: Bed) -> None:
    assert "apply only to --target embedded" in refuses_to_start(bed, "--host-key", "somewhere")


def test_a_host_key_is_made_once(bed: Bed, tmp_path: Path, public_key: str) -> None:
    keys = write_keys(tmp_path / "keys", public_key)
    command = (*OURS, "serve", "--listen", "127.0.0.1:0", "--target", "embedded", "--authorized-keys", str(keys))
    fingerprints = []
    for _ in range(2):
        process = bed.start(*command, env={"XDG_STATE_HOME": str(tmp_path / "state")})
        fingerprints.append(process.wait_for_line(r"host key (SHA256:\S+)")[1])
        process.end()
    assert fingerprints[0] == fingerprints[1]
    key = tmp_path / "state" / "wstunnel-py" / "ssh_host_ed25519_key"
    shown = bed.check("ssh-keygen", "-l", "-f", f"{key}.pub").text
    assert shown.split()[1] == fingerprints[0]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert sorted(path.name for path in key.parent.iterdir()) == [key.name, f"{key.name}.pub"]


# ---- logging in


def test_only_authorized_keys_and_the_service_s_own_user_are_admitted(bed: Bed, embedded: StartEmbedded) -> None:
    route = embedded()
    stranger = bed.folder / "stranger"
    bed.check("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger))
    finished = bed.run("ssh", "-F", "/dev/null", *options_of(route, stranger), "box", "true")
    assert finished.status == 255 and DENIED in finished.stderr
    route.bridge.process.wait_for_line("ssh-refused .*none of the client's keys is authorized")
    finished = bed.run(*route.ssh("-l", "somebody-else", "box", "true"))
    assert finished.status == 255 and DENIED in finished.stderr
    route.bridge.process.wait_for_line("ssh-refused .*somebody-else.*can log in")
    methods = "PreferredAuthentications=password,keyboard-interactive,none"
    finished = bed.run(*route.ssh("-o", "PubkeyAuthentication=no", "-o", methods, "box"))
    assert finished.status == 255 and DENIED in finished.stderr
    bed.check(*route.ssh("box", "true"))
    route.bridge.process.wait_for_line("ssh-login client=127.0.0.1:.* key=SHA256:")


def test_odd_names_of_users_do_no_harm(bed: Bed, shared_embedded: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncssh.connection.saslprep", lambda name: name)  # in this process, the client's
    for name in ("x" * 5000, "\x1b[31mred", "\U0001f600" * 200, "a\u2028b", "root\u0000", "%n%s{}"):
        with pytest.raises((asyncssh.Error, OSError)):
            log_in(shared_embedded, name)
    assert bed.check(*shared_embedded.ssh("box", "echo in")).text == "in\n"
    log = shared_embedded.bridge.process.log()
    assert "\x1b" not in log and "internal" not in log and "Traceback" not in log


def log_in(route: Route, user: str) -> None:
    async def work() -> None:
        options: dict[str, Any] = {
            "username": user,
            "client_keys": [],
            "known_hosts": None,
            "config": [],
            "agent_path": None,
        }
        async with tunnel.ssh.connect(route.bridge.url, **options):
            pass

    asyncio.run(work())


def options_of(route: Route, key: Path) -> tuple[str, ...]:
    """Return ssh's options for another key on ``route``."""
    lines = (line.strip() for line in route.config.read_text().splitlines()[1:])
    kept = [line.replace(" ", "=", 1) for line in lines if not line.startswith("IdentityFile")]
    return ("-i", str(key), *(word for line in kept for word in ("-o", line)))


def test_keys_may_change_while_it_runs(bed: Bed, sshd: Sshd, public_key: str) -> None:
    keys = write_keys(bed.folder / "keys", public_key)
    route = route_to(bed, sshd, start_embedded(bed, sshd, "--authorized-keys", str(keys)))
    bed.check(*route.ssh("box", "true"))
    write_keys(keys, "# nobody any more")
    assert bed.run(*route.ssh("box", "true")).status == 255
    route.bridge.process.wait_for_line("ssh-refused .*no usable public key")
    write_keys(keys, public_key)
    bed.check(*route.ssh("box", "true"))


def test_a_key_may_be_bound_to_a_command(bed: Bed, sshd: Sshd, public_key: str) -> None:
    route = restricted(bed, sshd, f'command="echo only \\"this\\"; echo $FAVOURITE$LC_ALL" {public_key}')
    options = ("-o", "SetEnv=FAVOURITE=blue LC_ALL=C")
    assert bed.check(*route.ssh(*options, "box", "something else")).text == "only this\nC\n"
    assert bed.run("sftp", "-F", str(route.config), "-b", "-", "box", stdin=b"pwd\n").status != 0


def test_a_restricted_key_has_no_terminal_agent_or_ports(bed: Bed, sshd: Sshd, public_key: str) -> None:
    route = restricted(bed, sshd, f"restrict {public_key}")
    assert bed.check(*route.ssh("-A", "box", "echo ${SSH_AUTH_SOCK-none}")).text == "none\n"
    finished = bed.run(*route.ssh("-tt", "-o", "LogLevel=INFO", "box", "tty"))
    assert "PTY allocation request failed" in finished.stderr and finished.text == ""
    assert bed.run(*route.ssh("-W", f"127.0.0.1:{sshd.port}", "box")).status == 255
    forward = ("-o", "ExitOnForwardFailure=yes", "-R", f"{free_port()}:127.0.0.1:1")
    assert bed.run(*route.ssh(*forward, "box", "true")).status == 255


def test_permitopen_limits_a_key_to_some_ports(bed: Bed, sshd: Sshd, public_key: str, short_folder: Path) -> None:
    route = restricted(bed, sshd, f'permitopen="127.0.0.1:{sshd.port}" {public_key}')
    banner = bed.run(*route.ssh("-W", f"127.0.0.1:{sshd.port}", "box"), stdin=b"")
    assert banner.text.startswith("SSH-2.0-OpenSSH")
    assert bed.run(*route.ssh("-W", f"127.0.0.1:{free_port()}", "box")).status == 255
    with socket.socket(socket.AF_UNIX) as sock:
        near, far = str(short_folder / "near"), str(short_folder / "far")
        forwards = ("-L", f"{near}:{far}", "-o", "LogLevel=INFO")
        session = bed.start(*route.ssh(*forwards, "-N", "box"))
        for _ in ticks(60):  # it is there a moment before ssh listens
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                sock.connect(near)
                break
        sock.settimeout(60)
        assert sock.recv(1) == b""
        session.wait_for_line("open failed")


def test_a_certificate_of_a_trusted_authority_comes_in(bed: Bed, sshd: Sshd, embedded: StartEmbedded) -> None:
    authority, user = bed.folder / "authority", bed.folder / "member"
    for path in (authority, user):
        bed.check("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
    name = bed.check("id", "-un").text.strip()
    bed.check("ssh-keygen", "-q", "-s", str(authority), "-I", "member", "-n", name, "-V", "+1h", f"{user}.pub")
    route = restricted(bed, sshd, f"cert-authority {Path(f'{authority}.pub').read_text().strip()}")
    assert bed.check("ssh", "-F", "/dev/null", *options_of(route, user), "box", "echo in").text == "in\n"
    Path(f"{user}-cert.pub").unlink()
    assert bed.run("ssh", "-F", "/dev/null", *options_of(route, user), "box", "echo in").status == 255


# ---- the file of keys


@pytest.mark.parametrize(
    "options",
    ['from="192.0.2.1"', 'expiry-time="20200101"', "verify-required", 'tunnel="0"', "unheard-of", 'NO-PTY,From="*"'],
)
def test_an_option_that_cannot_be_enforced_admits_nobody(tmp_path: Path, public_key: str, options: str) -> None:
    warnings: list[str] = []
    with pytest.raises(UsageError, match="no usable public key"):
        load_authorized_keys(str(write_keys(tmp_path / "keys", f"{options} {public_key}")), warnings.append)
    assert len(warnings) == 1 and "line 1 is ignored" in warnings[0] and "not supported" in warnings[0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('no-pty="yes" {key}', "takes no value"),
        ("command {key}", "needs a value"),
        ("no-pty,", "not a public key"),
        ("no-pty {key", "not a public key"),
        ('command="unclosed {key}', "not a public key"),
        ("ssh-ed25519 !!!!", "No valid entries"),
        ('command="one",command="two" {key}', "command is given twice"),
        ('command="one",Command="" {key}', "command is given twice"),
        ('cert-authority,principals="a",principals="b" {key}', "principals is given twice"),
        ('cert-authority,principals="sta*" {key}', "takes names"),
        ('cert-authority,principals="!me,you" {key}', "takes names"),
        ('cert-authority,principals="" {key}', "takes names"),
        ('principals="me" {key}', "needs cert-authority"),
        ('environment="no name" {key}', "needs NAME=value"),
        ('environment="=value" {key}', "needs NAME=value"),
        ('permitopen="somewhere" {key}', "Illegal permitopen"),
        ("no-pty {key}\x0bssh-ed25519 AAAA", "control character"),
        ("no-pty {key}\u2028{key}", "control character"),
    ],
)
def test_an_invalid_line_of_authorized_keys_causes_a_warning(
    tmp_path: Path, public_key: str, line: str, reason: str
) -> None:
    warnings: list[str] = []
    keys = write_keys(tmp_path / "keys", public_key, line.replace("{key}", public_key))
    assert load_authorized_keys(str(keys), warnings.append)[1] == 1
    assert len(warnings) == 1 and "line 2" in warnings[0] and reason in warnings[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path, public_key: str, encoding: str) -> None:
    path = write_keys(tmp_path / "keys", "")
    path.write_bytes(f"{public_key}\r\nno-pty {public_key}\r\n".encode(encoding))
    assert load_authorized_keys(str(path), pytest.fail)[1] == 2


def test_a_binary_file_is_refused_as_authorized_keys(tmp_path: Path, public_key: str) -> None:
    path = write_keys(tmp_path / "keys", "")
    path.write_bytes(public_key.encode("utf-16")[:-1])
    with pytest.raises(UsageError, match="it is not a text file"):
        load_authorized_keys(str(path), pytest.fail)


def test_a_byte_order_mark_is_no_part_of_a_private_key(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    path = tmp_path / "key"
    path.write_bytes(b"\xef\xbb\xbf" + key.export_private_key().replace(b"\n", b"\r\n"))
    path.chmod(0o600)
    assert load_host_key(str(path)) == key
    assert key.get_fingerprint() in describe_key(str(path))[0]


def test_restrict_is_spelt_out_and_capital_letters_are_as_good(tmp_path: Path, public_key: str) -> None:
    def options(line: str) -> set[str]:
        keys, _ = load_authorized_keys(str(write_keys(tmp_path / "keys", f"{line} {public_key}")), pytest.fail)
        found = keys.validate(asyncssh.import_public_key(public_key), "", "")
        assert isinstance(found, dict)
        return {name.lower() for name in found}

    every = {"no-agent-forwarding", "no-port-forwarding", "no-pty", "no-user-rc", "no-x11-forwarding"}
    assert options("restrict") == every
    assert options("Restrict,PTY,port-forwarding") == every - {"no-pty", "no-port-forwarding"}
    assert options("No-Pty") == {"no-pty"}
    # The last one counts, as in OpenSSH's server.
    assert options("pty,restrict") == every
    assert options("restrict,pty,no-pty") == every
    assert options("no-pty,pty") == set()


def test_a_backslash_escapes_a_quote_and_nothing_else(tmp_path: Path, public_key: str) -> None:
    line = r"""command="grep -E \"^a\.b$\" 'c:\d' \\ .",environment="A=\n" """ + public_key
    keys, _ = load_authorized_keys(str(write_keys(tmp_path / "keys", line)), pytest.fail)
    found = keys.validate(asyncssh.import_public_key(public_key), "", "")
    assert found == {"command": r"""grep -E "^a\.b$" 'c:\d' \\ .""", "environment": {"A": r"\n"}}


def test_two_starts_at_once_agree_on_the_host_key(tmp_path: Path) -> None:
    path = str(tmp_path / "state" / "host")
    if not (child := os.fork()):
        load_host_key(path)
        os._exit(0)
    key = load_host_key(path)
    os.waitpid(child, 0)
    assert load_host_key(path) == key
    assert sorted(os.listdir(tmp_path / "state")) == ["host", "host.pub"]
