"""Python SSH libraries that start our client as their ProxyCommand: paramiko and asyncssh."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import asyncssh
import paramiko
import pytest

from tests.bed.processes import free_port
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, checksum, read_to_end
from tests.bed.tunnels import OWN_PAIR, Route

LIMIT = 20.0  # seconds for any one step
LARGE = 3_000_000  # bytes: more than the windows of channels


@contextlib.contextmanager
def paramiko_client(command: tuple[str, ...], sshd: Sshd, **login: object) -> Iterator[paramiko.SSHClient]:
    client = paramiko.SSHClient()
    client.load_host_keys(str(sshd.folder / "known_hosts"))
    proxy = paramiko.ProxyCommand(shlex.join(command))
    try:
        client.connect("bed", sock=proxy, **{**sshd.paramiko, **login})
        yield client
    finally:
        transport = client.get_transport()
        client.close()
        if transport is not None:
            transport.join(LIMIT)  # its thread ends our client, with a signal, and reads to the last
        proxy.process.communicate(timeout=LIMIT)


def transport_of(client: paramiko.SSHClient) -> paramiko.Transport:
    transport = client.get_transport()
    assert transport is not None
    return transport


def fetch_and_compare(client: paramiko.SSHClient, samples: list[Path], folder: Path) -> None:
    with client.open_sftp() as sftp:
        for sample in samples:
            sftp.get(str(sample), str(folder / sample.name))
            assert checksum((folder / sample.name).read_bytes()) == checksum(sample.read_bytes())


def read_until(channel: paramiko.Channel, pattern: str) -> re.Match[str]:
    """Read from a terminal until ``pattern`` is found in what came."""
    channel.settimeout(LIMIT)
    text = ""
    while (match := re.search(pattern, text)) is None:
        data = channel.recv(4096)
        assert data, f"the terminal ended after {text!r}"
        text += data.decode()
    return match


def test_paramiko_gets_exit_status_and_output_of_several_commands(
    proxy_command: tuple[str, ...], sshd: Sshd, samples: list[Path]
) -> None:
    with paramiko_client(proxy_command, sshd) as client:
        _, stdout, stderr = client.exec_command("echo out; echo err >&2; exit 7", timeout=LIMIT)
        assert (stdout.read(), stderr.read(), stdout.channel.recv_exit_status()) == (b"out\n", b"err\n", 7)
        data = samples[-1].read_bytes()[:1_000_000]
        stdin, stdout, _ = client.exec_command("sha256sum; echo done", timeout=LIMIT)
        stdin.write(data)
        stdin.channel.shutdown_write()
        assert stdout.read().decode() == f"{checksum(data)}  -\ndone\n"


def test_paramiko_with_an_unknown_key_is_refused(proxy_command: tuple[str, ...], sshd: Sshd, tmp_path: Path) -> None:
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "stranger")
    with (
        pytest.raises(paramiko.AuthenticationException),
        paramiko_client(proxy_command, sshd, key_filename=str(tmp_path / "stranger")),
    ):
        pass


def test_paramiko_has_a_shell_on_a_terminal_that_it_resizes(proxy_command: tuple[str, ...], sshd: Sshd) -> None:
    with paramiko_client(proxy_command, sshd) as client:
        shell = client.invoke_shell(term="xterm", width=91, height=31)
        shell.sendall(b"unset HISTFILE; stty -echo; PS1=prompt-$((6*7)); echo here: $TERM $(stty size)\n")
        read_until(shell, "here: xterm 31 91\r\n")
        shell.resize_pty(width=101, height=41)
        shell.sendall(b"echo now: $(stty size)\n")
        read_until(shell, "now: 41 101\r\n")
        shell.sendall(b"sh -c 'echo asleep; exec sleep 60'\n")
        read_until(shell, "asleep\r\n")
        shell.sendall(b"\x03")
        read_until(shell, "prompt-42")  # bash drops what is typed before it
        shell.sendall(b"echo after: $?\n")
        read_until(shell, "after: 130\r\n")
        shell.sendall(b"exit 5\n")
        assert shell.recv_exit_status() == 5


def test_paramiko_fetches_files_again_and_again(
    proxy_command: tuple[str, ...], sshd: Sshd, samples: list[Path], tmp_path: Path
) -> None:
    """With websocat as its ProxyCommand paramiko was seen to hang now and then."""
    for _ in range(10):
        with paramiko_client(proxy_command, sshd) as client:
            fetch_and_compare(client, samples[:5], tmp_path)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_paramiko_fetches_large_files_fifty_times(
    proxy_command: tuple[str, ...], sshd: Sshd, samples: list[Path], tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(samples[-1].read_bytes()[:10_000_000])
    folder = tmp_path / "fetched"
    folder.mkdir()
    for _ in range(50):
        with paramiko_client(proxy_command, sshd) as client:
            fetch_and_compare(client, [large], folder)


def test_paramiko_works_with_files_on_the_far_side(
    proxy_command: tuple[str, ...], sshd: Sshd, samples: list[Path], tmp_path: Path
) -> None:
    """What an editor, a file browser or a mounted file system does by SFTP."""
    with paramiko_client(proxy_command, sshd) as client, client.open_sftp() as sftp:
        sftp.mkdir(f"{tmp_path}/far", mode=0o750)
        sftp.chdir(f"{tmp_path}/far")
        assert sftp.getcwd() == f"{tmp_path}/far"
        for sample in samples[:5]:
            assert sftp.put(str(sample), sample.name).st_size == sample.stat().st_size
            assert checksum((tmp_path / "far" / sample.name).read_bytes()) == checksum(sample.read_bytes())

        with sftp.open("notes", "w") as file:
            file.write("one\n")
        with sftp.open("notes", "a") as file:
            file.write("two\n")
        with sftp.open("notes", "r+") as file:
            file.seek(2)
            file.write("E")
            file.seek(0)
            assert file.read() == b"onE\ntwo\n"
            file.truncate(4)
        with pytest.raises(OSError), sftp.open("notes", "x"):
            pass

        sftp.chmod("notes", 0o640)
        sftp.utime("notes", (1_000_000_000, 1_000_000_001))
        sftp.posix_rename("notes", "0")  # takes the place of a file that exists
        attributes = sftp.stat("0")
        assert stat.filemode(attributes.st_mode or 0) == "-rw-r-----"
        assert (attributes.st_size, attributes.st_atime, attributes.st_mtime) == (4, 1_000_000_000, 1_000_000_001)
        with pytest.raises(OSError):
            sftp.rename("0", "1")  # must not take the place of one

        sftp.symlink("0", "link")
        assert sftp.readlink("link") == "0"
        assert stat.S_ISLNK(sftp.lstat("link").st_mode or 0)
        assert sftp.normalize("./link") == f"{tmp_path}/far/0"
        entries = {entry.filename: entry for entry in sftp.listdir_attr(".")}
        assert sorted(entries) == sorted(["link", *(sample.name for sample in samples[:5])])
        assert re.match(r"-rw-r----- .* 0$", str(entries["0"]))

        for name in entries:
            sftp.remove(name)
        with pytest.raises(FileNotFoundError):
            sftp.stat("0")
        sftp.rmdir(f"{tmp_path}/far")
        assert not (tmp_path / "far").exists()


def test_paramiko_forwards_ports_both_ways(
    proxy_command: tuple[str, ...], sshd: Sshd, samples: list[Path], echo_target: Target
) -> None:
    data = samples[-1].read_bytes()[:300_000]
    with paramiko_client(proxy_command, sshd) as client:
        transport = transport_of(client)
        channel = transport.open_channel("direct-tcpip", ("127.0.0.1", echo_target.port), ("127.0.0.1", 1))
        channel.settimeout(LIMIT)
        channel.sendall(data)
        channel.shutdown_write()
        assert checksum(b"".join(iter(lambda: channel.recv(1 << 16), b""))) == checksum(data)
        with pytest.raises(paramiko.ChannelException):
            transport.open_channel("direct-tcpip", ("127.0.0.1", free_port()), ("127.0.0.1", 1))

        port = transport.request_port_forward("127.0.0.1", 0)
        with socket.create_connection(("127.0.0.1", port), LIMIT) as visitor:
            arrived = transport.accept(LIMIT)
            assert arrived is not None
            arrived.settimeout(LIMIT)
            visitor.sendall(b"question")
            visitor.shutdown(socket.SHUT_WR)
            assert b"".join(iter(lambda: arrived.recv(1024), b"")) == b"question"
            arrived.sendall(data)
            arrived.close()
            assert checksum(read_to_end(visitor)) == checksum(data)
        transport.cancel_port_forward("127.0.0.1", port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), LIMIT)


Use = Callable[[asyncssh.SSHClientConnection], Awaitable[None]]


def with_asyncssh(command: tuple[str, ...], sshd: Sshd, use: Use) -> None:
    """Connect by ``command``, and ``use`` the connection."""

    async def connect() -> None:
        async with asyncssh.connect("bed", proxy_command=list(command), **sshd.asyncssh) as connection:
            await use(connection)

    asyncio.run(asyncio.wait_for(connect(), 60))


def contents(folder: Path) -> dict[str, str]:
    """The checksums of the files under ``folder``, by their paths in it."""
    return {str(path.relative_to(folder)): checksum(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_asyncssh_runs_commands_with_and_without_a_terminal(
    proxy_command: tuple[str, ...], sshd: Sshd, samples: list[Path]
) -> None:
    async def use(connection: asyncssh.SSHClientConnection) -> None:
        finished = await connection.run("echo out; echo err >&2; exit 7")
        assert (finished.stdout, finished.stderr, finished.exit_status) == ("out\n", "err\n", 7)

        data = samples[-1].read_bytes()[:LARGE]
        copied = await connection.run("cat", input=data, encoding=None)
        assert isinstance(copied.stdout, bytes)
        assert checksum(copied.stdout) == checksum(data)

        killed = await connection.run("echo out; kill -TERM $$")
        assert (killed.stdout, killed.exit_status, (killed.exit_signal or ("",))[0]) == ("out\n", -1, "TERM")

        size = (91, 31, 910, 620)
        async with connection.create_process(term_type="xterm", term_size=size) as shell:
            shell.stdin.write("unset HISTFILE; stty -echo; PS1=; echo here: $TERM $(stty size)\n")
            await shell.stdout.readuntil("here: xterm 31 91\r\n")
            shell.change_terminal_size(101, 41)
            shell.stdin.write("echo now: $(stty size)\n")
            await shell.stdout.readuntil("now: 41 101\r\n")
            shell.stdin.write("exit 5\n")
            assert (await shell.wait()).exit_status == 5

    with_asyncssh(proxy_command, sshd, use)


def test_asyncssh_sends_signals(embedded_route: Route, sshd: Sshd) -> None:
    """To the embedded server only: sshd takes none for root."""

    async def use(connection: asyncssh.SSHClientConnection) -> None:
        async with connection.create_process("trap 'echo hello' USR1; echo ready; while :; do sleep 0.1; done") as loop:
            assert await loop.stdout.readline() == "ready\n"
            loop.send_signal("USR1")
            assert await loop.stdout.readline() == "hello\n"
            loop.terminate()
            ended = await loop.wait()
            assert (ended.exit_signal or ("",))[0] == "TERM"

    with_asyncssh(OWN_PAIR.command(embedded_route.bridge.url), sshd, use)


def test_asyncssh_copies_files_by_sftp_and_scp(
    proxy_command: tuple[str, ...], sshd: Sshd, samples: list[Path], tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "inner folder").mkdir(parents=True)
    for sample in samples[:5]:
        (tree / "inner folder" / sample.name).write_bytes(sample.read_bytes())
    (tree / "large").write_bytes(samples[-1].read_bytes()[:LARGE])
    (tree / "large").chmod(0o751)

    async def use(connection: asyncssh.SSHClientConnection) -> None:
        for version in (3, 6):  # a server that knows no later one says so
            folder = tmp_path / f"sftp-{version}"
            async with connection.start_sftp_client(sftp_version=version) as sftp:
                await sftp.put(tree, f"{folder}-up", recurse=True, preserve=True)
                await sftp.get(f"{folder}-up", f"{folder}-down", recurse=True, preserve=True)
                assert (await sftp.statvfs("/")).bsize > 0
        for folder in (tmp_path / "scp-up", tmp_path / "scp-down"):
            folder.mkdir()
        await asyncssh.scp(tree, (connection, tmp_path / "scp-up"), recurse=True, preserve=True)
        await asyncssh.scp(
            (connection, tmp_path / "scp-up" / "tree"), tmp_path / "scp-down", recurse=True, preserve=True
        )
        with pytest.raises(asyncssh.SFTPError):
            await asyncssh.scp((connection, tmp_path / "missing"), tmp_path / "scp-down")

    with_asyncssh(proxy_command, sshd, use)
    copies = [tmp_path / f"sftp-{version}-{way}" for version in (3, 6) for way in ("up", "down")]
    for copy in (*copies, tmp_path / "scp-up" / "tree", tmp_path / "scp-down" / "tree"):
        assert contents(copy) == contents(tree)
        assert stat.S_IMODE((copy / "large").stat().st_mode) == 0o751
        assert int((copy / "large").stat().st_mtime) == int((tree / "large").stat().st_mtime)


def test_asyncssh_forwards_ports_and_unix_sockets_both_ways(
    proxy_command: tuple[str, ...], sshd: Sshd, echo_target: Target, short_folder: Path
) -> None:
    async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b"x" * 300_000
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data
        writer.close()
        await writer.wait_closed()

    async def use(connection: asyncssh.SSHClientConnection) -> None:
        near, far = str(short_folder / "near"), str(short_folder / "far")
        target = ("127.0.0.1", echo_target.port)
        local = await connection.forward_local_port("127.0.0.1", 0, *target)
        await echoes(*await asyncio.open_connection("127.0.0.1", local.get_port()))
        remote = await connection.forward_remote_port("127.0.0.1", 0, *target)
        await echoes(*await asyncio.open_connection("127.0.0.1", remote.get_port()))

        # A Unix socket on the far side that leads here, and one on this side that leads there.
        back = await connection.forward_remote_path_to_port(far, *target)
        there = await connection.forward_local_path(near, far)
        await echoes(*await asyncio.open_unix_connection(near))

        for listener in (local, remote, there, back):
            listener.close()
            await listener.wait_closed()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", remote.get_port())

        reader, writer = await connection.open_connection(*target)
        writer.write(b"directly")
        writer.write_eof()
        assert await reader.read() == b"directly"
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", free_port())

    with_asyncssh(proxy_command, sshd, use)
