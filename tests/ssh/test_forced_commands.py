"""A key or a certificate that is bound to a command runs that command and nothing else, whatever a client asks for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import Boolean, String

import tunnel
from tests.bed.processes import Bed, Finished
from tests.bed.sshd import Sshd
from tests.bed.tunnels import Route, start_embedded
from tests.ssh.authority import make_key, public, sign, with_keys
from tests.ssh.conftest import route_to, write_keys

SAY = 'echo "forced: $SSH_ORIGINAL_COMMAND"'


@pytest.fixture
def serve_keys(bed: Bed, sshd: Sshd) -> Callable[..., Route]:
    """Start an embedded server with these lines in authorized_keys."""

    def start(*lines: str) -> Route:
        keys = write_keys(bed.folder / "keys", *lines)
        return route_to(bed, sshd, start_embedded(bed, sshd, "--authorized-keys", str(keys)))

    return start


ServeKeys = Callable[..., Route]


def run(bed: Bed, route: Route, *keys: Path, command: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> Finished:
    return bed.run(*with_keys(route, *keys, options=options), *command)


def bound(bed: Bed, serve_keys: ServeKeys, how: str, command: str) -> tuple[Route, Path]:
    """A server and a key that is bound to ``command``; ``how`` says by what."""
    authority, key = make_key(bed, "authority"), make_key(bed, "bound")
    quoted = command.replace('"', '\\"')
    force = ("-O", f"force-command={command}")
    if how == "key":
        return serve_keys(f'command="{quoted}" {public(key)}'), key
    if how == "certificate":
        sign(bed, authority, key, *force)
        return serve_keys(f"cert-authority {public(authority)}"), key
    sign(bed, authority, key, *(force if how == "both" else ()))
    return serve_keys(f'cert-authority,command="{quoted}" {public(authority)}'), key


WAYS = pytest.mark.parametrize("how", ["key", "authority", "certificate", "both"])


@WAYS
def test_the_client_sets_no_variable_but_its_language(bed: Bed, serve_keys: ServeKeys, how: str) -> None:
    route, key = bound(bed, serve_keys, how, "echo forced; env")
    mark = bed.folder / "ran"
    (bed.folder / "library.so").write_text("not even a library")
    hostile = " ".join(
        [
            f"BASH_ENV=$(touch${{IFS}}{mark})", f"ENV=$(touch${{IFS}}{mark})", f"LD_PRELOAD={bed.folder}/library.so",
            "PATH=/nowhere", "GIT_SSH_COMMAND=evil", "SSH_ORIGINAL_COMMAND=evil", "SSH_CONNECTION=evil",
            "FAVOURITE=blue", "LANG=C", "LC_ALL=C.UTF-8", "LC_TIME=de_DE@euro", "LC_NAME=/tmp/evil", "TERM=vt100",
        ]
    )  # fmt: skip
    finished = run(bed, route, key, command=("whatever",), options=("-o", f"SetEnv={hostile}"))
    assert finished.status == 0 and finished.stderr == "", finished
    first, *rest = finished.text.splitlines()
    env = dict(line.split("=", 1) for line in rest if "=" in line)
    assert first == "forced" and not mark.exists()
    assert (env["LANG"], env["LC_ALL"], env["LC_TIME"], env["TERM"]) == ("C", "C.UTF-8", "de_DE@euro", "vt100")
    assert env.get("BASH_ENV") == os.environ["BASH_ENV"], "the server's own"
    assert not {"ENV", "LD_PRELOAD", "GIT_SSH_COMMAND", "FAVOURITE", "LC_NAME"} & set(env)
    assert env["PATH"] != "/nowhere" and env["SSH_ORIGINAL_COMMAND"] == "whatever"
    assert env["SSH_CONNECTION"].startswith("127.0.0.1 ")


@WAYS
def test_nothing_but_the_command_runs(bed: Bed, serve_keys: ServeKeys, tmp_path: Path, how: str) -> None:
    """This also holds for shells, sftp and scp; the command learns what the client asked for."""
    route, key = bound(bed, serve_keys, how, SAY)
    assert run(bed, route, key, command=("touch", f"{tmp_path}/x")).text == f"forced: touch {tmp_path}/x\n"
    assert run(bed, route, key).text == "forced: \n"
    assert "forced: \r\n" in run(bed, route, key, options=("-tt",)).text
    (tmp_path / "near").write_text("mine")
    scp = f"scp -t {tmp_path}/far"
    assert run(bed, route, key, command=(scp,)).text == f"forced: {scp}\n"
    assert run(bed, route, key, options=("-s",), command=("sftp",)).text == "forced: internal-sftp\n"
    assert run(bed, route, key, options=("-s",), command=("unheard-of",)).status != 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name in ("x", "far")) == []


def test_a_forced_scp_is_the_real_one(bed: Bed, serve_keys: ServeKeys, tmp_path: Path) -> None:
    """The user's shell runs it, and expands it."""
    (tmp_path / "given").write_text("a gift")
    route, key = bound(bed, serve_keys, "key", f"scp -f {tmp_path}/$(echo given)")
    words = with_keys(route, key, options=("-O", "-q"))
    bed.check("scp", *words[1:-1], "box:given", str(tmp_path / "got"))
    assert (tmp_path / "got").read_text() == "a gift"


