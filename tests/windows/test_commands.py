"""The client's other commands and its Python interface on Windows."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, read_exactly, read_to_end, reset
from tests.bed.tunnels import Bridge, start_bridge
from tests.bed.windows import PYTHON, ROOT, Windows

LIMIT = 100.0


@pytest.fixture(scope="module")
def echo_bridge(shared_bed: Bed, echo_target: Target) -> Bridge:
    return start_bridge(shared_bed, "ours", echo_target.port)


def test_doctor_finds_every_hop_in_order(bed: Bed, windows: Windows, sshd: Sshd) -> None:
    done = windows.run(bed, "doctor", start_bridge(bed, "ours", sshd.port).url)
    assert [line.split()[:2] for line in done.text.splitlines()] == [
        ["ok", hop] for hop in ("url", "dns", "tcp", "upgrade", "resume", "ssh")
    ]
    assert done.status == 0


def test_forward_carries_connections_to_a_port(bed: Bed, windows: Windows, echo_bridge: Bridge) -> None:
    forward = windows.start(bed, "forward", echo_bridge.url)
    port = int(forward.wait_for_line(r"forwarding 127\.0\.0\.1:(\d+)", LIMIT)[1])
    for data in (b"one\r\n", b"x" * 1_000_000):
        with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            assert read_to_end(connection) == data


def test_a_port_that_is_taken_is_reported_with_the_next_step(bed: Bed, windows: Windows, echo_bridge: Bridge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = windows.run(bed, "forward", str(port), echo_bridge.url)
    step = "another program listens there: stop it, or choose another LISTEN"
    line = f"wstunnel-py: cannot listen on 127.0.0.1:{port}: The network address is in use; {step}\n"
    assert (done.status, done.stderr) == (69, line)


# As OpenSSH for Windows does it: the line, with %h expanded, is the command line of CreateProcess. No shell reads it.
RUN_PROXY_COMMAND = r"""
import os, subprocess, sys, tempfile
from pathlib import Path
from tunnel.cli.main import main
home = os.environ["USERPROFILE"] = tempfile.mkdtemp(prefix="héme with spaces ")
token = Path(home, "a token.txt")
token.write_bytes(b"\xef\xbb\xbftoken\r\n")
words = ["config-ssh", "--write", "--url", sys.argv[1], "--token-file", str(token), "--identity-file", "key", "box"]
for again in range(2):
    assert main(words) == 0
folder = Path(home, ".ssh")
assert folder.joinpath("config").read_text() == "Include wstunnel-py.conf\n"
own = folder.joinpath("wstunnel-py.conf")
lines = [line.strip() for line in own.read_text("utf-8").splitlines()]
print(*map(ascii, lines), sep="\n")
[line] = [line for line in lines if line.startswith("ProxyCommand ")]
done = subprocess.run(line.removeprefix("ProxyCommand ").replace("%h", "box"), input=b"hello", capture_output=True)
print(done)
assert (done.returncode, done.stdout, done.stderr) == (0, b"hello", b"")
own.write_bytes(own.read_bytes().replace(b"\n", b"\r\n"))
assert main(["config-ssh", "--remove"]) == 0 and list(folder.iterdir()) == []
"""


def test_config_ssh_writes_lines_that_windows_can_run(
    bed: Bed, windows: Windows, echo_bridge: Bridge, tmp_path: Path
) -> None:
    installed = tmp_path / "Program Files"
    installed.mkdir()
    for name in ("python", "packages"):
        (installed / name).symlink_to(PYTHON.parents[1] / name)
    (tmp_path / "tunnel").symlink_to(ROOT / "tunnel")
    script = windows.script_for(installed / "python" / "python.exe", bed.folder)
    done = bed.run(str(script), "-c", RUN_PROXY_COMMAND, echo_bridge.url, seconds=LIMIT)
    assert done.status == 0, done.last_words()
    said = done.stdout.decode("cp1252")  # which people read there
    assert "héme with spaces" in said
    assert 'ProxyCommand "Z:/' in said and '/Program Files/python/python.exe" -m tunnel connect' in said
    assert "'IdentityFile Z:/" in said and "'UserKnownHostsFile ~/.ssh/known_hosts.wstunnel-py'" in said


# Python makes the mode 0o700 of a new folder an entry for which OpenSSH refuses every file in it, and wine makes no
# difference between modes; so the calls are watched.
WATCHED = """
import os, stat, sys, tempfile
from pathlib import Path
from tunnel.cli.main import main
home = os.environ["USERPROFILE"] = tempfile.mkdtemp()
sys.addaudithook(lambda event, args: event == "os.mkdir" and print(Path(args[0]).name, oct(args[1])))
assert main(["config-ssh", "--write", "--url", "ws://bridge.test", "box"]) == 0
config = Path(home, ".ssh", "config")
written = config.read_text()
# VS Code, for example, writes drives in lower case.
assert main(["config-ssh", "--write", "--ssh-config", str(config).upper(), "--url", "ws://bridge.test", "box"]) == 0
assert config.read_text() == written, config.read_text()
config.write_bytes(b"Host other")
config.chmod(stat.S_IREAD)
with open(config):  # so that it cannot be replaced
    print(main(["config-ssh", "--write", "--url", "ws://bridge.test", "box"]))
