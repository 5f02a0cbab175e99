"""Sessions that have ended: each client reports in one line why, and what to do."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from tests.bed.processes import Bed, Process
from tests.bed.targets import Target, echo
from tests.bed.tunnels import OURS, start_bridge
from tests.conftest import StartBridge
from tests.faults.conftest import StartClient
from tests.faults.link import Link
from tests.faults.seen import LIMIT, assert_one_line, wait_for_output
from tests.server.clients import port_of


def begin(client: Process) -> Process:
    """Wait until the session has begun."""
    client.feed(b"x")
    wait_for_output(client, 1)
    return client


def test_a_withdrawn_token_ends_the_session_with_one_line(
    start: StartBridge, connect: StartClient, tmp_path: Path
) -> None:
    theirs, ours = tmp_path / "tokens", tmp_path / "token"
    for file in (theirs, ours):
        file.write_text("open-sesame\n")
        file.chmod(0o600)
    bridge = start("--token-file", str(theirs))
    with Link(port_of(bridge.url)) as link:
        client = begin(connect(link.url, "--token-file", str(ours)))
        theirs.write_text("another-one\n")
        bridge.process.send_signal(signal.SIGHUP)
        bridge.process.wait_for_line("reload")
        link.break_all("rst")
        assert client.wait(LIMIT) == 77
        assert_one_line(
            client,
            f"the session is over: this client may not resume it: {link.url} answered 401: ",
            f"; it received the token in {ours} (--token-file); connect again with valid credentials for a new one\n",
        )


def test_a_bridge_that_stops_ends_the_session_with_one_line(start: StartBridge, connect: StartClient) -> None:
    for options in ((), ("--no-resume",)):
        bridge = start("--drain", "0.1")
        client = begin(connect(bridge.url, *options))
        bridge.process.send_signal(signal.SIGTERM)
        assert client.wait(LIMIT) == 75
        assert_one_line(
            client,
            "the session is over: the bridge is stopping",
            "; connect again for a new one once the bridge is back\n",
        )


def test_a_bridge_that_was_replaced_ends_the_session_with_one_line(start: StartBridge, connect: StartClient) -> None:
    with Link(port_of(start().url)) as link:
        client = begin(connect(link.url))
        link.flip(port_of(start().url))
        link.break_all("rst")
        assert client.wait(LIMIT) == 69
        assert_one_line(
            client, "the session is over and cannot be resumed: ", "answered 410: ", "; connect again for a new one\n"
        )


def test_an_expired_session_ends_with_one_line(start: StartBridge, connect: StartClient) -> None:
    bridge = start("--resume-for", "1")
    with Link(port_of(bridge.url)) as link:
        client = begin(connect(link.url))
        link.refuse_new()
        link.break_all("rst")
        assert client.wait(LIMIT) == 75
        assert_one_line(
            client,
            "the session is over: it expired after 1 s without a connection: ",
            "; connect again for a new one; serve --resume-for sets how long the bridge keeps one\n",
        )


def test_an_outage_longer_than_reconnect_for_ends_the_session_with_one_line(
    start: StartBridge, connect: StartClient
) -> None:
    with Link(port_of(start().url)) as link:
        client = begin(connect(link.url, "--reconnect-for", "1"))
        link.refuse_new()
        link.break_all("rst")
        assert client.wait(LIMIT) == 75
        assert_one_line(
            client,
            "the session is over: gave up after 1 s without a connection: ",
            "; connect again for a new one; --reconnect-for sets how long the client tries\n",
        )


def test_quiet_omits_the_next_step(start: StartBridge, connect: StartClient) -> None:
    with Link(port_of(start().url)) as link:
        client = begin(connect(link.url, "--quiet"))
        link.flip(port_of(start().url))
        link.break_all("rst")
        client.wait(LIMIT)
        assert "connect again" not in client.err.read_text()
        assert_one_line(client, "the session is over")


def test_a_tunnel_of_forward_says_whose_it_was_and_how_the_outage_went(bed: Bed) -> None:

    with Target(echo) as target, Link(port_of(start_bridge(bed, "ours", target.port).url)) as link:
        forward = bed.start(*OURS, "forward", link.url)
        port = int(forward.wait_for_line(r"forwarding 127\.0\.0\.1:(\d+)")[1])
        with socket.create_connection(("127.0.0.1", port), LIMIT) as sock:
            sock.settimeout(LIMIT)
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            link.refuse_new()
            link.break_all("rst")
            forward.wait_for_line(r"127\.0\.0\.1:\d+: connection lost, trying again for 10 min")
            link.accept_new()
            forward.wait_for_line(r"127\.0\.0\.1:\d+: connected again after \d+ s")
            sock.sendall(b"y")
            assert sock.recv(1) == b"y"
