"""Our end as a client: what websocat has no equivalent for, and what needs a scene of its own."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest
import trustme

from tests.bed.processes import Bed
from tests.bed.targets import Target, echo, read_exactly, read_to_end
from tests.bed.tunnels import OURS, PROGRAMS, WEBSOCAT, start_bridge
from tests.cli.test_import_budget import BUDGET, banned, imported
from tests.websocat.scenes import start_listening
from tunnel._version import __version__

WEBSOCAT_OURS = (*OURS, "websocat")


def link(folder: Path) -> str:
    path = folder / "websocat"
    path.symlink_to(PROGRAMS / "wstunnel-py")
    return str(path)


def test_started_under_the_name_of_websocat_it_takes_its_words(bed: Bed, echo_target: Target) -> None:
    url = start_bridge(bed, "ours", echo_target.port).url
    assert bed.check(link(bed.folder), "-b", "-", url, stdin=b"hello").stdout == b"hello"
    assert shutil.which("websocat", path=str(PROGRAMS)) == WEBSOCAT  # ours has not taken its place


@pytest.mark.parametrize("word", ["--help", "-h", "--help=long"])
def test_its_help_is_ours(bed: Bed, word: str) -> None:
    finished = bed.check(link(bed.folder), word)
    assert "Usage: wstunnel-py websocat [OPTIONS] ADDRESS [ADDRESS]" in finished.text
    assert "--exit-on-eof" in finished.text


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_its_version_is_ours(bed: Bed, word: str) -> None:
    assert bed.check(*WEBSOCAT_OURS, word).text == f"wstunnel-py {__version__}\n"


def test_as_a_proxycommand_it_imports_nothing_that_is_slow(bed: Bed, echo_target: Target) -> None:
    command = "import sys; from tunnel.cli.main import main; sys.exit(main())"
    url = start_bridge(bed, "websocat", echo_target.port).url
    modules = imported(bed, "-c", command, "websocat", "--binary", "-B", "65536", "-", url)
    assert "tunnel.websocat.messages" in modules
    assert banned(modules) == set()
    assert len(modules) <= BUDGET + 13, sorted(modules)


def test_between_our_ends_it_is_a_session_and_not_if_single_messages_matter(bed: Bed, echo_target: Target) -> None:
    url = start_bridge(bed, "ours", echo_target.port).url
    session = "subprotocol v1.resume.wstunnel-py"
    assert session in bed.check(*WEBSOCAT_OURS, "-vb", "-", url, stdin=b"x").stderr
    assert session not in bed.check(*WEBSOCAT_OURS, "-vb", "--max-messages", "1", "-", url, stdin=b"x").stderr
    environ = {"WSTUNNEL_PY_NO_RESUME": "1"}
    finished = bed.check(*WEBSOCAT_OURS, "-vb", "-", url, stdin=b"x", env=environ)
    assert "opened a WebSocket" in finished.stderr and "subprotocol" not in finished.stderr


def test_a_password_in_the_url_is_not_shown(bed: Bed) -> None:
    finished = bed.run(*WEBSOCAT_OURS, "-bv", "-", "ws://user:secret@127.0.0.1:1/")
    assert finished.status == 69
    assert "secret" not in finished.stderr


@pytest.mark.parametrize("program", [(WEBSOCAT,), WEBSOCAT_OURS], ids=["websocat", "ours"])
def test_a_certificate_is_checked_unless_insecure(
    program: tuple[str, ...], bed: Bed, echo_target: Target, tmp_path: Path
) -> None:
    pem = tmp_path / "server.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    url = start_bridge(bed, "ours", echo_target.port, "--tls-cert", str(pem)).url
    assert url.startswith("wss://")
    refused = bed.run(*program, "-b", "-", url, stdin=b"hello")
    assert (refused.status, refused.stdout) == (77 if program == WEBSOCAT_OURS else 1, b"")
    assert bed.check(*program, "-kb", "-", url, stdin=b"hello").stdout == b"hello"


def test_a_socks_proxy_is_asked_for_the_name(bed: Bed) -> None:
    """As websocat does, which leaves the resolution to the proxy."""

    def refuse(connection: socket.socket) -> bytes:
        read_exactly(connection, 3)
        connection.sendall(b"\x05\x00")
        request = read_exactly(connection, 18)
        connection.sendall(b"\x05\x05\x00\x01\0\0\0\0\0\0")
        return request

    with Target(refuse) as proxy:
        place = f"127.0.0.1:{proxy.port}"
        finished = bed.run(*WEBSOCAT_OURS, "-b", "--socks5", place, "-", "ws://box.example/")
        ours = proxy.result()
        theirs = bed.run(WEBSOCAT, "-b", "--socks5", place, "-", "ws://box.example/")
        assert proxy.result() == ours == b"\x05\x01\x00\x03\x0bbox.example\x00\x50"
    assert finished.status == 69 and theirs.status != 0


def test_a_tcp_target_is_dialled_from_here(bed: Bed, echo_target: Target) -> None:
    """The other way round: a machine that nobody can dial offers its own port to a WebSocket server."""

    def request(connection: socket.socket) -> bytes:
        connection.sendall(b"request")
        connection.shutdown(socket.SHUT_WR)
        return read_to_end(connection)

    url = start_bridge(bed, "ours", echo_target.port).url
    with Target(request) as target:
        bed.check(*WEBSOCAT_OURS, "-b", f"tcp:127.0.0.1:{target.port}", url)
        assert target.result() == b"request"


def test_a_tcp_target_that_refuses_is_named(bed: Bed, echo_target: Target) -> None:
    url = start_bridge(bed, "ours", echo_target.port).url
    finished = bed.run(*WEBSOCAT_OURS, "-b", "tcp:127.0.0.1:1", url)
    assert (finished.status, finished.stderr) == (
        69,
        "wstunnel-py: 127.0.0.1:1 refused the connection: nothing is listening there\n",
    )


def test_a_unix_listener_has_the_permissions_that_the_umask_leaves(bed: Bed, echo_target: Target) -> None:
    url = start_bridge(bed, "ours", echo_target.port).url
    modes = []
    for program in ((WEBSOCAT,), WEBSOCAT_OURS):
        path = bed.folder / f"{len(program)}.sock"
        script = 'umask 0027; exec "$@"'
        words = ("--stdout-announce-listening-ports", "-b", f"unix-l:{path}", url)
        bed.start("sh", "-c", script, "sh", *program, *words).wait_for_line("LISTEN proto=unix")
        modes.append(stat.S_IMODE(path.stat().st_mode))
    assert modes == [0o750, 0o750]


def test_unlink_makes_room_where_somebody_listens(bed: Bed, echo_target: Target, short_folder: Path) -> None:
    url = start_bridge(bed, "ours", echo_target.port).url
    path = short_folder / "s"
    words = ("--stdout-announce-listening-ports", "-b", f"unix-l:{path}", url)
    bed.start(*WEBSOCAT_OURS, *words).wait_for_line("LISTEN")
    finished = bed.run(*WEBSOCAT_OURS, *words)
    assert finished.status == 69 and "Address already in use" in finished.stderr
    bed.start(*WEBSOCAT_OURS, "--unlink", *words).wait_for_line("LISTEN")
    (short_folder / "file").touch()
    finished = bed.run(*WEBSOCAT_OURS, "--unlink", "-b", f"unix-l:{short_folder}/file", url)
    assert finished.status == 69 and (short_folder / "file").exists()


def test_a_oneshot_listener_ends_with_what_became_of_its_connection(bed: Bed) -> None:
    def command(port: int) -> list[str]:
        words = ["--stdout-announce-listening-ports", "--oneshot", "-b", f"tcp-l:127.0.0.1:{port}"]
        return [*WEBSOCAT_OURS, *words, "ws://127.0.0.1:1/"]

    process, port = start_listening(bed, command)
    # The reset may come so soon that it is what the connecting socket finds.
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", port), 20) as client:
        client.recv(1)
    assert process.wait(20) == 69
    assert process.err.read_text() == "wstunnel-py: 127.0.0.1:1 refused the connection: nothing is listening there\n"


def test_text_for_a_tunnel_causes_a_warning_unless_quiet(bed: Bed, echo_target: Target) -> None:
    url = start_bridge(bed, "websocat", echo_target.port).url
    warned = bed.check(*WEBSOCAT_OURS, "-", url, stdin=b"a\n")
    assert warned.stderr == "wstunnel-py: warning: this carries lines of text; for a tunnel use --binary\n"
    for words in (("-q", "-"), ("-t", "-"), ()):
        assert bed.check(*WEBSOCAT_OURS, *words, url, stdin=b"a\n").stderr == ""


def test_text_that_was_none_is_reported(bed: Bed, echo_target: Target) -> None:
    url = start_bridge(bed, "websocat", echo_target.port).url
    finished = bed.check(*WEBSOCAT_OURS, url, stdin=os.urandom(8) + b"\xff\n")
    assert "text messages were not UTF-8; for other bytes use --binary" in finished.stderr


def test_sighup_of_ssh_ends_it_well(bed: Bed) -> None:
    with Target(echo) as target:
        url = start_bridge(bed, "ours", target.port).url
        process = bed.start(*WEBSOCAT_OURS, "-b", "-", url, stdin=subprocess.PIPE)
        process.feed(b"hello")
        process.wait_for_line("hello")
        process.send_signal(1)
        assert process.wait(20) == 0
