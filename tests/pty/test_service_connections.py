"""Connections to the terminal service: limits and deadlines, which never affect clients with a token."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS
from tests.faults.seen import leave_one_descriptor
from tests.pty.beds import Service, start_service
from tests.pty.raw import LIMIT, Raw, envelope, eventually, terminal

HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LIST = b"POST /process.Process/List HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
DESCRIPTORS = 256  # of the service under test; 64 of them may be connections


@pytest.fixture(scope="module")
def token(token_file: Path) -> str:
    return token_file.read_text().strip()


@pytest.fixture
def narrow(bed: Bed, token_file: Path) -> Service:
    """A service with a token and few descriptors, in the same process as a bridge."""
    command = [*OURS, "serve", "--listen", "none", "--pty", "127.0.0.1:0", "--pty-token-file", str(token_file)]
    process = bed.start("/bin/sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$0" "$@"', *command)
    return Service(process.wait_for_line(r"(http://127\.0\.0\.1:\d+)")[1], process)


@pytest.fixture
def crowd() -> Iterator[contextlib.ExitStack]:
    """Sockets that are closed after the test."""
    with contextlib.ExitStack() as crowd:
        yield crowd


def start_slow_to_refuse(bed: Bed, token_file: Path, seconds: float) -> Service:
    """Start a service that needs a token, and that delays a refusal for longer than a busy machine stands still."""
    code = f"import sys; from tunnel.pty.server import rejection_delay; rejection_delay.DELAY = {seconds}; "
    code += "from tunnel.cli.main import main; sys.exit(main())"
    options = ("--listen", "none", "--pty", "127.0.0.1:0", "--pty-token-file", str(token_file))
    process = bed.start(sys.executable, "-c", code, "serve", *options)
    return Service(process.wait_for_line(r"(http://127\.0\.0\.1:\d+)")[1], process)


def dial(service: Service, source: str = "127.0.0.1") -> socket.socket:
    host, _, port = service.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=LIMIT, source_address=(source, 0))


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send a request and return the head of its answer."""
    sock.sendall(data)
    return read_head(sock)


def read_head(sock: socket.socket) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = sock.recv(65536)
        if not more:
            break
        answer += more
    return answer


def is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def with_token(token: str, request: bytes = LIST, body: bytes = b"{}") -> bytes:
    return request + f"X-Access-Token: {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def descriptors(service: Service) -> int:
    return len(os.listdir(f"/proc/{service.process.pid}/fd"))


def test_idle_connections_take_a_part_of_the_descriptors_and_nobody_waits(
    narrow: Service, token: str, crowd: contextlib.ExitStack
) -> None:
    before = descriptors(narrow)
    idle = [crowd.enter_context(dial(narrow)) for _ in range(377)]
    with dial(narrow) as sock:
        assert exchange(sock, HEALTH).startswith(b"HTTP/1.1 204 ")
    with Raw(narrow.url, {"X-Access-Token": token}) as raw:
        assert raw.terminal("/bin/echo", "served").finish().output == b"served\r\n"
    assert descriptors(narrow) <= before + DESCRIPTORS // 4 + 1
    assert sum(map(is_closed, idle)) >= 377 - DESCRIPTORS // 4
    assert is_closed(idle[0]) and not is_closed(idle[-1])  # the oldest is evicted


def test_a_connection_of_the_client_address_that_holds_most_is_evicted(
    narrow: Service, crowd: contextlib.ExitStack
) -> None:
    others = [crowd.enter_context(dial(narrow, f"127.0.0.{number}")) for number in range(2, 12)]
    many = [crowd.enter_context(dial(narrow)) for _ in range(200)]
    assert exchange(many[-1], HEALTH).startswith(b"HTTP/1.1 204 ")
    assert not any(map(is_closed, others))


def test_active_requests_are_not_evicted_for_clients_without_a_token(
    narrow: Service, token: str, crowd: contextlib.ExitStack
) -> None:
    with Raw(narrow.url, {"X-Access-Token": token}) as raw:
        streams = [raw.terminal("/bin/cat") for _ in range(20)]
        for number in range(300):
            crowd.enter_context(dial(narrow, f"127.0.0.{2 + number % 100}"))
        for stream in streams:
            assert raw.send(stream.pid, b"still here\n").status == 200
            stream.wait_for(b"still here")


