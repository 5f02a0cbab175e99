"""Peers that send floods of frames: they get a Close 1008, and others hardly notice them."""

from __future__ import annotations

import contextlib
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.utils import accept_key

from tests.bed.processes import Bed
from tests.bed.targets import Target, read_exactly, read_to_end
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.conftest import StartBridge
from tests.faults.conftest import StartClient
from tests.faults.flood import FRAMES, open_plain
from tests.faults.peer import RESUMABLE, Peer, assert_echoes
from tests.faults.seen import LIMIT, assert_one_line
from tests.server.clients import assert_echo, open_tunnel
from tests.server.test_certificates import Issuer

KEY = bytes(4)
FLOOD = 100_000  # frames


def line(text: bytes) -> bytes:
    return b"\x81" + bytes([0x80 | len(text)]) + KEY + text


PLAIN = {"empty frames": FRAMES["empty"], "pings": FRAMES["pings"], "pongs": b"\x8a\x80" + KEY}
LINES = {"ping lines": line(b"ping"), "the same ack": line(b"ack 0"), "unknown lines": line(b"what is new")}


def send_all(peer: Peer, data: bytes) -> None:
    """Send ``data``, unless the bridge hangs up first."""
    with contextlib.suppress(ConnectionError):
        peer.sock.sendall(data)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_flood_on_a_plain_tunnel_is_closed_with_1008(echo_bridge: Bridge, kind: str) -> None:
    with open_tunnel(echo_bridge.url) as bystander, Peer(echo_bridge.url, offer=("binary",)) as peer:
        send_all(peer, PLAIN[kind] * FLOOD)
        peer.wait(lambda: peer.close_code is not None)
        assert peer.close_code == 1008
        peer.wait_for_end()
        assert_echo(bystander)
    echo_bridge.process.wait_for_line("tunnel .*reason=.*too many frames without effect")


def test_a_message_of_a_million_empty_fragments_is_closed_with_1008(echo_bridge: Bridge) -> None:
    with Peer(echo_bridge.url, offer=("binary",)) as peer:
        send_all(peer, b"\x02\x80" + KEY + (b"\x00\x80" + KEY) * 1_000_000)
        peer.wait(lambda: peer.close_code is not None or peer.ended is not None)
        assert peer.close_code in (1008, None)  # None: the rest of so much may cause a reset


@pytest.mark.parametrize("kind", [*PLAIN, *LINES])
def test_a_flood_in_a_session_ends_it_with_an_error_and_1008(echo_bridge: Bridge, kind: str) -> None:
    peer, session = Peer.open(echo_bridge.url)
    with peer:
        send_all(peer, {**PLAIN, **LINES}[kind] * FLOOD)
        peer.wait_for_line("error policy ")
        peer.wait(lambda: peer.close_code is not None)
        assert peer.close_code == 1008
        peer.wait_for_end()
    with Peer(echo_bridge.url) as fresh:
        assert fresh.subprotocol == RESUMABLE
    assert session.id not in echo_bridge.process.log()


def test_a_flood_through_tls_is_closed_with_1008(start: StartBridge, tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "issuer")
    with open_tunnel(start(*issuer.options).url, tls=issuer.client()) as tunnel:
        with contextlib.suppress(OSError):
            tunnel.socket.sendall(FRAMES["pings"] * FLOOD)
        with pytest.raises(ConnectionClosed) as caught:
            tunnel.recv(LIMIT)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1008


def test_a_flood_at_websocats_command_line_is_closed_with_1008(bed: Bed, echo_target: Target) -> None:
    listener = bed.start(
        *OURS, "websocat", "--stdout-announce-listening-ports", "-b", "ws-l:127.0.0.1:0",
        f"tcp:127.0.0.1:{echo_target.port}",
    )  # fmt: skip
    port = listener.wait_for_line(r"LISTEN proto=tcp.*port=(\d+)")[1]
    with Peer(f"ws://127.0.0.1:{port}", offer=()) as peer:
        send_all(peer, FRAMES["empty"] * FLOOD)
        peer.wait(lambda: peer.close_code is not None)
        assert peer.close_code == 1008


