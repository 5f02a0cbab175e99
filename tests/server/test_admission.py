"""Greedy clients: everybody else is still served, even if all have the same address."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bed.invariants import assert_nothing_is_left, holdings
from tests.bed.processes import Bed, ticks
from tests.bed.targets import Target, read_exactly
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.conftest import StartBridge
from tests.faults.peer import RESUMABLE, Peer, assert_echoes, assert_refused, refusal
from tests.faults.seen import LIMIT, health, leave_one_descriptor, wait_for_detached
from tests.server.clients import UPGRADE, ask, assert_echo, dial, open_tunnel, read_answer, request_head
from tunnel.protocol.control import SPEED_TEST
from tunnel.run import choose_target
from tunnel.server.bridge import Bridge as ServedBridge
from tunnel.server.handshake import Upgrade
from tunnel.server.log import LOGGER
from tunnel.server.settings import BridgeSettings
from tunnel.server.state import MAX_HANDSHAKES

GREEDY, MODEST = "127.0.0.2", "127.0.0.3"  # addresses of clients


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open as many files as it may."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def take_all(stack: ExitStack, bridge: Bridge, count: int, said: bytes = b"") -> list[socket.socket]:
    """Open ``count`` connections that say ``said`` and nothing more, until the stack is closed."""
    held = []
    for _ in range(count):
        sock = stack.enter_context(dial(bridge.url, GREEDY))
        with contextlib.suppress(OSError):
            sock.sendall(said)
        held.append(sock)
    return held


# ---- handshakes


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("said", [b"", b"GET / HT"], ids=["silent", "half a request"])
def test_more_half_sent_requests_than_there_may_be_keep_nobody_out(start: StartBridge, said: bytes) -> None:
    bridge = start("--handshake-timeout", "600")
    before = holdings(bridge)
    peer, session = Peer.open(bridge.url)
    assert_echoes(peer, b"before")
    with ExitStack() as stack:
        take_all(stack, bridge, MAX_HANDSHAKES + 300, said)
        assert health(bridge)["status"] == "ok"
        assert_echoes(peer, b"meanwhile")
        peer.reset()
        with Peer(bridge.url, session.resume(1, len(peer.data))) as again:
            assert_echoes(again, b"resumed")
            again.end()
            again.wait_for_end()
        with open_tunnel(bridge.url) as tunnel:
            assert_echo(tunnel)
        more = take_all(stack, bridge, 50, said)
        assert health(bridge)["status"] == "ok"
        assert more[-1].fileno() >= 0
    assert_nothing_is_left(bridge, before)


def test_the_oldest_handshake_of_the_client_address_that_has_most_is_evicted(bed: Bed, echo_target: Target) -> None:
    process = bed.start(
        *("sh", "-c", 'ulimit -n 128; exec "$@"', "sh", *OURS, "serve", "--handshake-timeout", "600"),
        *("--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{echo_target.port}"),
    )
    url = process.wait_for_line(r"ready on (ws://[^\s,]+)")[1]
    with dial(url, MODEST) as slow, ExitStack() as stack:
        slow.sendall(request_head()[:20])
        greedy = [stack.enter_context(dial(url, GREEDY)) for _ in range(100)]
        assert ask(url, "/healthz", headers={}).status == 200
        greedy[0].settimeout(LIMIT)
        with pytest.raises(ConnectionResetError):
            greedy[0].recv(1)
        slow.sendall(request_head()[20:])
        assert slow.recv(1 << 16).startswith(b"HTTP/1.1 101 ")


def test_a_refused_client_that_lingers_holds_no_handshake(start: StartBridge) -> None:
    bridge = start()
    with ExitStack() as stack:
        for sock in take_all(stack, bridge, 400, request_head(headers={})):
            sock.settimeout(LIMIT)
            with contextlib.suppress(OSError):
                sock.recv(1)
        assert health(bridge)["status"] == "ok"
        with open_tunnel(bridge.url) as tunnel:
            assert_echo(tunnel)


def test_clients_whose_target_does_not_answer_hold_no_handshakes(bed: Bed) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with ExitStack() as stack:
            for _ in range(8):  # more than its backlog takes: the rest of the world waits
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            bridge = start_bridge(bed, "ours", port, "--dial-timeout", "60", "--max-tunnels", "2000")
            take_all(stack, bridge, 300, request_head())
            assert health(bridge)["tunnels"] >= 200


# ---- tunnels


def test_a_full_bridge_evicts_a_tunnel_of_the_client_address_that_holds_most(start: StartBridge) -> None:
    bridge = start("--max-tunnels", "4")
    before = holdings(bridge)
    with ExitStack() as stack:
        greedy = [stack.enter_context(Peer(bridge.url, offer=("binary",), source=GREEDY)) for _ in range(4)]
        for number, peer in enumerate(greedy):
            assert_echoes(peer, b"x" * (4 - number))
        modest = stack.enter_context(Peer(bridge.url, offer=("binary",), source=MODEST))
        assert_echoes(modest, b"modest")
        greedy[3].wait_for_end()
        assert greedy[3].close_code == 1013, "it has moved least"
        for peer in greedy[:3]:
            assert_echoes(peer, b"still here")
        line = bridge.process.wait_for_line(r"(?m)^.* tunnel client=127\.0\.0\.2:\d+ .*$")[0]
        assert "evicted for another client: the bridge is full (--max-tunnels, ulimit -n)" in line
    assert_nothing_is_left(bridge, before)


def test_a_client_address_never_evicts_its_own_tunnels_nor_those_of_one_that_holds_less(start: StartBridge) -> None:
    bridge = start("--max-tunnels", "3")
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(bridge.url, source=source)) for source in (GREEDY, GREEDY, MODEST)]
        for peer in peers:
            peer.wait_for_line("session ")
            assert_echoes(peer, b"mine")
        for source in (GREEDY, MODEST):
            with dial(bridge.url, source) as sock:
                sock.sendall(request_head())
                assert_refused(read_answer(sock), 503, "full")
        for peer in peers:
            assert_echoes(peer, b"still mine")


def test_a_tunnel_whose_client_sends_nothing_is_evicted_even_for_its_own_address(start: StartBridge) -> None:
    bridge = start("--max-tunnels", "3")
    with ExitStack() as stack:
        worker, _ = Peer.open(bridge.url)
        stack.enter_context(worker)
        assert_echoes(worker, b"working")
        for _ in range(10):
            idle = stack.enter_context(Peer(bridge.url))
            idle.wait_for_line("session ")
        with open_tunnel(bridge.url) as tunnel:
            assert_echo(tunnel)
        assert_echoes(worker, b"still working")


def test_an_evicted_session_resumes_when_a_slot_is_free(start: StartBridge) -> None:
    bridge = start("--max-tunnels", "2")
    with ExitStack() as stack:
        first, session = Peer.open(bridge.url, source=GREEDY)
        second, _ = Peer.open(bridge.url, source=GREEDY)
        stack.enter_context(first)
        stack.enter_context(second)
        assert_echoes(first, b"one")
        assert_echoes(second, b"two, and more")
        modest, _ = Peer.open(bridge.url, source=MODEST)
        stack.enter_context(modest)
        assert_echoes(modest, b"modest")
        first.wait_for_end()
        assert_refused(refusal(bridge.url, session.resume(1, len(first.data))), 503, "full")
        modest.end()
        modest.wait_for_end()
        for _ in ticks(LIMIT):
            if health(bridge)["tunnels"] == 1:
                break
        with Peer(bridge.url, session.resume(2, len(first.data)), source=GREEDY) as again:
            assert_echoes(again, b"back")


def test_a_session_that_is_being_resumed_is_not_evicted_for_the_one_that_it_displaces(start: StartBridge) -> None:
    bridge = start("--max-tunnels", "2", "--max-detached", "1")
    with ExitStack() as stack:
        peer, session = Peer.open(bridge.url, source=GREEDY)
        assert_echoes(peer, b"one")
        peer.reset()
        wait_for_detached(bridge, 1)
        greedy = [Peer.open(bridge.url, source=GREEDY) for _ in range(2)]
        for other, _ in greedy:
            assert_echoes(stack.enter_context(other), b"x")
        # It needs a slot, so another session has to be detached, and the only place to wait is its own.
        with Peer(bridge.url, session.resume(1, 3), source=MODEST) as again:
            assert_echoes(again, b"back")
            greedy[0][0].wait_for_end()
            wait_for_detached(bridge, 1)
            again.end()
            again.wait_for_end()
        assert "internal-error" not in bridge.process.log()
        with Peer(bridge.url, greedy[0][1].resume(1, 1), source=GREEDY) as pushed_out:
            assert_echoes(pushed_out, b"back, too")


def test_what_a_client_sent_before_its_end_reaches_the_target_even_if_its_slot_is_taken(start: StartBridge) -> None:
    size = 8 << 20
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        bridge = start("--max-tunnels", "2", "--target", f"127.0.0.1:{listener.getsockname()[1]}")
        done, _ = Peer.open(bridge.url, source=GREEDY)
        stack.enter_context(done)
        target = stack.enter_context(listener.accept()[0])
        done.send(b"x" * size)
        done.end()
        busy, _ = Peer.open(bridge.url, source=GREEDY)
        stack.enter_context(busy).send(b"x" * (size + 1))
        read_exactly(stack.enter_context(listener.accept()[0]), size + 1)  # so the other one is evicted
        modest, _ = Peer.open(bridge.url, source=MODEST)
        stack.enter_context(modest).send(b"modest")
        target.settimeout(LIMIT)
        assert len(b"".join(iter(lambda: target.recv(1 << 20), b""))) == size
    bridge.process.wait_for_line(rf"tunnel client=127\.0\.0\.2:\d+ session=1 .*bytes_in={size} ")


# ---- sessions that wait, and memory


def test_sessions_that_only_confirm_and_leave_make_nobody_s_tunnel_a_plain_one(start: StartBridge) -> None:
    bridge = start("--resume-memory", "16")
    for _ in range(300):
        peer = Peer(bridge.url)
        assert peer.subprotocol == RESUMABLE
        peer.wait_for_line("session ")
        peer.say("ack 0")
        peer.reset()
    wait_for_detached(bridge, 300)
    with Peer(bridge.url) as peer:
        assert peer.subprotocol == RESUMABLE


def test_as_many_sessions_wait_as_may_in_little_memory(start: StartBridge) -> None:
    bridge = start("--resume-memory", "4", "--max-detached", "200")
    sessions = []
    for _ in range(210):
        peer, session = Peer.open(bridge.url)
        assert_echoes(peer, b"x" * 100)
        peer.reset()
        sessions.append(session)
    wait_for_detached(bridge, 200)
    for session in (sessions[10], sessions[-1]):
        with Peer(bridge.url, session.resume(1, 100)) as again:
            assert_echoes(again, b"resumed")


def test_a_client_address_that_holds_all_memory_is_evicted_for_another_and_can_resume(start: StartBridge) -> None:
    bridge = start("--resume-memory", "2")
    with ExitStack() as stack:
        held = []
        while True:
            peer = stack.enter_context(Peer(bridge.url, source=GREEDY))
            if peer.subprotocol != RESUMABLE:
                break
            peer.wait_for_line("session ")
            assert_echoes(peer, b"mine")
            held.append(peer)
        assert len(held) >= 2
        with Peer(bridge.url, source=MODEST) as modest:
            assert modest.subprotocol == RESUMABLE
            modest.wait_for_line("session ")
            assert_echoes(modest, b"modest")
        held[0].wait_for_end()
        bridge.process.wait_for_line(r"detached client=127\.0\.0\.2:\d+ .*evicted: there is no memory left")


@pytest.mark.parametrize("offer", ["binary", SPEED_TEST])
def test_detached_sessions_are_evicted_for_a_tunnel_that_needs_their_descriptors(
    start: StartBridge, offer: str
) -> None:
    bridge = start()
    for _ in range(10):
        peer, _ = Peer.open(bridge.url, source=GREEDY)
        assert_echoes(peer, b"mine")
        peer.reset()
    wait_for_detached(bridge, 10)
    leave_one_descriptor(bridge.process)
    with Peer(bridge.url, offer=(offer,)) as peer:
        peer.send(b"echo\n")
        peer.send(b"hello")
        peer.wait(lambda: bytes(peer.data).endswith(b"hello"))
    assert "internal-error" not in bridge.process.log()


# ---- wrong offers, wrong tokens, bugs


def test_a_client_may_offer_the_resumable_protocol_alone(start: StartBridge) -> None:
    bridge = start("--max-tunnels", "5")
    for _ in range(20):
        with Peer(bridge.url, offer=(RESUMABLE,)) as peer:
            assert peer.subprotocol == RESUMABLE
            peer.wait_for_line("session ")
            assert_echoes(peer, b"hello")
            peer.end()
            peer.wait_for_end()
    peer, session = Peer.open(bridge.url)
    with peer:
        assert_echoes(peer, b"hello")
        for epoch in range(1, 60):
            with Peer(bridge.url, session.resume(epoch, len(peer.data)), offer=(RESUMABLE,)) as again:
                assert again.subprotocol == RESUMABLE
                assert again.received_before == 5
    assert "internal-error" not in bridge.process.log()
    wait_for_detached(bridge, 1)
    assert health(bridge)["tunnels"] == 0


def test_a_resume_without_the_resumable_protocol_is_refused_and_changes_nothing(start: StartBridge) -> None:
    bridge = start()
    peer, session = Peer.open(bridge.url)
    with peer:
        for offer in ("binary", "chat", ""):
            headers = {**UPGRADE, **session.resume(1), **({"Sec-WebSocket-Protocol": offer} if offer else {})}
            assert_refused(ask(bridge.url, headers=headers), 400, "bad-resume")
        assert_echoes(peer, b"as before")


def start_slow_to_refuse(bed: Bed, *options: str) -> Bridge:
    """Start a bridge that answers a wrong token so late that even a busy machine serves others before that."""
    program = (
        "import sys; from tunnel.server import connection; connection.SLOW_ANSWER *= 6; "
        "from tunnel.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    process = bed.start(sys.executable, "-c", program, "serve", "--listen", "127.0.0.1:0", *options)
    return Bridge(process.wait_for_line(r"ready on (ws://[^\s,]+)")[1], process)


def test_wrong_tokens_wait_for_their_answer_and_right_ones_do_not(
    bed: Bed, echo_target: Target, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text("right-" + "x" * 40)
    bridge = start_slow_to_refuse(bed, "--target", f"127.0.0.1:{echo_target.port}", "--token-file", str(tokens))
    open_files = len(os.listdir(f"/proc/{bridge.process.pid}/fd"))
    wrong = request_head(headers={**UPGRADE, "Authorization": "Bearer wrong"})
    with ExitStack() as stack:
        guesses = take_all(stack, bridge, 20, wrong)
        for _ in range(5):
            with open_tunnel(bridge.url, headers={"Authorization": f"Bearer {tokens.read_text()}"}) as tunnel:
                assert_echo(tunnel)
        answered, _, _ = select.select(guesses, [], [], 0)
        assert not answered, "the right ones were served first"
        assert [read_answer(sock).status for sock in guesses] == [401] * len(guesses)
        take_all(stack, bridge, 600, wrong)  # more than may wait
        with open_tunnel(bridge.url, headers={"Authorization": f"Bearer {tokens.read_text()}"}) as tunnel:
            assert_echo(tunnel)
        assert health(bridge)["status"] == "ok"
    for _ in ticks(LIMIT):
        if len(os.listdir(f"/proc/{bridge.process.pid}/fd")) <= open_files:
            return
    raise AssertionError("descriptors are left")


def test_an_unexpected_error_is_answered_and_logged(echo_target: Target, caplog: pytest.LogCaptureFixture) -> None:
    def fail(upgrade: Upgrade) -> None:
        raise RuntimeError("a bug")

    async def work() -> None:
        settings = BridgeSettings(listen=("127.0.0.1:0",), target=f"127.0.0.1:{echo_target.port}")
        async with ServedBridge(settings, choose_target(settings), negotiate=fail) as bridge:
            answer = await asyncio.to_thread(ask, bridge.urls[0])
            assert_refused(answer, 500, "internal")
            assert "a bug" not in answer.json["message"]

    LOGGER.addHandler(caplog.handler)
    try:
        asyncio.run(work())
    finally:
        LOGGER.removeHandler(caplog.handler)
    assert "internal-error" in caplog.text and "a bug" in caplog.text


# ---- who is who


def test_a_tunnel_counts_for_the_client_that_a_trusted_proxy_names(start: StartBridge) -> None:
    bridge = start("--max-tunnels", "3", "--trusted-proxy", "127.0.0.1/32")
    with ExitStack() as stack:

        def tunnel(client: str) -> Peer:
            return stack.enter_context(Peer(bridge.url, {"X-Forwarded-For": client}, offer=("binary",)))

        greedy = [tunnel(f"10.9.9.9, {client}") for client in ("192.0.2.1", "192.0.2.1:4711", "192.0.2.1")]
        for number, peer in enumerate(greedy):
            assert_echoes(peer, b"x" * (number + 1))
        modest = tunnel("192.0.2.1, 198.51.100.7")
        assert_echoes(modest, b"modest")
        greedy[0].wait_for_end()
        bridge.process.wait_for_line(r"tunnel client=192\.0\.2\.1:0 ")
        with pytest.raises(Exception, match="503"):
            tunnel("198.51.100.7")


def test_x_forwarded_for_of_an_untrusted_client_is_ignored(start: StartBridge) -> None:
    bridge = start("--max-tunnels", "2", "--trusted-proxy", "10.0.0.0/8")
    with ExitStack() as stack:
        for client in ("192.0.2.1", "192.0.2.2"):
            peer = stack.enter_context(Peer(bridge.url, {"X-Forwarded-For": client}))
            peer.wait_for_line("session ")
            assert_echoes(peer, b"mine")
        assert ask(bridge.url, headers={**UPGRADE, "X-Forwarded-For": "192.0.2.3"}).status == 503
