"""Resumes that must be refused, and too many sessions: bounded and logged, while healthy ones continue."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bed.tunnels import Bridge
from tests.conftest import StartBridge
from tests.faults.peer import RESUMABLE, Peer, Session, assert_echoes, assert_refused, refusal
from tests.faults.seen import health, resident, wait_for_detached

ZERO = "0" * 64


@pytest.fixture
def healthy(echo_bridge: Bridge) -> Iterator[tuple[Peer, Session]]:
    """A session with some bytes behind it, all of them acknowledged."""
    peer, session = Peer.open(echo_bridge.url)
    with peer:
        assert_echoes(peer, b"hello")
        peer.say("ack 5")
        peer.say("ping")
        peer.wait_for_line("ack 5")
        yield peer, session


def test_a_session_begins_with_its_line_and_carries_bytes(healthy: tuple[Peer, Session]) -> None:
    peer, session = healthy
    assert session.window >= 256 * 1024 and session.retain == 3600
    assert peer.lines[0].startswith("session ")


def test_a_session_is_resumed_at_the_offsets_of_both_sides(echo_bridge: Bridge) -> None:
    first, session = Peer.open(echo_bridge.url)
    first.send(b"0123456789")
    first.wait_for_data(10)
    first.reset()
    with Peer(echo_bridge.url, session.resume(1, 4)) as second:
        assert second.subprotocol == RESUMABLE
        assert second.received_before == 10
        assert second.wait_for_data(6) == b"456789"
        assert_echoes(second, b"more")


def test_a_stolen_id_without_the_key_is_worth_nothing(echo_bridge: Bridge, healthy: tuple[Peer, Session]) -> None:
    peer, session = healthy
    for key in (ZERO, secrets.token_hex(32)):
        assert_refused(refusal(echo_bridge.url, session.resume(1, 5, key=key)), 401, "bad-proof")
    assert_echoes(peer, b"still here")


def test_a_proof_holds_for_its_own_numbers_only(echo_bridge: Bridge, healthy: tuple[Peer, Session]) -> None:
    peer, session = healthy
    proof = session.resume(1, 5)["Wstunnel-Resume"].rpartition("=")[2]
    for epoch, received in ((2, 5), (1, 4)):
        header = f"id={session.id}, epoch={epoch}, received={received}, proof={proof}"
        assert_refused(refusal(echo_bridge.url, {"Wstunnel-Resume": header}), 401, "bad-proof")
    assert_echoes(peer, b"still here")


def test_a_replayed_request_and_a_stale_epoch_are_told_the_last_one(echo_bridge: Bridge) -> None:
    first, session = Peer.open(echo_bridge.url)
    request = session.resume(7, 0)
    with first, Peer(echo_bridge.url, request) as second:
        for headers in (request, session.resume(6, 0), session.resume(0, 0)):
            answer = refusal(echo_bridge.url, headers)
            assert_refused(answer, 409, "stale-epoch")
            assert answer.headers["wstunnel-epoch"] == "7"
        assert_echoes(second, b"still here")
    echo_bridge.process.wait_for_line("refused .*stale-epoch")


def test_an_offset_outside_the_buffer_is_refused(echo_bridge: Bridge, healthy: tuple[Peer, Session]) -> None:
    peer, session = healthy
    for epoch, received in ((1, 4), (2, 6), (3, 1 << 62)):  # acknowledged already; never sent
        assert_refused(refusal(echo_bridge.url, session.resume(epoch, received)), 400, "bad-offset")
    assert_echoes(peer, b"still here")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "id=",
        "nonsense",
        "id={id}, epoch=1, received=5",
        "id={id}, epoch=-1, received=5, proof={zero}",
        "id={id}, epoch=1, received=+5, proof={zero}",
        "id={id}, epoch=1, received=99999999999999999999, proof={zero}",
        "id={id}, epoch=1, received=5, proof=0",
        "id={id}x, epoch=1, received=5, proof={zero}",
        "id={id}, epoch=1, received=5, proof={zero}, more=1",
        "id={id}, id={id}, epoch=1, received=5, proof={zero}",
        "epoch=1, " * 500,
    ],
)
def test_a_malformed_request_is_refused(echo_bridge: Bridge, healthy: tuple[Peer, Session], header: str) -> None:
    peer, session = healthy
    filled = header.format(id=session.id, zero=ZERO)
    assert_refused(refusal(echo_bridge.url, {"Wstunnel-Resume": filled}), 400, "bad-resume")
    assert_echoes(peer, b"still here")


def test_two_resume_headers_are_refused(echo_bridge: Bridge, healthy: tuple[Peer, Session]) -> None:
    peer, session = healthy
    first, second = (session.resume(epoch, 5)["Wstunnel-Resume"] for epoch in (1, 2))
    answer = refusal(echo_bridge.url, {"Wstunnel-Resume": first, "wstunnel-resume": second})
    assert_refused(answer, 400, "bad-resume")
    assert_echoes(peer, b"still here")


def test_an_unknown_session_is_answered_410(echo_bridge: Bridge) -> None:
    stranger = Session(secrets.token_hex(16), secrets.token_hex(32), 1, 1)
    assert_refused(refusal(echo_bridge.url, stranger.resume(1)), 410, "unknown-session")


def test_an_ended_session_is_answered_410(echo_bridge: Bridge) -> None:
    peer, session = Peer.open(echo_bridge.url)
    with peer:
        peer.end()
        peer.wait_for_end()
    assert_refused(refusal(echo_bridge.url, session.resume(1)), 410, "unknown-session")


def test_a_resume_needs_the_token_again(start: StartBridge, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("open-sesame\n")
    bridge = start("--token-file", str(tokens))
    token = {"Authorization": "Bearer open-sesame"}
    peer, session = Peer.open(bridge.url, token)
    peer.reset()
    for headers in ({}, {"Authorization": "Bearer guess"}):
        answer = refusal(bridge.url, {**headers, **session.resume(1)})
        assert answer.status == 401 and "wstunnel-error" in answer.headers
    with Peer(bridge.url, {**token, **session.resume(2)}) as second:
        assert_echoes(second, b"hello")


def test_a_bridge_without_resume_knows_no_session(start: StartBridge) -> None:
    bridge = start("--resume-for", "0")
    with Peer(bridge.url) as peer:
        assert peer.subprotocol == "binary"
        assert_echoes(peer, b"plain")
        assert peer.lines == []
    stranger = Session(secrets.token_hex(16), secrets.token_hex(32), 1, 1)
    assert refusal(bridge.url, stranger.resume(1)).status == 410


def test_retention_ends(start: StartBridge) -> None:
    bridge = start("--resume-for", "1")
    peer, session = Peer.open(bridge.url)
    assert session.retain == 1
    assert_echoes(peer, b"x")
    peer.reset()
    bridge.process.wait_for_line(" detached ")  # not by its number, which may be 0 again before it is asked for
    wait_for_detached(bridge, 0)
    assert_refused(refusal(bridge.url, session.resume(1, 1)), 410, "unknown-session")


def test_the_old_connection_is_dropped_without_a_word(echo_bridge: Bridge) -> None:
    first, session = Peer.open(echo_bridge.url)
    with first:
        assert_echoes(first, b"one")
        with Peer(echo_bridge.url, session.resume(1, 3)) as second:
            first.wait_for_end()
            assert first.close_code is None
            assert not any(line.startswith("error") for line in first.lines)
            assert_echoes(second, b"two")


FRAME_OF_1000 = b"\x82\xfe\x03\xe8" + bytes(4)  # the header of a masked frame of binary data, with a key of zeros


def test_a_takeover_in_the_middle_of_a_frame_counts_what_came_of_it(echo_bridge: Bridge) -> None:
    first, session = Peer.open(echo_bridge.url)
    with first:
        # A masked frame of 1000 bytes, of which 400 come; with a key of zeros the payload is as it stands.
        first.sock.sendall(FRAME_OF_1000 + b"y" * 400)
        counted = 400 - 131  # the length of a Close, which could stand at their end
        first.wait_for_data(counted)
        with Peer(echo_bridge.url, session.resume(1, counted)) as second:
            assert second.received_before == counted
            assert_echoes(second, b"two")


CLOSES_OF_A_HOP = {  # what Caddy sends to the bridge when it is reloaded, up to 2.6 and since then
    "not masked": b"\x88\x02\x03\xe9",
    "masked": b"\x88\x82abcd" + bytes((0x03 ^ ord("a"), 0xE9 ^ ord("b"))),
    "with a reason": b"\x88\xfdabcd" + b"r" * 125,
}


@pytest.mark.parametrize("close", CLOSES_OF_A_HOP.values(), ids=CLOSES_OF_A_HOP.keys())
@pytest.mark.parametrize("came", [0, 1, 400, 800])
def test_a_close_that_a_hop_puts_into_the_middle_of_a_frame_is_not_payload(
    start: StartBridge, close: bytes, came: int
) -> None:
    """Such a hop relays bytes, and does not wait for the end of a frame when it ends the connection."""
    payload = bytes(range(250)) * 4
    bridge = start()
    first, session = Peer.open(bridge.url)
    first.sock.sendall(FRAME_OF_1000 + payload[:came])
    first.sock.sendall(close)
    first.sock.shutdown(socket.SHUT_WR)
    wait_for_detached(bridge, 1)
    first.close()
    with Peer(bridge.url, session.resume(1, len(first.data))) as second:
        counted = second.received_before
        assert counted <= came
        second.send(payload[counted:])
        second.wait_for_data(1000 - len(first.data))
        assert first.data + second.data == payload


@pytest.mark.parametrize("noise", [CLOSES_OF_A_HOP["not masked"], b"HTTP/1.1 502 Bad Gateway\r\n", b"\xff" * 20])
def test_bytes_that_are_no_frame_end_the_connection_but_not_the_session(echo_bridge: Bridge, noise: bytes) -> None:
    first, session = Peer.open(echo_bridge.url)
    with first:
        assert_echoes(first, b"one")
        first.sock.sendall(noise)
        first.wait_for_end()
        with Peer(echo_bridge.url, session.resume(1, 3)) as second:
            assert_echoes(second, b"two")


def test_a_close_with_any_code_only_detaches(echo_bridge: Bridge) -> None:
    peer, session = Peer.open(echo_bridge.url)
    for epoch, code in enumerate((1000, 1001, 1011, 4000), 1):
        assert_echoes(peer, b"x")
        peer.say_close(code)
        peer.wait_for_end()
        peer.close()
        peer = Peer(echo_bridge.url, session.resume(epoch, epoch))
    peer.close()


VIOLATIONS = {
    "an ack of what was never sent": ("ack 1000000",),
    "an ack that goes backwards": ("ack 5", "ack 4"),
    "a fin at a wrong offset": ("fin 4",),
    "a malformed ack": ("ack five",),
    "a malformed fin": ("fin",),
    "data behind the fin": ("fin 5", b"more"),
    "a second fin elsewhere": ("fin 5", "fin 6"),
    "an endless line": ("x" * 2000,),
}


@pytest.mark.parametrize("lines", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_violation_ends_the_session_with_an_error(
    echo_bridge: Bridge, healthy: tuple[Peer, Session], lines: tuple[str | bytes, ...]
) -> None:
    peer, session = healthy
    for line in lines:
        peer.send(line) if isinstance(line, bytes) else peer.say(line)
    peer.wait_for_line("error protocol")
    peer.wait_for_end()
    assert_refused(refusal(echo_bridge.url, session.resume(1, 5)), 410, "unknown-session")


def test_unknown_lines_are_ignored(healthy: tuple[Peer, Session]) -> None:
    peer, _ = healthy
    for line in ("weather sunny", "", "ACK 99", "pings"):
        peer.say(line)
    assert_echoes(peer, b"still here")


def test_a_flood_of_bogus_resumes_harms_nobody(start: StartBridge) -> None:
    bridge = start()
    peer, session = Peer.open(bridge.url)
    with peer:
        assert_echoes(peer, b"before")
        before = resident(bridge.process.pid)

        def attack(n: int) -> int:
            stranger = Session(secrets.token_hex(16), secrets.token_hex(32), 1, 1)
            guess = session.resume(n + 1, 0, key=secrets.token_hex(32))
            headers = stranger.resume(n) if n % 2 else guess
            return refusal(bridge.url, headers).status

        with ThreadPoolExecutor(100) as pool:  # a wrong proof waits for its answer
            statuses = pool.map(attack, range(2000))
            slowest = 0.0
            for _ in range(20):
                start_time = time.monotonic()
                assert_echoes(peer, b"meanwhile")
                slowest = max(slowest, time.monotonic() - start_time)
            assert set(statuses) <= {401, 410, 429, 503}
        assert slowest < 5
        assert_echoes(peer, b"after")
        assert resident(bridge.process.pid) - before < 30_000_000
        log = bridge.process.log()
        assert "bad-proof" in log and "unknown-session" in log
        assert session.key not in log and session.id not in log
        assert health(bridge)["detached"] == 0
