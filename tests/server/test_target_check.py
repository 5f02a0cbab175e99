"""The check of the target when a bridge starts: a warning if nothing is listening there, and no connection to it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, free_port
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, echo
from tests.bed.tunnels import OURS, start_embedded
from tests.server.clients import assert_echo, open_tunnel
from tunnel.net.address import TCPAddress, UnixAddress
from tunnel.server import address_target
from tunnel.server.address_target import AddressTarget
from tunnel.server.listening_sockets import is_listed

SERVE = (*OURS, "serve", "127.0.0.1:0", "--target")


def use(process: Process) -> None:
    """Open a tunnel, and end the bridge; whatever it had to say is in its log then."""
    url = process.wait_for_line(r"ready on (ws://[^\s,]+)")[1]
    with open_tunnel(url) as tunnel:
        assert_echo(tunnel)
    process.end()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "127.0.0.2"])
def test_a_bridge_warns_when_nothing_listens_at_its_target(bed: Bed, host: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as elsewhere:
        port = elsewhere.getsockname()[1] if host == "127.0.0.2" else free_port()
        process = bed.start(*SERVE, f"{host}:{port}")
        place = re.escape(f"{host}:{port}")
        process.wait_for_line(
            rf"bridge ready on .*\nwstunnel-py: warning: no tunnel can be opened yet: {place} refused "
            r"the connection: nothing is listening there; start the SSH server, or see --target\n"
        )
        assert process.status is None


def test_it_warns_of_a_unix_socket_that_is_missing_or_left_behind(bed: Bed, short_folder: Path) -> None:
    path = short_folder / "target"
    line = f"warning: no tunnel can be opened yet: cannot connect to unix:{path}: No such file or directory; start"
    bed.start(*SERVE, f"unix:{path}").wait_for_line(line)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        bed.start(*SERVE, f"unix:{path}").wait_for_line("warning: no tunnel can be opened yet: .* refused")


def test_it_warns_of_a_name_that_is_none_and_in_json(bed: Bed) -> None:
    process = bed.start(*SERVE, "no-such-host.invalid:22", "--log-format", "json")
    process.wait_for_line("cannot resolve")
    told = json.loads(process.log().splitlines()[-1])
    assert (told["level"], told["event"]) == ("warning", "warning")
    assert told["message"].startswith("no tunnel can be opened yet: cannot resolve no-such-host.invalid: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_target_that_listens_sees_no_connection_but_those_of_tunnels(bed: Bed, host: str) -> None:
    with Target(echo) as target:
        process = bed.start(*SERVE, f"{host}:{target.port}")
        use(process)
        target.result()
        with pytest.raises(AssertionError, match="no connection"):
            target.result(0.2)
    assert "warning" not in process.log()


@pytest.mark.parametrize("host", ["::1", "::", "0.0.0.0"])
def test_listeners_are_found_in_the_kernels_table(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        assert is_listed(TCPAddress("::1" if ":" in host else "127.0.0.1", port))
        assert not is_listed(TCPAddress("192.0.2.1", port))


def test_a_unix_socket_that_listens_sees_no_connection(bed: Bed, short_folder: Path) -> None:
    path = short_folder / "a target"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert not is_listed(UnixAddress(str(path)))
        listener.listen()
        assert is_listed(UnixAddress(str(path)))
        process = bed.start(*SERVE, f"unix:{path}")
        process.wait_for_line("ready on")
        listener.settimeout(0.5)
        with pytest.raises(TimeoutError):
            listener.accept()
        assert "warning" not in process.log()


def test_where_there_is_no_table_it_connects_and_a_slow_target_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_target, "is_listed", lambda _: False)
    monkeypatch.setattr(address_target, "_LOOK_LIMIT", 0.3)

    def why(port: int) -> str | None:
        return asyncio.run(AddressTarget(TCPAddress("127.0.0.1", port)).why_unanswered())

    with Target(echo) as target:
        assert why(target.port) is None
        target.result()
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(4):  # until the backlog is full, so that further ones get no answer
            sock = sockets.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        assert why(port) is None
    assert "nothing is listening there" in (why(free_port()) or "")


def test_the_embedded_server_is_not_checked_for_a_listener(bed: Bed, sshd: Sshd) -> None:
    bridge = start_embedded(bed, sshd)
    bridge.process.end()
    assert "no tunnel can be opened" not in bridge.process.log()