print(sorted(each.name for each in config.parent.iterdir()))
"""


def test_the_folder_for_ssh_has_the_permissions_of_the_profile_and_no_leftovers(bed: Bed, windows: Windows) -> None:
    done = windows.python(bed, WATCHED)
    assert done.status == 0, done.last_words()
    made, *_, failed, files = done.text.splitlines()
    assert made == ".ssh 0o777"
    assert (failed, files) == ("2", "['config', 'wstunnel-py.conf']")
    assert done.stderr.startswith("wstunnel-py: cannot use ") and done.stderr.count("\n") == 1


EDITED = r"""
import os, sys, tempfile
from pathlib import Path
from tunnel.cli.main import main
folder = Path(tempfile.mkdtemp(), "VS Code")
folder.mkdir()
folder.joinpath("show.py").write_text("import sys; print(ascii(sys.argv[1:]), flush=True); sys.exit(5)")
folder.joinpath("code.cmd").write_text(f'@"{sys.executable}" "%~dp0show.py" %*\n')
folder.joinpath("code").write_text("#!/bin/sh\n")  # for other shells, as VS Code has it
os.environ["PATH"] = f"{folder};{os.environ['PATH']}"
os.environ["USERPROFILE"] = tempfile.mkdtemp()
for path in sys.argv[1:]:
    print(main(["open", "--url", "ws://bridge.test", "box", path]), flush=True)