def test_clients_without_a_token_are_evicted_first(narrow: Service, token: str, crowd: contextlib.ExitStack) -> None:
    known = crowd.enter_context(dial(narrow))
    assert exchange(known, with_token(token)).startswith(b"HTTP/1.1 200 ")
    for _ in range(300):
        crowd.enter_context(dial(narrow))
    assert exchange(known, with_token(token)).startswith(b"HTTP/1.1 200 ")


def test_a_new_connection_is_refused_while_all_others_are_active(
    narrow: Service, token: str, crowd: contextlib.ExitStack
) -> None:
    head = LIST.replace(b"List", b"StreamInput").replace(b"/json", b"/connect+json")
    head += f"X-Access-Token: {token}\r\nContent-Length: 10000\r\n\r\n".encode()
    with Raw(narrow.url, {"X-Access-Token": token}) as raw:
        stream = raw.pipes("/bin/cat")
        typed = envelope({"start": {"process": {"pid": stream.pid}}}) + envelope({"data": {"input": {"stdin": "eA=="}}})
        others = DESCRIPTORS // 4 - 1
        for _ in range(others):
            crowd.enter_context(dial(narrow)).sendall(head + typed)
        while len(stream.output) < others:  # until all of them are being answered
            stream.step()
        with dial(narrow) as sock:
            answer = read_head(sock)
        assert answer.startswith(b"HTTP/1.1 503 "), answer
    narrow.process.wait_for_line(r" info refused client=127\.0\.0\.1:\d+ status=503 error=full")


def test_nobody_is_closed_for_a_descriptor_that_nobody_asks_for(narrow: Service, crowd: contextlib.ExitStack) -> None:
    idle = crowd.enter_context(dial(narrow, "127.0.0.2"))
    assert exchange(idle, HEALTH)
    leave_one_descriptor(narrow.process)
    last = crowd.enter_context(dial(narrow))
    for _ in range(5):
        assert exchange(last, HEALTH).startswith(b"HTTP/1.1 204 ")
        time.sleep(0.1)
    assert exchange(idle, HEALTH).startswith(b"HTTP/1.1 204 ")
    assert "cannot-accept" not in narrow.process.log()


STALLED = {
    "a call": LIST + b"X-Access-Token: TOKEN\r\nContent-Length: 100\r\n\r\n{",
    "a stream": LIST.replace(b"List", b"StreamInput").replace(b"/json", b"/connect+json")
    + b"X-Access-Token: TOKEN\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an upload": b"POST /files?path=FILE.new HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Access-Token: TOKEN\r\n"
    b"Content-Length: 100\r\n\r\nx",
    "a download": b"GET /files?path=FILE HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Access-Token: TOKEN\r\n\r\n",
}


