"""Python SSH libraries that start our client as their ProxyCommand: paramiko and asyncssh."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import paramiko
import pytest

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.targets import checksum
from tests.bed.tunnels import OWN_PAIR, start_bridge


@pytest.fixture
def command(bed: Bed, sshd: Sshd) -> tuple[str, ...]:
    """The ProxyCommand that leads to the sshd."""
    return OWN_PAIR.command(start_bridge(bed, "ours", sshd.port).url)


@contextlib.contextmanager
def paramiko_client(command: tuple[str, ...], sshd: Sshd) -> Iterator[paramiko.SSHClient]:
    client = paramiko.SSHClient()
    client.load_host_keys(str(sshd.folder / "known_hosts"))
    proxy = paramiko.ProxyCommand(shlex.join(command))
    try:
        client.connect("bed", sock=proxy, **sshd.paramiko)
        yield client
    finally:
        transport = client.get_transport()
        client.close()
        if transport is not None:
            transport.join(20)  # its thread ends our client, with a signal, and reads to the last
        proxy.process.communicate(timeout=20)


def fetch_and_compare(client: paramiko.SSHClient, samples: list[Path], folder: Path) -> None:
    with client.open_sftp() as sftp:
        for sample in samples:
            sftp.get(str(sample), str(folder / sample.name))
            assert checksum((folder / sample.name).read_bytes()) == checksum(sample.read_bytes())


def test_paramiko_gets_exit_status_and_output(command: tuple[str, ...], sshd: Sshd) -> None:
    with paramiko_client(command, sshd) as client:
        _, stdout, stderr = client.exec_command("echo out; echo err >&2; exit 7", timeout=20)
        assert (stdout.read(), stderr.read(), stdout.channel.recv_exit_status()) == (b"out\n", b"err\n", 7)


def test_paramiko_fetches_files_again_and_again(
    command: tuple[str, ...], sshd: Sshd, samples: list[Path], tmp_path: Path
) -> None:
    """With websocat as its ProxyCommand paramiko was seen to hang now and then."""
    for _ in range(10):
        with paramiko_client(command, sshd) as client:
            fetch_and_compare(client, samples[:5], tmp_path)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_paramiko_fetches_large_files_fifty_times(
    command: tuple[str, ...], sshd: Sshd, samples: list[Path], tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(samples[-1].read_bytes()[:10_000_000])
    folder = tmp_path / "fetched"
    folder.mkdir()
    for _ in range(50):
        with paramiko_client(command, sshd) as client:
            fetch_and_compare(client, [large], folder)


def test_asyncssh_runs_a_command_and_copies_files(
    command: tuple[str, ...], sshd: Sshd, samples: list[Path], tmp_path: Path
) -> None:
    async def use() -> None:
        async with asyncssh.connect("bed", proxy_command=list(command), **sshd.asyncssh) as connection:
            finished = await connection.run("echo out; echo err >&2; exit 7")
            assert (finished.stdout, finished.stderr, finished.exit_status) == ("out\n", "err\n", 7)
            async with connection.start_sftp_client() as sftp:
                await sftp.put([str(sample) for sample in samples[:5]], str(tmp_path))
        assert [checksum((tmp_path / s.name).read_bytes()) for s in samples[:5]] == [
            checksum(s.read_bytes()) for s in samples[:5]
        ]

    asyncio.run(asyncio.wait_for(use(), 60))