def test_pings_that_are_never_read_an_answer_to_end_the_tunnel(bed: Bed) -> None:
    """The wire towards the peer is blocked by what the target sends, which the peer does not read."""

    def pour(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(bytes(1 << 20))

    with Target(pour) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with open_plain(bridge.url) as sock:
            time.sleep(0.5)
            with contextlib.suppress(OSError):
                sock.sendall(FRAMES["pings"] * FLOOD)
        bridge.process.wait_for_line("tunnel .*reason=.*too many frames without effect")


def test_tiny_frames_with_payload_arrive_whole(echo_bridge: Bridge) -> None:
    with Peer(echo_bridge.url, offer=("binary",)) as peer:
        thread = threading.Thread(target=send_all, args=(peer, FRAMES["bytes"] * FLOOD))
        thread.start()
        assert peer.wait_for_data(FLOOD) == b"x" * FLOOD
        thread.join()
        assert_echoes(peer, b"still here")


def test_frames_that_come_a_byte_at_a_time_arrive_whole(echo_bridge: Bridge) -> None:
    peer, _ = Peer.open(echo_bridge.url)
    with peer:
        for byte in FRAMES["bytes"] * 300:
            peer.sock.sendall(bytes([byte]))
        assert peer.wait_for_data(300) == b"x" * 300
        peer.end()


# ---- the client


def flooding_bridge(*headers: str, first: bytes, flood: bytes) -> Callable[[socket.socket], bytes]:
    """A bridge that accepts any upgrade, and then floods."""

    def serve(connection: socket.socket) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += read_exactly(connection, 1)
        key = next(field for field in head.split(b"\r\n") if field.lower().startswith(b"sec-websocket-key: "))
        accept = accept_key(key.partition(b": ")[2].decode())
        fields = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        fields += [f"Sec-WebSocket-Accept: {accept}", *headers, "", ""]
        with contextlib.suppress(ConnectionError):
            connection.sendall("\r\n".join(fields).encode() + first + flood * FLOOD)
            return read_to_end(connection)
        return b""

    return serve


SESSION = f"session id={'0' * 32} key={'0' * 64} window=1048576 retain=60".encode()
OFFER = b"\x81\x7e" + len(SESSION).to_bytes(2, "big") + SESSION


@pytest.mark.parametrize("flood", [b"\x82\x00", b"\x89\x00", b"\x81\x04ping"], ids=["empty", "pings", "ping lines"])
def test_a_client_that_is_flooded_ends_with_one_line(connect: StartClient, flood: bytes) -> None:
    script = flooding_bridge(f"Sec-WebSocket-Protocol: {RESUMABLE}", first=OFFER, flood=flood)
    with Target(script) as target:
        client = connect(f"ws://127.0.0.1:{target.port}")
        assert client.wait(LIMIT) == 76
        assert_one_line(client, "too many frames without effect")


def test_a_plain_client_that_is_flooded_ends_with_one_line(connect: StartClient) -> None:
    with Target(flooding_bridge("Sec-WebSocket-Protocol: binary", first=b"", flood=b"\x82\x00")) as target:
        client = connect(f"ws://127.0.0.1:{target.port}", "--no-resume")
        assert client.wait(LIMIT) == 76
        assert_one_line(client, "too many frames without effect")


def test_a_client_gets_tiny_frames_with_payload_whole(connect: StartClient) -> None:
    script = flooding_bridge("Sec-WebSocket-Protocol: binary", first=b"", flood=b"\x82\x01x")

    def serve_and_close(connection: socket.socket) -> None:
        script(connection)

    with Target(serve_and_close) as target:
        client = connect(f"ws://127.0.0.1:{target.port}", "--no-resume")
        for _ in range(1000):
            if client.out.stat().st_size == FLOOD:
                break
            time.sleep(0.02)
        assert client.out.read_bytes() == b"x" * FLOOD


# ---- others


@pytest.mark.full
@pytest.mark.parametrize("kind", FRAMES)
def test_others_hardly_notice_ten_floods(bed: Bed, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The round trip of a session while ten connections of another process flood the bridge; figures are printed."""
    sink = bed.start(sys.executable, "-m", "tests.faults.echo")
    bridge = start_bridge(bed, "ours", int(sink.wait_for_line(r"port (\d+)")[1]))
    with Peer(bridge.url, offer=("binary",)) as peer:
        idle = round_trips(peer, 2)
        flood = bed.start(sys.executable, "-m", "tests.faults.flood", bridge.url, kind, "10", "8")
        flood.wait_for_line("flooding")
        loaded = round_trips(peer, 6)
        assert flood.wait(LIMIT) == 0
    with capsys.disabled():
        print(f"\n{kind}: median {statistics.median(idle) * 1000:.2f} ms alone, {statistics.median(loaded) * 1000:.2f}")
        print(f"  among ten floods, at most {max(loaded) * 1000:.1f} ms; {flood.log().splitlines()[-1]}")
    assert statistics.median(loaded) < 0.1
    assert max(loaded) < 1.0


def round_trips(peer: Peer, seconds: float) -> list[float]:
    """How long each of the echoes took, in seconds."""
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        peer.data.clear()
        before = time.monotonic()
        peer.send(b"k")
        peer.wait_for_data(1)
        took.append(time.monotonic() - before)
        time.sleep(0.01)
    return took