@pytest.mark.parametrize("case", STALLED)
def test_stalled_requests_are_evicted_when_all_slots_are_taken(
    narrow: Service, token: str, crowd: contextlib.ExitStack, tmp_path: Path, case: str
) -> None:
    """Clients with a token that never finish their requests lock out nobody, even from the same address."""
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(100 << 20)
    request = STALLED[case].replace(b"TOKEN", token.encode()).replace(b"FILE", str(file).encode())
    stalled = [crowd.enter_context(dial(narrow)) for _ in range(DESCRIPTORS // 4)]
    for sock in stalled:
        sock.sendall(request)
    time.sleep(0.5)  # until all of them are being answered
    assert not any(map(is_closed, stalled))

    def newcomer_is_served() -> bool:
        with dial(narrow) as sock:
            return exchange(sock, with_token(token)).startswith(b"HTTP/1.1 200 ")

    assert eventually(newcomer_is_served)
    with dial(narrow) as sock:
        assert exchange(sock, HEALTH).startswith(b"HTTP/1.1 204 ")


def test_input_that_comes_now_and_then_keeps_its_place(
    narrow: Service, token: str, crowd: contextlib.ExitStack
) -> None:
    with Raw(narrow.url, {"X-Access-Token": token}) as raw:
        stream = raw.terminal("/bin/cat")
        typing = crowd.enter_context(dial(narrow))
        start = envelope({"start": {"process": {"pid": stream.pid}}})
        head = LIST.replace(b"List", b"StreamInput").replace(b"/json", b"/connect+json")
        head += f"X-Access-Token: {token}\r\nContent-Length: 10000\r\n\r\n".encode()
        typing.sendall(head + start)
        time.sleep(3)
        for _ in range(2 * DESCRIPTORS // 4):
            crowd.enter_context(dial(narrow)).sendall(with_token(token))
        typing.sendall(envelope({"data": {"input": {"pty": "eA=="}}}))
        stream.wait_for(b"x")


def test_no_descriptor_left_closes_an_idle_connection_and_accepting_goes_on(
    narrow: Service, token: str, crowd: contextlib.ExitStack
) -> None:
    with dial(narrow) as sock:
        assert exchange(sock, HEALTH)
    at_rest = descriptors(narrow) - 1
    idle = [crowd.enter_context(dial(narrow)) for _ in range(20)]
    assert exchange(idle[-1], HEALTH)
    in_use = descriptors(narrow)
    hard = resource.prlimit(narrow.process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(narrow.process.pid, resource.RLIMIT_NOFILE, (in_use, hard))
    for _ in range(10):
        with dial(narrow) as sock:
            assert exchange(sock, HEALTH).startswith(b"HTTP/1.1 204 ")
    assert is_closed(idle[0])
    # Nothing is left to close: the service waits, and does not spin.
    for sock in idle:
        sock.close()
    assert eventually(lambda: descriptors(narrow) <= at_rest)
    resource.prlimit(narrow.process.pid, resource.RLIMIT_NOFILE, (descriptors(narrow), hard))
    waiting = crowd.enter_context(dial(narrow))
    before = _seconds_of_cpu(narrow)
    time.sleep(2)
    assert _seconds_of_cpu(narrow) - before < 0.5
    resource.prlimit(narrow.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    assert exchange(waiting, HEALTH).startswith(b"HTTP/1.1 204 ")
    log = narrow.process.log()
    assert log.count("cannot-accept") == 1
    assert "internal-error" not in log and "Traceback" not in log


def _seconds_of_cpu(service: Service) -> float:
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _seconds_until_closed(drips: dict[socket.socket, bytes], limit: float = 30) -> list[float]:
    """Send the bytes to each socket, one every half second, until the service has closed all of them."""
    began = time.monotonic()
    closed: dict[socket.socket, float] = {}
    for position in range(int(limit * 2)):
        for sock, drip in drips.items():
            with contextlib.suppress(OSError):
                sock.send(drip[position : position + 1])
            if sock not in closed:
                with contextlib.suppress(BlockingIOError):
                    sock.setblocking(False)
                    while True:
                        try:
                            if sock.recv(65536):
                                continue
                        except ConnectionResetError:
                            pass
                        closed[sock] = time.monotonic() - began
                        break
        if len(closed) == len(drips):
            return [closed[sock] for sock in drips]
        time.sleep(0.5)
    raise AssertionError(f"open after {limit} s: {len(drips) - len(closed)}")


def test_a_head_has_a_deadline_also_byte_by_byte(guarded: Service, token: str) -> None:
    slow = b"GET /health HTTP/1.1\r\nX-A: " + b"a" * 200
    with contextlib.ExitStack() as stack:
        silent, first, later, idle = (stack.enter_context(dial(guarded)) for _ in range(4))
        assert exchange(later, with_token(token)).startswith(b"HTTP/1.1 200 ")
        assert exchange(idle, HEALTH)
        for seconds in _seconds_until_closed({silent: b"", first: slow, later: slow}):
            assert 5 < seconds < 16
        assert not is_closed(idle)  # it is kept for longer
    guarded.process.wait_for_line(r" info refused client=127\.0\.0\.1:\d+ status=408 error=slow")


def test_nothing_of_a_body_is_taken_before_the_token_is_checked(guarded: Service) -> None:
    with dial(guarded) as sock:
        sock.sendall(LIST + b"Content-Length: 4000000\r\nExpect: 100-continue\r\n\r\n")
        answer = read_head(sock)
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        assert b"Connection: close" in answer
    with dial(guarded) as sock:
        sock.sendall(LIST + b"Content-Length: 4000000\r\n\r\n")
        assert read_head(sock).startswith(b"HTTP/1.1 401 ")


def test_a_client_with_a_token_gets_100_continue(guarded: Service, token: str) -> None:
    with dial(guarded) as sock:
        head = f"X-Access-Token: {token}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        answer = exchange(sock, LIST + head.encode())
        assert answer == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert exchange(sock, b"{}").startswith(b"HTTP/1.1 200 ")


def test_a_crowd_of_bodies_without_a_token_is_not_kept_in_memory(guarded: Service, crowd: contextlib.ExitStack) -> None:
    before = _resident(guarded)
    for _ in range(60):
        sock = crowd.enter_context(dial(guarded))
        sock.setblocking(False)
        sock.send(LIST + b"Content-Length: 4000000\r\n\r\n")
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                sock.send(b" " * 65536)
    with dial(guarded) as sock:
        assert exchange(sock, HEALTH)
    assert _resident(guarded) - before < 60 * (1 << 20)


def _resident(service: Service) -> int:
    fields = Path(f"/proc/{service.process.pid}/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) << 10


def test_more_requests_than_can_be_sent_ahead_end_the_connection(guarded: Service, token: str) -> None:
    stream = LIST.replace(b"List", b"Start").replace(b"/json", b"/connect+json")
    with dial(guarded) as sock:
        assert b"200 OK" in exchange(sock, with_token(token, stream, envelope(terminal("/bin/cat"))))
        padded = HEALTH.replace(b"\r\n\r\n", b"\r\nX-A: " + b"a" * 4000 + b"\r\n\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                sock.sendall(padded)
                time.sleep(0.001)
            while sock.recv(65536):
                pass  # the service may have been too busy to read any of it yet


def test_requests_that_are_sent_ahead_are_answered_in_order(guarded: Service, token: str) -> None:
    with dial(guarded) as sock:
        sock.sendall((HEALTH + with_token(token)) * 20 + b"GET / HTTP/1.0\r\nHost: [::1]\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert re.findall(rb"HTTP/1\.[01] (\d+)", answer) == [b"204", b"200"] * 20 + [b"401"]


def test_a_bogus_token_is_answered_late_and_a_valid_one_at_once(bed: Bed, token_file: Path, token: str) -> None:
    guarded = start_slow_to_refuse(bed, token_file, 5)
    source = "127.0.0.9"  # whose lines are not limited yet
    with dial(guarded, source) as bogus, dial(guarded, source) as same, dial(guarded, source) as other:
        bogus.sendall(with_token("bogus"))
        same.sendall(with_token("bogus"))
        time.sleep(0.1)
        same.sendall(with_token(token))
        assert exchange(other, with_token(token)).startswith(b"HTTP/1.1 200 ")
        assert exchange(other, HEALTH).startswith(b"HTTP/1.1 204 ")
        answer = b""
        while answer.count(b"HTTP/1.1 ") < 2:
            answer += same.recv(65536)
        assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"401", b"200"]
        assert not select.select([bogus], [], [], 0)[0], "the valid ones were answered first"
        assert read_head(bogus).startswith(b"HTTP/1.1 401 ")
        assert exchange(bogus, with_token(token)).startswith(b"HTTP/1.1 200 ")
    refused = r" info refused client=127\.0\.0\.9:\d+ (.*)"
    assert eventually(lambda: len(re.findall(refused, guarded.process.log())) == 2)
    assert re.findall(refused, guarded.process.log()) == ["status=401 error=unauthenticated"] * 2


def test_a_token_given_twice_is_none(guarded: Service, token: str) -> None:
    with dial(guarded) as sock:
        assert exchange(sock, with_token(token, LIST + b"X-Access-Token: other\r\n")).startswith(b"HTTP/1.1 401 ")


def test_bogus_tokens_in_a_row_end_a_connection(guarded: Service) -> None:
    with dial(guarded) as sock:
        sock.sendall(with_token("bogus") * 50)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"401"] * 4


def test_a_flood_of_bogus_tokens_delays_nobody_else(guarded: Service, token: str, crowd: contextlib.ExitStack) -> None:
    for _ in range(300):
        crowd.enter_context(dial(guarded)).sendall(with_token("bogus"))
    began = time.monotonic()
    with dial(guarded) as sock:
        assert exchange(sock, HEALTH).startswith(b"HTTP/1.1 204 ")
        assert exchange(sock, with_token(token)).startswith(b"HTTP/1.1 200 ")
    assert time.monotonic() - began < 10  # one after the other, the refusals would take 300 s


@pytest.mark.full
def test_an_answer_that_nobody_reads_does_not_keep_a_connection(bed: Bed, token_file: Path) -> None:
    service = start_service(bed, "--web", "--pty-token-file", str(token_file))
    before = descriptors(service)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        host, _, port = service.url.removeprefix("http://").rpartition(":")
        sock.connect((host, int(port)))
        sock.sendall(b"GET /vendor/xterm.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 100)
        assert eventually(lambda: descriptors(service) > before)
        assert eventually(lambda: descriptors(service) == before, 90)


def test_the_origin_comes_first(bed: Bed, token_file: Path, token: str) -> None:
    guarded = start_slow_to_refuse(bed, token_file, 60)
    for headers in (b"Host: evil.example\r\n", b"Host: 127.0.0.1\r\nOrigin: http://evil.example\r\n"):
        for line in (b"GET /health", b"POST /process.Process/List", b"GET /nothing", b"OPTIONS *"):
            with dial(guarded) as sock:
                began = time.monotonic()
                extra = f"X-Access-Token: {token}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n".encode()
                answer = exchange(sock, line + b" HTTP/1.1\r\n" + headers + extra)
                assert answer.startswith(b"HTTP/1.1 403 "), answer
                assert b"evil" not in answer
                assert time.monotonic() - began < 30, "it was delayed"
    assert "evil" not in guarded.process.log()


def test_the_host_name_is_checked_for_each_request_of_a_connection(guarded: Service, token: str) -> None:
    for host, status in (
        ("127.0.0.1", 200),
        ("evil.example", 403),
        ("", 403),
        ("localhost:1", 200),
        ("127.0.0.1", 200),
    ):
        with dial(guarded) as sock:
            request = LIST.replace(b"Host: 127.0.0.1\r\n", f"Host: {host}\r\n".encode())
            answer = exchange(sock, with_token(token, request))
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (host, answer)


def test_connections_end_with_the_service(bed: Bed, token_file: Path, crowd: contextlib.ExitStack) -> None:
    guarded = start_service(bed, "--pty-token-file", str(token_file))
    idle = [crowd.enter_context(dial(guarded)) for _ in range(5)]
    idle[0].sendall(b"GET /hea")
    idle[1].sendall(with_token("bogus"))
    assert exchange(idle[2], HEALTH)
    guarded.process.send_signal(15)
    assert guarded.process.wait(LIMIT) == 0
    log = guarded.process.log()
    assert "Traceback" not in log and "internal-error" not in log, log


def test_a_connection_counts_for_the_client_that_a_trusted_proxy_names(bed: Bed, token_file: Path) -> None:
    options = ("--pty-token-file", str(token_file), "--trusted-proxy", "127.0.0.1")
    service = start_service(bed, *options)
    for source, client in (("127.0.0.1", "192.0.2.1"), ("127.0.0.2", "127.0.0.2")):
        with dial(service, source) as sock:
            forwarded = b"X-Forwarded-For: 198.51.100.1, 192.0.2.1\r\nContent-Length: 0\r\n\r\n"
            assert exchange(sock, LIST + forwarded).startswith(b"HTTP/1.1 401 ")
        service.process.wait_for_line(rf"refused client={re.escape(client)}:\d+ status=401")