"""


def test_an_editor_gets_any_path_that_its_batch_file_can_pass_on(bed: Bed, windows: Windows) -> None:
    paths = ["/home/user", "/a dir/R&D", "/a&b|c>d", "/a^b(c)", "/a\\"]
    done = windows.python(bed, EDITED, *paths, "/100%")
    lines = done.text.splitlines()[2:]  # without those of config-ssh
    assert lines == [line for path in paths for line in (ascii(["--remote", "ssh-remote+box", path]), "5")] + ["2"]
    said = 'code.CMD: batch files take % and " for their own\n'
    assert done.stderr.startswith("wstunnel-py: '/100%' cannot be passed to ")
    assert done.stderr.lower().endswith(said.lower()) and done.stderr.count("\n") == 1


def test_what_programs_read_has_no_windows_line_ends_or_code_page(bed: Bed, windows: Windows) -> None:
    done = windows.run(bed, "keys", "token", "token")
    assert done.status == 0 and b"\r" not in done.stdout
    assert (bed.folder / "token").read_bytes().endswith(b"\n")
    assert b"\r" not in (bed.folder / "token").read_bytes()
    done = windows.run(bed, "config-ssh", "--identity-file", "C:\\ключ", "--url", "wss://bridge.test", "bücks")
    assert done.status == 0 and b"\r" not in done.stdout
    assert {"Host bücks", "    IdentityFile C:/ключ"} <= set(done.stdout.decode().splitlines())


def test_a_report_that_nobody_reads_ends_without_a_word(bed: Bed, windows: Windows) -> None:
    # Its input ends when nobody can read its output any more.
    program = "import sys\nfrom tunnel.cli.main import main\nsys.stdin.read()\nsys.exit(main())"
    command = (str(windows.script), "-c", program, "config-ssh")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.close()
        assert process.wait(LIMIT) == 141
        assert process.stderr.read() == b""


def test_the_null_device_is_an_empty_config_file_under_each_of_its_names(bed: Bed, windows: Windows) -> None:
    for name in ("NUL", "nul"):
        done = windows.run(bed, "config-ssh", "--config", name)
        assert (done.status, done.stderr) == (0, "") and "Host *.e2b" in done.text


def test_what_needs_a_package_names_it(bed: Bed, windows: Windows) -> None:
    done = windows.run(bed, "certs", "ca", "pki")
    where = 'see "Optional packages" in docs/install.md'
    assert (done.status, done.stderr) == (2, f"wstunnel-py: cryptography is not installed: {where}\n")


@pytest.mark.parametrize("words", [("-b", "-"), ("-t", "-")], ids=["binary", "text"])
def test_websocat_lines_do_as_elsewhere(
    bed: Bed, windows: Windows, echo_bridge: Bridge, words: tuple[str, ...]
) -> None:
    done = windows.pipe(bed, b"line\n", "websocat", *words, echo_bridge.url)
    assert (done.status, done.stdout, done.stderr) == (0, b"line\n", "")


INTERFACE = """
import asyncio, os, socket, sys
import tunnel
echo, breaking = sys.argv[1:]
with tunnel.open_socket(echo, config=os.devnull) as sock:
    sock.sendall(b"x" * 1_000_000)
    sock.shutdown(socket.SHUT_WR)
    assert len(b"".join(iter(lambda: sock.recv(65536), b""))) == 1_000_000
    assert hasattr(sock, "sendmsg") == hasattr(socket.socket, "sendmsg")

async def talk():
    print(type(asyncio.get_running_loop()).__name__)
    async with tunnel.open_connection(echo) as (reader, writer):
        writer.write(b"y" * 1_000_000)
        writer.write_eof()
        assert len(await reader.read()) == 1_000_000
    async with tunnel.open_connection(breaking) as (reader, writer):
        writer.write(b"x")
        try:
            await reader.read()
        except ConnectionResetError as exc:
            print(exc)
    try:
        async with tunnel.serve(listen="127.0.0.1:0") as bridge:
            print(bridge.urls[0][:15])
    except tunnel.UsageError as exc:
        print(exc)

asyncio.run(talk())
asyncio.Runner(loop_factory=asyncio.SelectorEventLoop).run(talk())
"""


def test_the_python_interface_serves_both_of_windows_loops(bed: Bed, windows: Windows, echo_bridge: Bridge) -> None:
    def break_it(connection: socket.socket) -> None:
        read_exactly(connection, 1)
        reset(connection)

    with Target(break_it) as target:
        done = windows.python(bed, INTERFACE, echo_bridge.url, start_bridge(bed, "ours", target.port).url)
    assert done.status == 0, done.last_words()
    broken = "the target behind the bridge broke the connection: Connection reset by peer"
    proactor, told, refused, selector, told_too, url = done.text.splitlines()
    assert (proactor, selector) == ("ProactorEventLoop", "_WindowsSelectorEventLoop")
    assert told.endswith(broken) and told_too.endswith(broken)
    assert refused == "a bridge on Windows needs asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)"
    assert url == "ws://127.0.0.1:"
