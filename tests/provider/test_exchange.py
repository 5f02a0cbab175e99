"""One call of the API: it ends within its limit whatever the other end does, and opens no second connection."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.bed.targets import Target
from tests.pty.raw import eventually
from tunnel.errors import DialError, ProviderError
from tunnel.provider import exchange
from tunnel.provider.api import Api

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def api_at(port: int) -> Api:
    return Api(
        "the API", "api.test", "/v0", "k3y", "E2B_API_KEY", lambda: socket.create_connection(("127.0.0.1", port))
    )


def problem_of(call: Callable[[], object]) -> str:
    with pytest.raises(ProviderError) as caught:
        call()
    assert (caught.value.code, caught.value.exit_code) == ("api-failed", 69)
    return str(caught.value).removeprefix("request to the API failed: ")


def drip(piece: bytes) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        while True:
            connection.sendall(piece)
            time.sleep(0.02)

    return script


@pytest.mark.parametrize(
    "piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"H", HEAD + b"X: x\r\n"], ids=["interim", "slow", "endless"]
)
def test_an_answer_that_does_not_end_ends_with_the_limit(piece: bytes) -> None:
    before = threading.active_count()
    with Target(drip(piece)) as target:
        problem = problem_of(lambda: api_at(target.port).connect("i1", 300, limit=0.5))
        assert problem == "it did not answer within 0.5 s" or "did not answer in HTTP" in problem
        with pytest.raises(ConnectionError):  # a reset, or a broken pipe if the end was seen before
            target.result()  # the connection was closed: nothing is left behind
    # Its thread closes the connection before it ends; those of earlier tests may end meanwhile.
    assert eventually(lambda: threading.active_count() <= before)


def test_a_connection_that_cannot_be_opened_in_time_is_given_up_and_closed() -> None:
    opened: list[socket.socket] = []
    go_on = threading.Event()

    def open_socket() -> socket.socket:
        go_on.wait(20)
        ours, theirs = socket.socketpair()
        theirs.close()
        opened.append(ours)
        return ours

    api = Api("the API", "h", "", "k", "o", open_socket)
    assert problem_of(lambda: api.details("i1", limit=0.1)) == "it did not answer within 0.1 s"
    go_on.set()
    end = time.monotonic() + 20
    while not (opened and opened[0].fileno() == -1):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_long_wait_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "SLOW", 0.1)
    told: list[str] = []

    def script(connection: socket.socket) -> bytes:
        request = connection.recv(65536)
        while not told:
            time.sleep(0.01)
        connection.sendall(HEAD + b'Content-Length: 25\r\n\r\n{"trafficAccessToken":""}')
        return request

    with Target(script) as target:
        access = api_at(target.port).connect("i/1", 300, slow=lambda: told.append("slow"))
        assert (access.traffic_token, access.domain, told) == (None, None, ["slow"])
        request = target.result()
    assert isinstance(request, bytes)
    assert request.startswith(b"POST /v0/sandboxes/i%2F1/connect HTTP/1.1\r\n")
    assert b"\r\nHost: api.test\r\n" in request and b"\r\nX-API-Key: k3y\r\n" in request


def test_nothing_is_asked_twice_and_no_other_connection_is_opened() -> None:
    count = 0

    def open_socket() -> socket.socket:
        nonlocal count
        count += 1
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours

    assert problem_of(lambda: Api("the API", "h", "", "k", "o", open_socket).list())
    assert count == 1


def test_a_mistake_in_the_thread_is_no_silence() -> None:
    def open_socket() -> socket.socket:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Api("the API", "h", "", "k", "o", open_socket).list()

    def refuse() -> socket.socket:
        raise DialError("tcp-refused", address="h")

    problem = problem_of(Api("the API", "h", "", "k", "o", refuse).list)
    assert problem == "h refused the connection: nothing is listening there"


@pytest.mark.parametrize("date", ["", "soon", "Thu, 01 Jan 1970 00:00:00 -99999999999999999999"])
def test_a_date_that_is_none_is_not_counted_with(date: str) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        ends = datetime.fromtimestamp(time.time() + 100.0, UTC).isoformat()
        body = json.dumps({"sandboxID": "i1", "state": "running", "endAt": ends})
        connection.sendall(HEAD + f"Date: {date}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    with Target(script) as target:
        assert 50.0 < api_at(target.port).details("i1").left <= 100.0