def test_an_empty_command_is_one_too(bed: Bed, serve_keys: ServeKeys) -> None:
    route, key = bound(bed, serve_keys, "key", "")
    finished = run(bed, route, key, command=("echo", "evaded"))
    assert (finished.status, finished.text) == (0, "")


def test_the_terminal_type_is_a_name(bed: Bed, serve_keys: ServeKeys) -> None:
    route, key = bound(bed, serve_keys, "key", "echo TERM=$TERM.")
    for term, seen in (("xterm-256color", "xterm-256color"), ("../../etc", "dumb"), ("x" * 300, "dumb")):
        words = with_keys(route, key, options=("-tt",))
        assert f"TERM={seen}.\r\n" in bed.run(*words, env={"TERM": term}).text


def test_variables_of_the_key_itself_are_set_and_stay(bed: Bed, serve_keys: ServeKeys) -> None:
    key, free = make_key(bed, "bound"), make_key(bed, "free")
    named = 'environment="MEMBER=alice"'
    route = serve_keys(f'command="echo $MEMBER",{named} {public(key)}', f"{named} {public(free)}")
    options = ("-o", "SetEnv=MEMBER=mallory")
    assert run(bed, route, key, options=options, command=("x",)).text == "alice\n"
    assert run(bed, route, free, options=options, command=("echo $MEMBER",)).text == "alice\n"


def test_two_commands_that_differ_admit_nobody(bed: Bed, serve_keys: ServeKeys) -> None:
    """As in OpenSSH's server: it is ambiguous."""
    authority, key = make_key(bed, "authority"), make_key(bed, "bound")
    sign(bed, authority, key, "-O", "force-command=echo one")
    route = serve_keys(f'cert-authority,command="echo two" {public(authority)}')
    finished = run(bed, route, key, command=("true",))
    assert finished.status == 255 and "Permission denied" in finished.stderr
    route.bridge.process.wait_for_line("ssh-refused .*force different commands")


def test_without_a_forced_command_the_client_is_free(bed: Bed, serve_keys: ServeKeys) -> None:
    key = make_key(bed, "free")
    route = serve_keys(public(key))
    options = ("-o", "SetEnv=FAVOURITE=blue SSH_CONNECTION=evil SSH_ORIGINAL_COMMAND=evil")
    shown = run(
        bed, route, key, options=options, command=("echo $FAVOURITE ${SSH_ORIGINAL_COMMAND-none} $SSH_CONNECTION",)
    )
    assert shown.text.startswith("blue none 127.0.0.1 ")


# ---- which key it was


def test_the_options_are_those_of_the_key_that_logs_in(bed: Bed, serve_keys: ServeKeys) -> None:
    """A key without a signature has no effect."""
    authority = make_key(bed, "authority")
    names = ("bound", "free", "certified", "restricted")
    keys = {name: make_key(bed, name) for name in names}
    locked = {name: make_key(bed, f"locked-{name}") for name in names}
    for key in locked.values():  # ssh asks whether the server accepts it, and cannot sign without its passphrase
        bed.check("ssh-keygen", "-q", "-p", "-P", "", "-N", "a passphrase", "-f", str(key))
    for each in (keys, locked):
        sign(bed, authority, each["certified"], "-O", "force-command=echo certified", "-O", "clear", "-O", "permit-pty")
    route = serve_keys(
        f"cert-authority {public(authority)}",
        *(f'command="echo bound" {public(each["bound"])}' for each in (keys, locked)),
        *(public(each["free"]) for each in (keys, locked)),
        *(f"restrict {public(each['restricted'])}" for each in (keys, locked)),
    )
    for asked_first in names:
        for logs_in in names:
            words = with_keys(route, locked[asked_first], keys[logs_in], options=("-v", "-R", "0:127.0.0.1:1"))
            finished = bed.run(*words, "echo free")
            assert finished.stderr.count("Server accepts key") == 2, finished.stderr
            assert finished.text == (f"{logs_in}\n" if logs_in in ("bound", "certified") else "free\n")
            assert ("remote forward success" in finished.stderr) == (logs_in in ("bound", "free"))


def test_what_is_asked_after_the_proof_changes_nothing(
    bed: Bed, sshd: Sshd, serve_keys: ServeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests for another key, without a signature and with a wrong one, right after the valid one."""
    bound, free = (asyncssh.read_private_key(make_key(bed, name)) for name in ("bound", "free"))
    lines = [key.export_public_key().decode().strip() for key in (bound, free)]
    route = serve_keys(f'command="echo bound" {lines[0]}', lines[1])
    send = asyncssh.SSHClientConnection.send_userauth_request
    sent = 0

    async def send_more(self: Any, method: bytes, *args: bytes, key: Any = None, trivial: bool = True) -> None:
        nonlocal sent
        await send(self, method, *args, key=key, trivial=trivial)
        if key is not None:
            about = (String(free.algorithm), String(free.public_data))
            await send(self, method, Boolean(False), *about)
            await send(self, method, Boolean(True), *about, String(String(free.algorithm) + String(bytes(64))))
            sent += 1

    monkeypatch.setattr(asyncssh.SSHClientConnection, "send_userauth_request", send_more)

    async def work() -> None:
        options = {**sshd.asyncssh, "client_keys": [bound]}
        async with tunnel.ssh.connect(route.bridge.url, host_key_alias="bed", **options) as connection:
            finished = await connection.run("echo free; env", env={"FAVOURITE": "blue"})
            assert finished.stdout == "bound\n"

    asyncio.run(work())
    assert sent == 1
